// SPDX-License-Identifier: Apache-2.0
//! Processes whose first thread has ended, so that the kernel shows a zombie, while
//! another thread goes on.

use crate::auditor::{self, AUDITOR};
use hull_tests::bundle::Bundle;
use hull_tests::eventually::{blocking, deadline, eventually};
use hull_tests::expect::ExpectExt as _;
use hull_tests::node::Node;
use std::fs;

#[tokio::test]
async fn a_container_whose_first_thread_has_ended_is_stopped_and_removed() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let id = cri.run(&pod, auditor::container("main", &image, &["end-main-thread"])).await;
    let pid = cri.pid(&id).await;
    eventually("its first thread has ended", || async {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    })
    .await;
    cri.stop(&id, 1).await.or_fail("stop it");
    let left = fs::read_to_string(format!("/proc/{pid}/stat"));
    assert!(left.is_err(), "it runs on: {left:?}");
    // Another one goes with its pod.
    let id = cri.run(&pod, auditor::container("other", &image, &["end-main-thread"])).await;
    let pid = cri.pid(&id).await;
    cri.stop_pod(&pod).await.or_fail("stop the pod");
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    let left = fs::read_to_string(format!("/proc/{pid}/stat"));
    assert!(left.is_err(), "it runs on: {left:?}");
}

#[test]
fn hull_oci_kills_and_deletes_a_container_whose_first_thread_has_ended() {
    let bundle = Bundle::new();
    let at = std::path::Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), at).or_fail("put the auditor in a bundle");
    bundle.change(|config| {
        config["process"]["args"] = serde_json::json!([AUDITOR, "end-main-thread"]);
    });
    bundle.up("one");
    let pid = bundle.state("one")["pid"].as_i64().or_fail("its number");
    let ended = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    };
    blocking(deadline(), ended).unwrap();
    assert_eq!(bundle.status("one"), "running");
    for words in [["kill", "one", "KILL"], ["delete", "--force", "one"]] {
        let _said = bundle.oci(&words).good();
    }
    // Its new parent may not have waited for it yet.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |threads| threads.count());
    assert!(threads <= 1, "{threads} threads run on");
}
