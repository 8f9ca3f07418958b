// SPDX-License-Identifier: Apache-2.0
//! The level of a container (privileged, baseline, restricted), and which findings keep it from a stricter one.

use crate::{FIRST, audit, confined, found, ids, mapped, maps, restricted};
use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{idle, mount, pod_namespaces, security, shell};
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use serde_json::Value;

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
    // Nothing that every container has is reported as the host's.
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
    let of = |id: &str| findings.iter().find(|finding| finding["id"] == id).or_fail(id.to_owned());
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
    let admin = admin.iter().find(|of| of.contains("CAP_SYS_ADMIN")).or_fail("find SYS_ADMIN");
    assert!(admin.starts_with("none: ") && admin.contains("its own user namespace"), "{report}");
    assert!(!ids(&report).contains(&"host-root-user".to_owned()), "{report}");
    let paths = found(&report, "host-path");
    let of = |place: &str| paths.iter().find(|path| path.contains(place)).or_fail(place.to_owned());
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
