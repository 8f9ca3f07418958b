// SPDX-License-Identifier: Apache-2.0
//! Two daemons with the same bridge, nftables table, parent cgroup or data directory would sweep each other's pods: the
//! second one does not start, and names the first.

use hull_tests::shell::run;
use hull_tests::{ExpectExt as _, Node};
use rustix::thread::set_thread_res_uid;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Settings that a second daemon has for itself, where only one thing is shared.
const OWN: [(&str, &str); 3] = [
    ("bridge", "network.bridge=\"hlother\""),
    ("table", "network.table=\"hlother\""),
    ("parent cgroup", "cgroup.parent=\"/hull-test-other\""),
];

#[tokio::test]
async fn a_second_daemon_that_shares_something_names_the_first_and_does_not_start() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let other = node.host_dir().join("o");
    let config = text(&node.state_dir().with_file_name("hull.toml"));
    let (state, socket) = (text(&other.join("s")), text(&other.join("k")));
    for same in ["bridge", "table", "parent cgroup", "data directory"] {
        let data = match same {
            "data directory" => text(&node.data_dir()),
            _ => text(&other.join("d")),
        };
        let hull = text(&hull_tests::paths::hull());
        let mut command = vec!["20", &hull, "--config", &config, "--socket", &socket, "serve"];
        command.extend(["--state-dir", &state, "--data-dir", &data]);
        for (_, own) in OWN.iter().filter(|(of, _)| *of != same) {
            command.extend(["--set", own]);
        }
        let ran = run("timeout", command);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, 1, "{said}");
        let (names, pid) = (node.names(), node.daemon_pid().to_string());
        let words = match same {
            "bridge" => [same, &names.bridge, &pid, "network.bridge"],
            "table" => [same, &names.table, &pid, "network.table"],
            "parent cgroup" => [same, &names.cgroup, &pid, "cgroup.parent"],
            _ => [same, &data, "another hull", "`data_dir`"],
        };
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
    assert_eq!(cri.exec(&made, &["echo", "on"]).await.or_fail("exec").stdout, "on\n");
    // However the first one ended, the next has the names at once.
    for _ in 0..3 {
        node.kill();
        node.start_again().await;
    }
    assert_eq!(cri.exec(&made, &["echo", "on"]).await.or_fail("exec").stdout, "on\n");
}

#[tokio::test]
async fn no_user_of_the_node_can_hold_the_names_of_a_daemon() {
    const NOBODY: u32 = 65534;
    let mut node = Node::start().await;
    node.kill();
    let bridge = node.names().bridge.clone();
    let claims = Path::new("/run/hull/claims");
    // The file of a daemon that was killed is still there.
    let files = std::fs::read_dir(claims).or_fail("list the claims").flatten();
    let mut files = files.map(|entry| entry.path());
    let claim = files.find(|path| text(path).ends_with(&bridge)).or_fail("find the bridge's");
    // A thread has its own user, and a socket that of the thread.
    let held = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        set_thread_res_uid(nobody, nobody, nobody).or_fail("become nobody");
        let name = SocketAddr::from_abstract_name(format!("hull-network-bridge-{bridge}"));
        let socket = UnixListener::bind_addr(&name.or_fail("make a name")).or_fail("listen");
        let refused = [std::fs::File::open(claims), std::fs::File::open(&claim)];
        (socket, refused.map(|opened| opened.map(drop).map_err(|err| err.kind())))
    });
    let (socket, refused) = held.join().unwrap();
    assert_eq!(refused, [Err(std::io::ErrorKind::PermissionDenied); 2], "who can open can lock");
    node.start_again().await;
    let pod = node.cri().run_pod("web").await.or_fail("run a pod");
    node.cri().remove_pod(&pod).await.or_fail("remove it");
    drop(socket);
}

#[tokio::test]
async fn paths_that_are_something_else_are_refused_and_left_as_they_are() {
    let node = Node::start().await;
    let other = node.host_dir().join("odd");
    std::fs::create_dir_all(&other).or_fail("make a directory");
    let config = text(&node.state_dir().with_file_name("hull.toml"));
    let (file, link) = (other.join("file"), other.join("link"));
    std::fs::write(&file, "precious").or_fail("write a file");
    std::os::unix::fs::symlink(&file, &link).or_fail("make a link");
    let (own_socket, own_data) = (text(&other.join("k")), text(&other.join("d")));
    let (file, link, live) = (text(&file), text(&link), text(&node.socket()));
    let directory = text(&other);
    let below = format!("{file}/below");
    for (socket, data, words) in [
        (&file, &own_data, [file.as_str(), "a file, not a socket", "`--socket`"]),
        (&link, &own_data, [link.as_str(), "a symbolic link, not a socket", "`--socket`"]),
        (&directory, &own_data, [directory.as_str(), "a directory, not a socket", "`--socket`"]),
        (&live, &own_data, [live.as_str(), "another program serves there", "`socket`"]),
        (&own_socket, &file, [file.as_str(), "a file, not a directory", "`--data-dir`"]),
        (&own_socket, &below, [file.as_str(), "a file, not a directory", "`data_dir`"]),
    ] {
        let hull = text(&hull_tests::paths::hull());
        let mut command = vec!["20", &hull, "--config", &config, "--socket", socket, "serve"];
        let state = text(&other.join("s"));
        command.extend(["--state-dir", &state, "--data-dir", data]);
        for own in [
            "network.bridge=\"hlodd\"",
            "network.table=\"hlodd\"",
            "cgroup.parent=\"/hull-test-odd\"",
        ] {
            command.extend(["--set", own]);
        }
        let ran = run("timeout", command);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word} in {said}");
        }
        assert_eq!(std::fs::read_to_string(&file).or_fail("read the file"), "precious");
    }
    assert_eq!(std::fs::read_link(&link).or_fail("read the link"), Path::new(&file));
    assert!(node.cri().pods().await.is_empty(), "the first daemon serves on");
}
