// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: what it finds in containers of every shape, and what a hostile one can do to it.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{idle, mount, pod_namespaces, security, shell};
use hull_tests::image::Image;
use hull_tests::{Cri, Must as _, Node, eventually, fixture};
use serde_json::Value;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Where the ids of pods with a user namespace begin on the host.
const FIRST: u32 = 200_000;

fn maps() -> Vec<api::IdMapping> {
    vec![api::IdMapping { host_id: FIRST, container_id: 0, length: 65_536 }]
}

fn mapped(cri: &Cri, name: &str) -> api::PodSandboxConfig {
    let mut config = cri.pod_config(name);
    pod_namespaces(&mut config).userns_options =
        Some(api::UserNamespace { mode: NamespaceMode::Pod.into(), uids: maps(), gids: maps() });
    config
}

/// What the standards call restricted.
fn restricted(name: &str, image: &str) -> api::ContainerConfig {
    let mut config = idle(name, image);
    let context = security(&mut config);
    context.no_new_privs = true;
    context.run_as_user = Some(api::Int64Value { value: 1000 });
    context.run_as_group = Some(api::Int64Value { value: 1000 });
    context.capabilities =
        Some(api::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    confined(config)
}

/// With the default seccomp profile, as kubelets ask for it.
fn confined(mut config: api::ContainerConfig) -> api::ContainerConfig {
    security(&mut config).seccomp = Some(api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    });
    config
}

/// The report of one container.
fn audit(node: &Node, name: &str) -> Value {
    let text = node.hull(&["audit", "-o", "json", name]).good();
    let report: Value = serde_json::from_str(&text).must(format!("read {text}"));
    assert_eq!(report["version"], 1);
    let containers = report["containers"].as_array().must("find containers");
    assert_eq!(containers.len(), 1, "{text}");
    containers[0].clone()
}

/// Findings of this id, as `reach: what`.
fn found(report: &Value, id: &str) -> Vec<String> {
    let findings = report["findings"].as_array().must("find findings");
    let these = findings.iter().filter(|finding| finding["id"] == id);
    let text =
        |finding: &Value, field: &str| finding[field].as_str().must(field.to_owned()).to_owned();
    these
        .map(|finding| {
            assert!(!text(finding, "fix").is_empty(), "{finding}");
            format!("{}: {}", text(finding, "reach"), text(finding, "what"))
        })
        .collect()
}

fn ids(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().must("find findings");
    findings.iter().map(|finding| finding["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_default_container_is_baseline_and_its_open_ends_are_named() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, confined(idle("one", &image))).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    assert_eq!(report["level"], "baseline", "{report}");
    assert_eq!(report["next"]["level"], "restricted");
    assert_eq!(report["next"]["fix"], "securityContext.allowPrivilegeEscalation: false");
    assert_eq!(report["reach"], "node", "NET_RAW on the pod network: {report}");
    assert!(found(&report, "capabilities")[0].contains("CAP_NET_RAW"), "{report}");
    for id in ["privilege-escalation", "host-root-user"] {
        assert!(found(&report, id)[0].starts_with("none: "), "{report}");
    }
    let facts = &report["facts"];
    assert_eq!(facts["users"], serde_json::json!([{"inside": 0, "host": 0}]));
    assert_eq!(facts["seccomp"]["mode"], "filter");
    assert_eq!(facts["capabilities"]["bounding"].as_array().unwrap().len(), 14, "{facts}");
    for (kind, whose) in
        [("mnt", "own"), ("pid", "own"), ("net", "pod"), ("ipc", "pod"), ("user", "host")]
    {
        assert_eq!(facts["namespaces"][kind], whose, "{kind}: {facts}");
    }
    // Nothing that every container has is told as something of the host's.
    for id in [
        "host-path",
        "host-socket",
        "devices",
        "device-rules",
        "proc-writable",
        "proc-unmasked",
        "sys-writable",
        "cgroup-writable",
    ] {
        assert!(!ids(&report).contains(&id.to_owned()), "{id}: {report}");
    }
    // For people the same.
    let text = node.hull(&["audit", &id[..10]]).good();
    for part in [
        "web/one",
        "pod security    baseline; not restricted: ",
        "REACH  FINDING",
        "CAP_NET_RAW",
        "hint: ",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[tokio::test]
async fn a_restricted_container_is_told_so_and_nothing_is_found() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, restricted("one", &image)).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "web/one");
    assert_eq!(report["level"], "restricted", "{report}");
    assert_eq!(report["next"], Value::Null);
    assert_eq!(report["reach"], "none", "{report}");
    assert_eq!(report["facts"]["capabilities"]["bounding"], serde_json::json!([]));
    assert_eq!(report["facts"]["no_new_privs"], true);
    for id in ids(&report) {
        // What the kernel of this host has and the default masks do not cover.
        assert!(["sys-unmasked", "no-lsm"].contains(&id.as_str()), "{id}: {report}");
    }
    // Without a filter it is baseline again.
    let mut open = restricted("two", &image);
    security(&mut open).seccomp = None;
    let open = cri.run(&pod, open).await;
    cri.catches_term(&open).await;
    let report = audit(&node, &open);
    assert_eq!(report["level"], "baseline", "{report}");
    assert_eq!(report["next"]["fix"], "securityContext.seccompProfile.type: RuntimeDefault");
    assert_eq!(found(&report, "no-seccomp").len(), 1, "{report}");
}

#[tokio::test]
async fn a_privileged_container_reaches_the_host_by_everything_that_it_has() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("one", &image);
    security(&mut config).privileged = true;
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    assert_eq!(
        (&report["level"], &report["reach"]),
        (&"privileged".into(), &"host".into()),
        "{report}"
    );
    assert_eq!(report["next"]["fix"], "securityContext.privileged: false");
    for id in ["capabilities", "proc-writable", "sys-writable"] {
        assert!(found(&report, id)[0].starts_with("host: "), "{id}: {report}");
    }
    // A release agent is of version 1 alone.
    let version_1 = report["facts"]["devices"]["rules"]["kind"] == "v1";
    let reach = if version_1 { "host: " } else { "node: " };
    assert!(found(&report, "cgroup-writable")[0].starts_with(reach), "{report}");
    assert!(
        found(&report, "proc-writable")[0].contains("/proc/sys/kernel/core_pattern"),
        "{report}"
    );
    assert_eq!(found(&report, "no-seccomp").len(), 1, "{report}");
    let findings = report["findings"].as_array().unwrap();
    let of = |id: &str| findings.iter().find(|finding| finding["id"] == id).must(id.to_owned());
    assert_eq!(of("capabilities")["fix"], "securityContext.privileged: false");
}

#[tokio::test]
async fn namespaces_of_the_host_and_of_the_pod_are_told_apart() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = cri.pod_config("host");
    let options = pod_namespaces(&mut config);
    (options.network, options.pid) = (NamespaceMode::Node.into(), NamespaceMode::Node.into());
    let pod = cri.run_pod_with(config).await.unwrap();
    let port = node.host_port();
    let script = format!("exec httpd -f -p 127.0.0.1:{port} -h /etc");
    let mut one = shell("one", &image, &script);
    let options = security(&mut one).namespace_options.as_mut().unwrap();
    (options.network, options.pid) = (NamespaceMode::Node.into(), NamespaceMode::Node.into());
    security(&mut one).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Default::default() });
    let id = cri.run(&pod, one).await;
    let report = eventually("it listens", || async {
        let report = audit(&node, &id);
        let what = found(&report, "host-network").concat();
        if what.contains(&format!("tcp 127.0.0.1:{port}")) {
            Ok(report)
        } else {
            Err(report.to_string())
        }
    })
    .await;
    assert_eq!(report["level"], "privileged");
    assert_eq!(report["next"]["fix"], "spec.hostNetwork: false");
    let by_pid = found(&report, "host-pid");
    assert!(by_pid[0].starts_with("host: ") && by_pid[0].contains("/proc/<pid>/root"), "{report}");
    // It may steer every process of the host.
    let steers = found(&report, "capabilities");
    assert!(steers[0].starts_with("host: ") && steers[0].contains("CAP_SYS_PTRACE"), "{report}");

    let mut config = cri.pod_config("shared");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    for name in ["first", "second"] {
        let mut config = idle(name, &image);
        security(&mut config).namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
        let _id = cri.run(&pod, config).await;
    }
    let text = node.hull(&["audit", "-o", "json", "shared"]).good();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["pod"]["name"], "shared");
    let both = report["containers"].as_array().unwrap();
    assert_eq!(both.len(), 2, "{text}");
    for one in both {
        assert!(found(one, "shared-pid")[0].starts_with("pod: "), "{text}");
        let other = if one["name"] == "first" { "second" } else { "first" };
        let through = found(one, "neighbours");
        assert!(through[0].contains(other) && through[0].starts_with("node: "), "{text}");
        assert_eq!(one["facts"]["namespaces"]["pid"], "pod");
    }
}

fn socket(dir: &Path, name: &str) -> UnixListener {
    UnixListener::bind(dir.join(name)).must("listen at a socket")
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
    let at = |place: &str| sockets.iter().find(|of| of.contains(place)).must(place.to_owned());
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
async fn in_a_user_namespace_the_same_rights_reach_less() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(mapped(&cri, "web")).await.unwrap();
    let mut config = confined(idle("one", &image));
    security(&mut config).no_new_privs = true;
    security(&mut config).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    // One volume as a kubelet gives it, ids as inside; one without.
    let (own, other) = (node.host_dir().join("own"), node.host_dir().join("other"));
    for dir in [&own, &other] {
        std::fs::create_dir(dir).unwrap();
    }
    let as_inside =
        api::Mount { uid_mappings: maps(), gid_mappings: maps(), ..mount(&own, "/own") };
    config.mounts = vec![as_inside, mount(&other, "/other")];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    let facts = &report["facts"];
    assert_eq!(facts["user_namespace"], true, "{report}");
    assert_eq!(
        facts["uid_map"],
        serde_json::json!([{"inside": 0, "outside": FIRST, "length": 65_536}])
    );
    assert_eq!(facts["users"], serde_json::json!([{"inside": 0, "host": FIRST}]));
    let admin = found(&report, "capabilities");
    let admin = admin.iter().find(|of| of.contains("CAP_SYS_ADMIN")).must("find SYS_ADMIN");
    assert!(admin.starts_with("none: ") && admin.contains("its own user namespace"), "{report}");
    assert!(!ids(&report).contains(&"host-root-user".to_owned()), "{report}");
    let paths = found(&report, "host-path");
    let of = |place: &str| paths.iter().find(|path| path.contains(place)).must(place.to_owned());
    assert!(of("at /own").starts_with("node: "), "{paths:#?}");
    assert!(of("at /other").starts_with("none: "), "{paths:#?}");
    // The capability keeps it from Baseline all the same: the standards know no exception for it.
    assert_eq!(report["level"], "privileged", "{report}");
    assert!(report["next"]["reason"].as_str().unwrap().contains("SYS_ADMIN"), "{report}");

    let mut config = confined(idle("three", &image));
    security(&mut config).no_new_privs = true;
    let drop_all = api::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut config).capabilities = Some(drop_all);
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "three");
    assert_eq!(report["level"], "restricted", "root inside is allowed there: {report}");
}

#[tokio::test]
async fn an_added_capability_is_named_with_its_reach_and_what_drops_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = confined(idle("one", &image));
    security(&mut config).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let report = audit(&node, "one");
    assert_eq!(
        (&report["level"], &report["reach"]),
        (&"privileged".into(), &"host".into()),
        "{report}"
    );
    let finding = &report["findings"][0];
    assert_eq!(finding["id"], "capabilities", "the farthest comes first: {report}");
    assert_eq!(finding["fix"], "securityContext.capabilities.drop: [SYS_ADMIN]");
    assert_eq!(report["next"]["fix"], "securityContext.capabilities.add: []");
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
async fn a_hostile_container_neither_hides_nor_holds_up_nor_forges() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // Its first process goes to a root where nothing of the container is to be seen, and fills /dev with
    // what must not be opened or believed.
    let script = "mkfifo /dev/pipe; ln -s / /dev/all; ln -s /proc /dev/deep; \
        mknod \"/dev/$(printf 'x\\033[31m\\ny')\" b 8 77; mkdir -p /dev/a/b; mknod /dev/a/b/mem c 1 1; \
        mkdir /jail && cp /bin/busybox /jail/busybox && \
        exec chroot /jail /busybox sh -c \"trap 'exit 0' TERM; while true; do /busybox sleep 1000 & wait; done\"";
    let mut config = confined(shell("one", &image, script));
    config.mounts = vec![mount(&node.host_dir(), "/seen")];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let of_first =
        std::fs::read_to_string(format!("/proc/{}/mountinfo", cri.pid(&id).await)).unwrap();
    assert!(!of_first.contains(" /seen "), "the first process hides it: {of_first}");
    let text = node.hull(&["audit", "-o", "json", "one"]).good();
    assert!(!text.contains('\x1b'), "{text}");
    let report = audit(&node, "one");
    assert!(found(&report, "host-path").iter().any(|path| path.contains("at /seen")), "{report}");
    let nodes = report["facts"]["devices"]["nodes"].as_array().unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"/dev/x\\u{1b}[31m\\ny") && paths.contains(&"/dev/a/b/mem"),
        "{paths:?}"
    );
    assert!(
        !paths.iter().any(|path| path.starts_with("/dev/all/") || path.starts_with("/dev/deep/")),
        "{paths:?}"
    );
    // Where the kernel has the rules as a list, nodes that they keep shut are no finding.
    if report["facts"]["devices"]["rules"]["kind"] == "v1" {
        assert!(found(&report, "devices").is_empty(), "{report}");
    }
}

#[tokio::test]
async fn rights_that_any_process_has_count_whatever_the_first_one_gave_up() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, restricted("one", &image)).await;
    cri.catches_term(&id).await;
    let mut open = confined(idle("two", &image));
    security(&mut open).no_new_privs = true;
    // Root that ends as somebody else, but for a child.
    open.command = ["/bin/sh", "-c", "sleep 1000 & exec su app -s /bin/sh -c \"trap 'exit 0' TERM; while true; do sleep 1000 & wait; done\""]
        .map(str::to_owned)
        .to_vec();
    let id = cri.run(&pod, open).await;
    cri.catches_term(&id).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", cri.pid(&id).await)).unwrap();
    assert!(status.contains("\nUid:\t1000\t1000"), "{status}");
    let report = audit(&node, "two");
    assert_eq!(found(&report, "host-root-user").len(), 1, "{report}");
    assert_eq!(report["level"], "baseline", "{report}");
    let hosts: Vec<&Value> =
        report["facts"]["users"].as_array().unwrap().iter().map(|of| &of["host"]).collect();
    assert_eq!(hosts, [0, 1000], "{report}");
}

#[tokio::test]
async fn what_does_not_run_is_an_error_that_says_so() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let ran = node.hull(&["audit", "web"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("none of its containers runs") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
    let id = cri.run(&pod, shell("one", &image, "true")).await;
    let _status = cri.ended(&id).await;
    let ran = node.hull(&["audit", "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("it does not run") && ran.stderr.contains("hull ps -a"), "{ran:?}");
    let ran = node.hull(&["audit", "nobody"]);
    assert!(ran.code == 1 && ran.stderr.contains("nobody"), "{ran:?}");
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
        let found = std::fs::symlink_metadata(&path).must(format!("look at {}", path.display()));
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
    rustix::fs::mknodat(rustix::fs::CWD, &disk, kind, mode, number).must("make a node");
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
        let of = sockets.iter().find(|of| of.contains(&by)).must(format!("{place}: {report}"));
        assert!(of.starts_with("host: ") && of.contains(name), "{of}");
    }
    let paths = found(&report, "host-path");
    let of = |place: &str| paths.iter().find(|path| path.contains(place)).must(place.to_owned());
    assert!(of(" at /data,").starts_with("node: "), "{paths:#?}");
    assert!(of(" at /tmp-of-data,").starts_with("host: "), "{paths:#?}");
}

#[tokio::test]
async fn an_audit_without_rights_says_which_it_lacks() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "one", &image).await;
    cri.catches_term(&id).await;
    let mut command = std::process::Command::new("setpriv");
    let drops = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"];
    command.args(drops).arg(hull_tests::paths::hull());
    command.arg("--socket").arg(node.socket()).args(["audit", "one"]);
    let ran = hull_tests::shell::finish(&mut command);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("EPERM") || ran.stderr.contains("EACCES"), "{ran:?}");
    assert!(
        ran.stderr.contains("hint: run it as root") && !ran.stderr.contains("ended"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.matches("cannot").count(), 1, "{ran:?}");
    let mut whole = std::process::Command::new("setpriv");
    whole.args(drops).arg(hull_tests::paths::hull());
    whole.arg("--socket").arg(node.socket()).args(["audit", "-o", "json", "web"]);
    let ran = hull_tests::shell::finish(&mut whole);
    let report: Value = serde_json::from_str(&ran.stdout).must(format!("read {ran:?}"));
    assert_eq!((ran.code, report["not_audited"][0]["name"].as_str()), (1, Some("one")), "{ran:?}");
}

#[tokio::test]
async fn rights_in_a_user_namespace_of_its_own_making_are_not_the_hosts() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // No seccomp profile, which would forbid it; its first process alone is there.
    let script =
        "exec unshare -U -r sh -c \"trap 'exit 0' TERM; while true; do sleep 1000 & wait; done\"";
    let mut config = restricted("one", &image);
    security(&mut config).seccomp = None;
    config.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", cri.pid(&id).await)).unwrap();
    assert!(!status.contains("CapEff:\t0000000000000000"), "it has rights in there: {status}");
    let report = audit(&node, "one");
    assert_eq!(report["level"], "baseline", "{report}");
    assert!(report["next"]["reason"].as_str().unwrap().contains("seccomp"), "{report}");
    let facts = &report["facts"];
    assert_eq!(facts["user_namespace"], false, "{report}");
    assert_eq!(facts["namespaces"]["user"], "host", "{report}");
    assert_eq!(facts["capabilities"]["effective"], serde_json::json!([]), "{report}");
    assert!(found(&report, "capabilities").is_empty(), "{report}");
    assert_eq!(facts["users"], serde_json::json!([{"inside": 1000, "host": 1000}]), "{report}");
}

/// A program of one page whose first thread starts another and ends; the other waits for ever.
#[cfg(target_arch = "x86_64")]
fn leaderless() -> Vec<u8> {
    const AT: u64 = 0x40_0000;
    let code: &[u8] = &[
        // clone(CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM, rsp, 0, 0, 0)
        0xb8, 56, 0, 0, 0, 0xbf, 0x00, 0x0f, 0x05, 0x00, 0x48, 0x89, 0xe6, 0x31, 0xd2, 0x45, 0x31,
        0xd2, 0x45, 0x31, 0xc0, 0x0f, 0x05,
        // In the first: exit(0), of this thread alone.
        0x85, 0xc0, 0x74, 9, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,
        // In the other: pause() again and again.
        0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7,
    ];
    let size = 120 + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [AT + 120, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(0_u16.to_le_bytes());
    elf.extend(0_u16.to_le_bytes());
    elf.truncate(64);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, AT, AT, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_container_whose_first_thread_has_ended_is_audited_by_the_others() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::pushed("leaderless", || {
        let layer = fixture::busybox_layer().file("bin/leaderless", 0o755, leaderless());
        Image::new(vec![layer.tar()], serde_json::json!({"Cmd": ["/bin/leaderless"]}))
    });
    let _id = cri.pull(&image).await.must("pull it");
    let pod = cri.run_pod("web").await.must("run a pod");
    let mut config = confined(hull_tests::cri::container("one", &image, &["/bin/leaderless"]));
    security(&mut config).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    let id = cri.run(&pod, config).await;
    let path = format!("/proc/{}/status", cri.pid(&id).await);
    eventually("its first thread has ended", || async {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        if status.contains("State:\tZ") { Ok(()) } else { Err(status) }
    })
    .await;
    for name in ["one", "web"] {
        let report = audit(&node, name);
        assert_eq!(report["reach"], "host", "{report}");
        assert_eq!(report["facts"]["namespaces"]["mnt"], "own", "{report}");
        assert_eq!(report["facts"]["threads"], 1, "{report}");
    }
    let pid = rustix::process::Pid::from_raw(cri.pid(&id).await).must("have a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).must("kill it");
    let _status = cri.ended(&id).await;
}
