// SPDX-License-Identifier: Apache-2.0
//! Parts of the host that a container reaches: paths, sockets, devices, ports.

use crate::{audit, confined, found, mapped, restricted};
use hull_proto::cri as api;
use hull_tests::cri::{idle, mount, security};
use hull_tests::{ExpectExt as _, Node, fixture};
use std::os::unix::net::UnixListener;
use std::path::Path;

fn socket(dir: &Path, name: &str) -> UnixListener {
    UnixListener::bind(dir.join(name)).or_fail("listen at a socket")
}

#[tokio::test]
async fn paths_and_sockets_of_the_host_are_found_with_what_they_are_worth() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let dir = node.host_dir();
    let plain = dir.join("plain");
    std::fs::create_dir(&plain).unwrap();
    let (_docker, _other) = (socket(&dir, "docker.sock"), socket(&plain, "other.sock"));
    let mut config = confined(idle("one", &image));
    let read_only = |from: &Path, to: &str| api::Mount { readonly: true, ..mount(from, to) };
    config.mounts = vec![
        read_only(Path::new("/"), "/host"),
        mount(&plain, "/plain"),
        mount(&dir.join("docker.sock"), "/var/run/docker.sock"),
        read_only(Path::new("/etc"), "/host-etc"),
    ];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    assert_eq!(report["level"], "privileged", "{report}");
    assert_eq!(report["next"]["fix"], "a volume that is not hostPath");
    let paths = found(&report, "host-path");
    let has = |start: &str, part: &str| {
        paths.iter().any(|path| path.starts_with(start) && path.contains(part))
    };
    assert!(has("node: / of the host at /host", "read-only"), "{paths:#?}");
    assert!(
        has(&format!("node: {} of the host at /plain", plain.display()), "writable"),
        "{paths:#?}"
    );
    assert!(has("node: /etc of the host at /host-etc", "credentials"), "{paths:#?}");
    let sockets = found(&report, "host-socket");
    let at = |place: &str| sockets.iter().find(|of| of.contains(place)).or_fail(place.to_owned());
    assert!(at("by /var/run/docker.sock").starts_with("host: "), "{sockets:#?}");
    assert!(
        at("by /plain: ").starts_with("node: ") && at("by /plain: ").contains("other.sock"),
        "{sockets:#?}"
    );
    assert!(report["facts"]["host_mounts"].as_array().unwrap().len() >= 4, "{report}");

    // Writable it is root.
    let mut config = confined(idle("two", &image));
    config.mounts = vec![mount(Path::new("/"), "/host")];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "two");
    let paths = found(&report, "host-path");
    assert!(
        paths.iter().any(|path| path.starts_with("host: / of the host at /host, writable")),
        "{paths:#?}"
    );
}

#[tokio::test]
async fn an_unmasked_proc_is_found_wherever_it_is_mounted() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(mapped(&cri, "web")).await.unwrap();
    let mut config = idle("one", &image);
    security(&mut config).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    // `procMount: Unmasked`, as kubelets send it.
    security(&mut config).masked_paths.clear();
    security(&mut config).readonly_paths.clear();
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    let open = found(&report, "proc-unmasked");
    assert!(open[0].starts_with("none: ") && open[0].contains("/proc/keys"), "{report}");
    let writable = found(&report, "proc-writable");
    assert!(
        writable[0].starts_with("none: ") && writable[0].contains("/proc/sys/kernel/core_pattern"),
        "{report}"
    );
    // Another procfs that the container mounts for itself is found as well.
    let hides = "mkdir -p /hidden/deep && mount -t proc none /hidden/deep && echo done";
    let said = cri.exec(&id, &["sh", "-c", hides]).await.unwrap();
    assert_eq!(said.stdout, "done\n", "{said:?}");
    let report = audit(&node, "one");
    let open = found(&report, "proc-unmasked");
    assert!(open[0].contains("/hidden/deep/keys"), "{report}");
}

#[tokio::test]
async fn what_the_daemon_keeps_is_out_of_reach_of_other_users_of_the_node() {
    use std::os::unix::fs::MetadataExt as _;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let _id = cri.run_idle(&pod, "one", &image).await;
    let of_state = ["pods", "containers", "run"].map(|name| node.state_dir().join(name));
    let of_data = ["images", "layers", "containers", "tmp"].map(|name| node.data_dir().join(name));
    for path in of_state.into_iter().chain(of_data).chain([node.socket()]) {
        let found = std::fs::symlink_metadata(&path).or_fail(format!("look at {}", path.display()));
        assert_eq!(found.mode() & 0o077, 0, "{} has mode {:o}", path.display(), found.mode());
        assert_eq!((found.uid(), found.gid()), (0, 0), "{}", path.display());
    }
}

#[tokio::test]
async fn a_device_outside_dev_and_the_rules_for_it_are_found() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // Of a number that no driver has: nothing of this machine is opened.
    let disk = node.host_dir().join("disk");
    let number = rustix::fs::makedev(259, 77);
    let (kind, mode) = (rustix::fs::FileType::BlockDevice, rustix::fs::Mode::from(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &disk, kind, mode, number).or_fail("make a node");
    let mut config = confined(idle("one", &image));
    config.devices = vec![api::Device {
        container_path: "/opt/x".into(),
        host_path: disk.display().to_string(),
        permissions: "rwm".into(),
    }];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    let nodes = found(&report, "devices");
    assert!(nodes[0].starts_with("host: ") && nodes[0].contains("/opt/x (b 259:77"), "{report}");
    if report["facts"]["devices"]["rules"]["kind"] == "v1" {
        let rules = found(&report, "device-rules");
        assert!(rules[0].starts_with("host: ") && rules[0].contains("b 259:77"), "{report}");
    }
    assert_eq!(report["level"], "privileged", "{report}");
    // Without the node the rule stays.
    let removed = cri.exec(&id, &["rm", "/opt/x"]).await.unwrap();
    assert_eq!(removed.code, 0, "{removed:?}");
    if report["facts"]["devices"]["rules"]["kind"] == "v1" {
        assert_eq!(audit(&node, "one")["reach"], "host");
    }
}

#[tokio::test]
async fn ports_of_the_host_are_found_and_keep_from_baseline() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = cri.pod_config("web");
    config.port_mappings = vec![api::PortMapping {
        protocol: api::Protocol::Tcp.into(),
        container_port: 80,
        host_port: i32::from(node.host_port()),
        host_ip: "127.0.0.1".into(),
    }];
    let pod = cri.run_pod_with(config).await.unwrap();
    let id = cri.run(&pod, restricted("one", &image)).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    let ports = found(&report, "host-ports");
    assert!(ports[0].contains(&node.host_port().to_string()), "{report}");
    assert_eq!(report["level"], "privileged", "{report}");
    assert_eq!(report["next"]["fix"], "no ports[*].hostPort");
}

#[tokio::test]
async fn the_daemons_own_sockets_and_directories_lead_to_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = confined(idle("one", &image));
    let read_only = |from: &Path, to: &str| api::Mount { readonly: true, ..mount(from, to) };
    config.mounts = vec![
        read_only(&node.socket(), "/cri"),
        read_only(&node.state_dir(), "/state"),
        read_only(&node.state_dir().join("run").join(&pod), "/pod"),
        read_only(&node.data_dir(), "/data"),
        mount(&node.data_dir().join("tmp"), "/tmp-of-data"),
    ];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    let sockets = found(&report, "host-socket");
    for (place, name) in [("/cri", ""), ("/state", "monitor.sock"), ("/pod", "monitor.sock")] {
        let by = format!("by {place}: ");
        let of = sockets.iter().find(|of| of.contains(&by)).or_fail(format!("{place}: {report}"));
        assert!(of.starts_with("host: ") && of.contains(name), "{of}");
    }
    let paths = found(&report, "host-path");
    let of = |place: &str| paths.iter().find(|path| path.contains(place)).or_fail(place.to_owned());
    assert!(of(" at /data,").starts_with("node: "), "{paths:#?}");
    assert!(of(" at /tmp-of-data,").starts_with("host: "), "{paths:#?}");
}
