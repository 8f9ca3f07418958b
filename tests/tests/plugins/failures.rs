// SPDX-License-Identifier: Apache-2.0
//! Plugins that hang, die, refuse or are not plugins.

use crate::{NOTHING, can_run};
use hull_tests::Node;
use hull_tests::cri::idle;
use hull_tests::plugin::Plugin;
use serde_json::json;
use std::io::Write as _;
use std::os::unix::net::UnixStream;

#[tokio::test]
async fn a_plugin_that_hangs_is_let_go_and_pods_go_on_without_it() {
    if !can_run("a_plugin_that_hangs_is_let_go") {
        return;
    }
    let node = Node::start().await;
    let mut plugin = Plugin::start(&node, "10-hangs", &json!({"hang": "CreateContainer"})).await;
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
    plugin.ended().await;
    let log = node.daemon_log();
    assert!(log.contains("plugin gave no answer and is disconnected"), "{log}");
    assert!(log.contains("nri.request_timeout_ms"), "{log}");
    cri.run_idle(&pod, "next", &image).await;
}

#[tokio::test]
async fn a_plugin_that_hangs_while_it_is_synchronised_is_let_go() {
    if !can_run("a_plugin_that_hangs_while_it_is_synchronised_is_let_go") {
        return;
    }
    let node = Node::start_with("[nri]\nregistration_timeout_ms = 2000\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let plugin = Plugin::spawn(&node, "10-hangs", &json!({"hang": "Synchronize"}), &[]);
    plugin.files().wait_for_call("Synchronize").await;
    cri.run_idle(&pod, "main", &image).await;
    let log = node.daemon_log();
    assert!(log.contains("its Synchronize failed: no answer within 2s"), "{log}");
    assert!(!plugin.files().calls().contains(&"CreateContainer".to_owned()));
}

#[tokio::test]
async fn a_plugin_that_dies_in_the_middle_of_a_call_holds_up_nobody() {
    if !can_run("a_plugin_that_dies_in_the_middle_of_a_call_holds_up_nobody") {
        return;
    }
    let node = Node::start().await;
    for call in
        ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemovePodSandbox"]
    {
        let mut plugin = Plugin::start(&node, "10-dies", &json!({"die": call})).await;
        let (cri, pod, image) = node.pod("web").await;
        let id = cri.run_idle(&pod, "main", &image).await;
        cri.stop(&id, 0).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
        plugin.ended().await;
    }
}

#[tokio::test]
async fn a_plugins_refusal_keeps_a_pod_from_starting_but_never_from_ending() {
    if !can_run("a_plugins_refusal_keeps_a_pod_from_starting_but_never_from_ending") {
        return;
    }
    let node = Node::start().await;
    let plugin = Plugin::start(&node, "10-refuses", &NOTHING).await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    cri.pull(&image).await.unwrap();
    plugin.files().order(&json!({"refuse": "RunPodSandbox"}));
    let said = cri.run_pod("web").await.unwrap_err();
    assert!(
        said.message().contains(
            "get RunPodSandbox approved: NRI plugin `10-refuses` refuses it: refused as ordered"
        ),
        "{said}"
    );
    assert!(cri.pods().await.is_empty());
    plugin.files().order(&json!({"refuse": "StartContainer"}));
    let pod = cri.run_pod("web").await.unwrap();
    let id = cri.make(&pod, idle("main", &image)).await;
    let said = cri.start(&id).await.unwrap_err();
    assert!(said.message().contains("get StartContainer approved"), "{said}");
    cri.remove(&id).await.unwrap();
    for call in ["StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox"] {
        plugin.files().order(&json!({"refuse": call}));
        let pod = cri.run_pod("web").await.unwrap();
        cri.run_idle(&pod, "main", &image).await;
        cri.stop_pod(&pod).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
    let failed: Vec<_> = plugin.files().calls().into_iter().take(5).collect();
    assert_eq!(
        failed,
        ["Configure", "Synchronize", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    );
}

#[tokio::test]
async fn what_is_no_plugin_is_let_go() {
    let node = Node::start_with("[nri]\nregistration_timeout_ms = 300\n").await;
    let mut garbage = UnixStream::connect(node.nri_socket()).unwrap();
    garbage.write_all(&[0xff; 64]).unwrap();
    let silent = UnixStream::connect(node.nri_socket()).unwrap();
    let gone = UnixStream::connect(node.nri_socket()).unwrap();
    drop(gone);
    for mut stream in [garbage, silent] {
        // The daemon closes it.
        let ended = std::io::Read::read(&mut stream, &mut [0; 16]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let log = node.daemon_log();
    assert!(log.contains("it sent a frame of 4294967295 bytes"), "{log}");
    assert!(log.contains("it did not register within 300ms"), "{log}");
    let (cri, pod, image) = node.pod("web").await;
    cri.run_idle(&pod, "main", &image).await;
}
