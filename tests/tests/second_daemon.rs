// SPDX-License-Identifier: Apache-2.0
//! Two daemons with one bridge or one nftables table in a network namespace would sweep each other's pods: the second
//! one does not start, and names the first.

use hull_tests::shell::run;
use hull_tests::{Must as _, Node};
use rustix::thread::set_thread_res_uid;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_second_daemon_of_the_same_bridge_or_table_names_the_first_and_does_not_start() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let other = node.host_dir().join("o");
    let config = text(&node.state_dir().with_file_name("hull.toml"));
    let (state, data) = (text(&other.join("s")), text(&other.join("d")));
    let socket = text(&other.join("k"));
    for same in ["bridge", "table"] {
        let own = if same == "bridge" {
            "network.table=\"hlother\""
        } else {
            "network.bridge=\"hlother\""
        };
        let ran = run(
            "timeout",
            [
                "20",
                &text(&hull_tests::paths::hull()),
                "--config",
                &config,
                "--socket",
                &socket,
                "serve",
                "--state-dir",
                &state,
                "--data-dir",
                &data,
                "--set",
                own,
            ],
        );
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, 1, "{said}");
        let pid = node.daemon_pid().to_string();
        let name = if same == "bridge" { &node.names().bridge } else { &node.names().table };
        for word in [same, name, &pid, "network.bridge"] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    assert_eq!(cri.exec(&made, &["echo", "on"]).await.must("exec").stdout, "on\n");
    // However the first one ended, the next has the names at once.
    for _ in 0..3 {
        node.kill();
        node.start_again().await;
    }
    assert_eq!(cri.exec(&made, &["echo", "on"]).await.must("exec").stdout, "on\n");
}

#[tokio::test]
async fn a_process_that_is_no_daemon_cannot_keep_one_from_starting() {
    const NOBODY: u32 = 65534;
    let mut node = Node::start().await;
    node.kill();
    let name = format!("hull-network-bridge-{}", node.names().bridge);
    // Whoever listens is the thread's user: unix(7), SO_PEERCRED.
    let held = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        set_thread_res_uid(nobody, nobody, nobody).must("become nobody");
        let name = SocketAddr::from_abstract_name(name).must("make a name");
        UnixListener::bind_addr(&name).must("listen")
    });
    let held = held.join().unwrap();
    node.start_again().await;
    assert!(node.daemon_log().contains("held by a process that is not a daemon"));
    drop(held);
    node.restart().await;
    let pod = node.cri().run_pod("web").await.must("run a pod");
    node.cri().remove_pod(&pod).await.must("remove it");
}
