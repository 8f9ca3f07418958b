// SPDX-License-Identifier: Apache-2.0
//! The monitors of pods, attacked from containers: by their sockets, and by the program that all of them run.

use crate::auditor::{self, AUDITOR};
use crate::rounds;
use crate::shapes::{add_capability, mapped};
use hull_proto::cri::ContainerConfig;
use hull_tests::cri::{mount, text};
use hull_tests::{ExpectExt as _, Node};

/// Its volume is the directory of all pods, as a hostPath may be.
fn with_sockets(node: &Node, image: &str, readonly: bool) -> ContainerConfig {
    let mut config = auditor::container("connects", image, &["connect-monitors", "/pods"]);
    let mut pods = mount(&node.state_dir().join("run"), "/pods");
    pods.readonly = readonly;
    config.mounts.push(pods);
    config
}

#[tokio::test]
async fn who_reaches_the_sockets_of_monitors_ends_no_pod_and_no_exec() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    cri.pull(&image).await.unwrap();
    let victim = cri.run_pod("victim").await.unwrap();
    let main = cri.run_idle(&victim, "main", &image).await;
    for (name, readonly) in [("reads", true), ("writes", false)] {
        let pod = cri.run_pod(name).await.unwrap();
        let wait = "for i in $(seq 1 200); do [ -e /tmp/go ] && exit 7; sleep 0.1; done";
        let waits = ["sh", "-c", wait];
        let under_way = cri.exec(&main, &waits);
        let attack = async {
            let said = cri.output(&pod, with_sockets(&node, &image, readonly)).await;
            assert_eq!(said.stdout.trim(), "connected to 2", "{said:?}");
            cri.exec(&main, &["touch", "/tmp/go"]).await
        };
        let (under_way, go) = tokio::join!(under_way, attack);
        assert_eq!(go.or_fail("run an exec after the attack").code, 0);
        assert_eq!(under_way.or_fail("go on with the exec").code, 7);
        assert_eq!(cri.exec(&main, &["rm", "/tmp/go"]).await.or_fail("run an exec").code, 0);
        let status = cri.pod_status(&victim).await.unwrap().status.unwrap();
        assert_eq!(status.state, 0, "it is ready: {status:?}");
        cri.stop_pod(&pod).await.unwrap();
        cri.remove_pod(&pod).await.unwrap();
    }
}

/// Until its exec a process runs the program that all pods of the node run; as `/proc/self/exe` it even
/// goes on to run in the container.
#[tokio::test]
async fn the_program_of_all_monitors_cannot_be_spoilt_from_a_container() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    cri.pull(&image).await.unwrap();
    let mut traces = auditor::container("traces", &image, &["change-programs"]);
    add_capability(&mut traces, "SYS_PTRACE");
    let by_default = || auditor::container("by-default", &image, &["change-programs"]);
    for (pod, config) in [
        (cri.pod_config("plain"), by_default()),
        (cri.pod_config("traces"), traces),
        (mapped(&cri, "mapped"), by_default()),
    ] {
        let name = pod.hostname.clone();
        let pod = cri.run_pod_with(pod).await.unwrap();
        let attacker = cri.run(&pod, config).await;
        cri.prints(&attacker, "ready").await;
        for _ in 0..rounds() {
            // It runs, and finds nothing that a monitor has.
            let ran = cri.exec(&attacker, &["/proc/self/exe"]).await.or_fail("run /proc/self/exe");
            assert_ne!(ran.code, 0, "{ran:?}");
            assert_eq!(cri.exec(&attacker, &[AUDITOR, "say", "x"]).await.unwrap().code, 0);
        }
        cri.prints(&attacker, "refused").await;
        let said = text(&cri.logs(&attacker).await, "stdout");
        assert_eq!(said, "ready\nrefused\n", "in the pod {name}");
        let next = cri.run_pod(&format!("after-{name}")).await.or_fail("start a pod after that");
        let main = cri.run_idle(&next, "main", &image).await;
        assert_eq!(cri.exec(&main, &["true"]).await.unwrap().code, 0);
        cri.stop(&attacker, 0).await.unwrap();
    }
}
