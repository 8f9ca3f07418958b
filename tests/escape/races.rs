// SPDX-License-Identifier: Apache-2.0
//! Processes that are about to enter a container, raced by a process in it that may look at everything
//! (CAP_SYS_PTRACE): their links in /proc must never lead to anything of the host.

use crate::auditor::{self, AUDITOR};
use crate::rounds;
use crate::shapes::{add_capability, mapped, processes_of, share_processes};
use hull_proto::cri::{ContainerConfig, NamespaceMode};
use hull_tests::bundle::Bundle;
use hull_tests::eventually::{blocking, deadline};
use hull_tests::{Cri, ExpectExt as _, Node, node};
use serde_json::json;
use std::fs;
use std::path::Path;

/// A container that looks for a file of the host through every new process.
fn hunter(image: &str, marker: &Path) -> ContainerConfig {
    let marker = marker.display().to_string();
    let mut config = auditor::container("hunter", image, &["find-file", &marker]);
    add_capability(&mut config, "SYS_PTRACE");
    config
}

async fn found_nothing(cri: &Cri, hunter: &str) {
    let said = hull_tests::cri::text(&cri.logs(hunter).await, "stdout");
    assert_eq!(said, "ready\n", "something of the host was reached");
    cri.stop(hunter, 0).await.or_fail("stop the hunter");
}

#[tokio::test]
async fn an_exec_on_its_way_in_shows_nothing_of_the_host() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let marker = node::write(&node.host_dir(), "marker", "of the host");
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped")] {
        let pod = cri.run_pod_with(config).await.unwrap();
        let hunter = cri.run(&pod, hunter(&image, &marker)).await;
        cri.prints(&hunter, "ready").await;
        for _ in 0..rounds() {
            assert_eq!(cri.exec(&hunter, &[AUDITOR, "say", "x"]).await.unwrap().code, 0);
        }
        found_nothing(&cri, &hunter).await;
    }
}

#[tokio::test]
async fn a_container_that_starts_beside_others_shows_nothing_of_the_host() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let marker = node::write(&node.host_dir(), "marker", "of the host");
    for mut config in [cri.pod_config("plain"), mapped(&cri, "mapped")] {
        share_processes(&mut config);
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut hunting = hunter(&image, &marker);
        processes_of(&mut hunting, NamespaceMode::Pod);
        let hunter = cri.run(&pod, hunting).await;
        cri.prints(&hunter, "ready").await;
        for round in 0..rounds() {
            let mut next = auditor::container("next", &image, &["say", "x"]);
            processes_of(&mut next, NamespaceMode::Pod);
            let next = cri.run(&pod, next).await;
            assert_eq!(cri.ended(&next).await.exit_code, 0, "round {round}");
            cri.remove(&next).await.unwrap();
            // Execs of a neighbour are in the same pid namespace.
            assert_eq!(cri.exec(&hunter, &[AUDITOR, "say", "x"]).await.unwrap().code, 0);
        }
        found_nothing(&cri, &hunter).await;
    }
}

#[test]
fn an_exec_by_hull_oci_on_its_way_in_shows_nothing_of_the_host() {
    let bundle = Bundle::new();
    let at = Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), at).or_fail("put the auditor in a bundle");
    let marker = node::write(&bundle.scratch(), "marker", "of the host").display().to_string();
    let out = bundle.scratch().join("log");
    bundle.change(|config| {
        let script = format!("exec {AUDITOR} find-file {marker} > /t/log");
        config["process"]["args"] = json!(["sh", "-c", script]);
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut();
            set.or_fail("find a set of capabilities").push(json!("CAP_SYS_PTRACE"));
        }
        let scratch = bundle.scratch().display().to_string();
        let mount =
            json!({"destination": "/t", "source": scratch, "type": "bind", "options": ["rbind"]});
        config["mounts"].as_array_mut().or_fail("find the mounts").push(mount);
    });
    bundle.up("one");
    let said = || fs::read_to_string(&out).unwrap_or_default();
    let ready = || if said().lines().any(|line| line == "ready") { Ok(()) } else { Err(said()) };
    blocking(deadline(), ready).unwrap_or_else(|said| panic!("the hunter is not ready: {said}"));
    for _ in 0..rounds() {
        let _said = bundle.oci(&["exec", "one", AUDITOR, "say", "x"]).good();
    }
    assert_eq!(said(), "ready\n", "something of the host was reached");
}
