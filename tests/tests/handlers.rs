// SPDX-License-Identifier: Apache-2.0
//! Runtime handlers with other defaults than the node's: each has effect, beside pods of other handlers, and for as
//! long as its pods live.

use hull_proto::cri::{self as api, NamespaceMode, security_profile::ProfileType};
use hull_tests::cri::{Exec, idle, mount, pod_namespaces, security, shell};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, node};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use tonic::Code;

/// The lines of a process's status that say whether a filter confines it.
const FILTER: &str = "grep Seccomp: /proc/self/status | tr -dc 0-9";
/// Room for two pods, where no other test has ids.
const IDS: (u32, u32) = (1_900_000_000, 131_072);

fn profile(kind: ProfileType) -> Option<api::SecurityProfile> {
    Some(api::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() })
}

/// A profile that only refuses `mkdir(2)`.
fn refuse_mkdir(node: &Node, name: &str) {
    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    let _path = node::write(&node.seccomp_dir(), name, &rules.to_string());
}

/// The files of users' and groups' ids for pods.
struct IdFiles(tempfile::TempDir);

impl IdFiles {
    fn with(first: u32, count: u32) -> Self {
        let dir = tempfile::tempdir().or_fail("make a directory");
        for name in ["subuid", "subgid"] {
            fs::write(dir.path().join(name), format!("hull:{first}:{count}\n"))
                .or_fail("write ids");
        }
        Self(dir)
    }

    /// The lines of `[runtime]` that name them.
    fn settings(&self) -> String {
        let file = |name: &str| self.0.path().join(name);
        format!("subuid_file = {:?}\nsubgid_file = {:?}\n", file("subuid"), file("subgid"))
    }
}

/// A pod of this handler.
async fn pod(cri: &Cri, handler: &str) -> String {
    let name = if handler.is_empty() { "native" } else { handler };
    cri.run_pod_by(handler, cri.pod_config(name)).await.or_fail(format!("run a pod of {handler:?}"))
}

/// Runs a script in a container with this seccomp profile.
async fn confined(
    cri: &Cri,
    pod: &str,
    name: &str,
    script: &str,
    filter: Option<api::SecurityProfile>,
) -> Exec {
    let mut config = shell(name, &fixture::busybox(), script);
    security(&mut config).seccomp = filter;
    cri.output(pod, config).await
}

#[tokio::test]
async fn the_seccomp_profile_of_a_handler_is_what_its_containers_get_and_never_less() {
    let node = Node::start_with(
        "[runtime]\ndefault_seccomp = \"runtime/default\"\n\
         [runtime.handlers.open]\ndefault_seccomp = \"unconfined\"\n\
         [runtime.handlers.strict]\nseccomp_profile = \"no-mkdir.json\"\n\
         [runtime.handlers.broken]\nseccomp_profile = \"missing.json\"\n",
    )
    .await;
    refuse_mkdir(&node, "no-mkdir.json");
    let cri = node.cri();
    let (native, open, strict) =
        (pod(&cri, "").await, pod(&cri, "open").await, pod(&cri, "strict").await);
    let default = ProfileType::RuntimeDefault;
    // The one that a container is given without a request of its own.
    assert_eq!(confined(&cri, &native, "none", FILTER, None).await.stdout, "2");
    assert_eq!(confined(&cri, &open, "none", FILTER, None).await.stdout, "0");
    // A requested one stays.
    assert_eq!(confined(&cri, &open, "asked", FILTER, profile(default)).await.stdout, "2");
    let unconfined = profile(ProfileType::Unconfined);
    assert_eq!(confined(&cri, &strict, "without", FILTER, unconfined).await.stdout, "0");
    // What RuntimeDefault means is the handler's: in the container, and in its execs.
    let script = "mkdir /tmp/x || echo refused";
    for (name, filter) in [("asked", profile(default)), ("none", None)] {
        let said = confined(&cri, &strict, name, script, filter.clone()).await;
        assert_eq!(said.stdout, "refused\n", "{said:?}");
        assert!(said.stderr.contains("No space left"), "the profile's own error number: {said:?}");
        let said = confined(&cri, &native, &format!("{name}-2"), script, filter).await;
        assert_eq!(said.stdout, "", "Hull's profile allows it: {said:?}");
    }
    let mut config = idle("main", &fixture::busybox());
    security(&mut config).seccomp = profile(default);
    let main = cri.run(&strict, config).await;
    let said = cri.exec(&main, &["mkdir", "/tmp/x"]).await.or_fail("exec");
    assert!(said.code != 0 && said.stderr.contains("No space left"), "{said:?}");
    // A profile that cannot be read is not left out.
    let broken = pod(&cri, "broken").await;
    for (name, filter) in [("asked", profile(default)), ("none", None)] {
        let mut config = shell(name, &fixture::busybox(), "true");
        security(&mut config).seccomp = filter;
        let refused = cri.create(&broken, config).await.unwrap_err();
        assert!(refused.message().contains("missing.json"), "{refused}");
    }
}

#[tokio::test]
async fn a_handler_gives_each_of_its_pods_a_user_namespace_with_ids_of_its_own() {
    let (first, count) = IDS;
    let files = IdFiles::with(first, count);
    let node = Node::start_with(&format!(
        "[runtime]\n{}[runtime.handlers.mapped]\nuser_namespaces = \"always\"\n",
        files.settings()
    ))
    .await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let native = pod(&cri, "").await;
    // A kubelet sends the mode NODE for pods that request no user namespace.
    let of_host = api::UserNamespace { mode: NamespaceMode::Node.into(), ..Default::default() };
    let mut named = cri.pod_config("named");
    pod_namespaces(&mut named).userns_options = Some(of_host.clone());
    let named = cri.run_pod_by("mapped", named).await.or_fail("run a pod");
    let silent = cri.run_pod_by("mapped", cri.pod_config("silent")).await.or_fail("run a pod");
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; touch /vol/$HOSTNAME; \
                  stat -c '%u:%g' / /etc/hosts /vol /vol/$HOSTNAME";
    let dir = node.host_dir();
    for (pod, ids) in [(&named, first), (&silent, first + 65_536)] {
        let mut config = shell("main", &image, script);
        config.mounts = vec![mount(&dir, "/vol")];
        if *pod == named {
            let options = security(&mut config).namespace_options.get_or_insert_default();
            options.userns_options = Some(of_host.clone());
        }
        let said = cri.output(pod, config).await;
        let expected = format!("0\n 0 {ids} 65536\n0:0\n0:0\n0:0\n0:0\n");
        assert_eq!(said.stdout, expected, "{said:?}");
    }
    let owner = fs::metadata(dir.join("named")).or_fail("find the file on the volume");
    assert_eq!((owner.uid(), owner.gid()), (0, 0), "on a volume the ids are those inside");
    let said = cri.output(&native, shell("main", &image, "cat /proc/self/uid_map")).await;
    assert!(said.stdout.contains("4294967295"), "beside them, pods are as ever: {said:?}");
    // The ids are in the pod's status, where the client sees them.
    let status = cri.pod_status(&silent).await.or_fail("get the status").status.or_fail("find it");
    assert_eq!(status.runtime_handler, "mapped");
    let options = status.linux.and_then(|of| of.namespaces).and_then(|of| of.options);
    let given = options.and_then(|of| of.userns_options).or_fail("find the user namespace");
    assert_eq!(given.uids[0].host_id, first + 65_536);
    // All ids are given out, until a pod is removed.
    let third = cri.run_pod_by("mapped", cri.pod_config("third")).await.unwrap_err();
    assert_eq!(third.code(), Code::ResourceExhausted, "{third}");
    assert!(third.message().contains("pods have all 2 ranges"), "{third}");
    cri.remove_pod(&named).await.or_fail("remove the pod");
    let third = cri.run_pod_by("mapped", cri.pod_config("third")).await.or_fail("run a pod");
    let said = cri.output(&third, shell("main", &image, "tr -s ' ' < /proc/self/uid_map")).await;
    assert_eq!(said.stdout, format!(" 0 {first} 65536\n"));
    // What the host's namespaces would take away again is refused.
    for field in ["pid", "ipc"] {
        let mut config = cri.pod_config("host");
        let options = pod_namespaces(&mut config);
        let mode = if field == "pid" { &mut options.pid } else { &mut options.ipc };
        *mode = NamespaceMode::Node.into();
        let refused = cri.run_pod_by("mapped", config).await.unwrap_err();
        let words = [&format!("namespace_options.{field}"), "handler `mapped`"];
        assert!(words.iter().all(|word| refused.message().contains(*word)), "{refused}");
    }
    cri.remove_all_pods().await.or_fail("remove the pods");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn network_and_limits_of_a_handler_are_those_of_its_pods() {
    let node = Node::start_with(
        "[runtime.handlers.alone]\nnetwork = \"none\"\n\
         [runtime.handlers.small]\nshm_bytes = \"8m\"\npids_max = 20\ndefault_ulimits = [\"nofile=64:128\"]\n",
    )
    .await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let (native, alone, small) =
        (pod(&cri, "").await, pod(&cri, "alone").await, pod(&cri, "small").await);
    let links = || shell("links", &image, "ls /sys/class/net; ip -4 -o addr show dev lo | wc -l");
    assert_eq!(cri.output(&alone, links()).await.stdout, "lo\n1\n");
    assert_eq!(cri.output(&native, links()).await.stdout, "eth0\nlo\n1\n");
    let status = cri.pod_status(&alone).await.or_fail("get the status").status.or_fail("find it");
    assert_eq!(status.network.unwrap_or_default().ip, "");
    let mut on_host = cri.pod_config("host");
    pod_namespaces(&mut on_host).network = NamespaceMode::Node.into();
    let refused = cri.run_pod_by("alone", on_host).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("handler `alone`"), "{refused}");

    let script = "df -k /dev/shm | tail -n 1 | awk '{print $2}'; ulimit -n; \
                  for n in $(seq 30); do sleep 60 & done; echo all started";
    let said = cri.output(&small, shell("limits", &image, script)).await;
    assert!(said.stdout.starts_with("8192\n64\n"), "{said:?}");
    assert!(!said.stdout.contains("all started") && said.stderr.contains("fork"), "{said:?}");
    let said = cri.output(&native, shell("limits", &image, script)).await;
    assert!(said.stdout.starts_with("65536\n") && !said.stdout.contains("\n64\n"), "{said:?}");
    assert!(said.stdout.ends_with("all started\n"), "{said:?}");
    // A limit of the container's own is not replaced.
    let mut config = shell("own", &image, script);
    hull_tests::cri::resources(&mut config).unified = [("pids.max".into(), "100".into())].into();
    assert!(cri.output(&small, config).await.stdout.ends_with("all started\n"));
}

#[tokio::test]
async fn pods_keep_the_settings_of_their_handler_through_a_restart_without_it() {
    let (first, _) = IDS;
    let handler = "[runtime.handlers.kept]\nuser_namespaces = \"always\"\nseccomp_profile = \"kept.json\"\n\
                   default_ulimits = [\"nofile=64:128\"]\n";
    let files = IdFiles::with(first, 131_072);
    let mut node = Node::start_with(&format!("[runtime]\n{}{handler}", files.settings())).await;
    refuse_mkdir(&node, "kept.json");
    let (cri, image) = (node.cri(), fixture::busybox());
    let kept = pod(&cri, "kept").await;
    let before = cri.run_idle(&kept, "before", &image).await;
    node.kill();
    let file = node.host_dir().parent().or_fail("find the node").join("hull.toml.d/test.toml");
    let ids = files.settings();
    fs::write(
        &file,
        format!("[runtime]\n{ids}[runtime.handlers.other]\nuser_namespaces = \"always\"\n"),
    )
    .or_fail("write another configuration");
    node.start_again().await;
    let cri = node.cri();
    let script = "ulimit -n; tr -s ' ' < /proc/self/uid_map; mkdir /tmp/x || echo refused";
    let expected = format!("64\n 0 {first} 65536\n");
    let mut config = shell("after", &image, script);
    security(&mut config).seccomp = profile(ProfileType::RuntimeDefault);
    let made = cri.run(&kept, config).await;
    let _status = cri.ended(&made).await;
    let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
    assert_eq!(said, format!("{expected}refused\n"));
    let said = cri.exec(&before, &["sh", "-c", script]).await.or_fail("exec");
    assert!(said.stdout.starts_with(&expected), "{said:?}");
    let listed = cri.pods().await;
    assert_eq!(listed[0].runtime_handler, "kept");
    // The ids of a pod that is from before are not given to another.
    let other = pod(&cri, "other").await;
    let said = cri.output(&other, shell("main", &image, "tr -s ' ' < /proc/self/uid_map")).await;
    assert_eq!(said.stdout, format!(" 0 {} 65536\n", first + 65_536));
    let refused = cri.run_pod_by("kept", cri.pod_config("new")).await.unwrap_err();
    for word in ["`kept`", "`hull`, `other`", "[runtime.handlers.NAME]"] {
        assert!(refused.message().contains(word), "{word}: {refused}");
    }
    cri.remove_all_pods().await.or_fail("remove the pods");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_node_names_its_handlers_and_says_which_cannot_run() {
    let node = Node::start_with(
        "[runtime.handlers.a]\ndefault_ulimits = [\"nofile=64:128\"]\n\
         [runtime.handlers.missing]\nseccomp_profile = \"missing.json\"\n\
         [runtime.handlers.writable]\nuser_namespaces = \"always\"\ncgroup_writable = true\n",
    )
    .await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let status = cri.runtime.clone().status(api::StatusRequest::default()).await;
    let handlers = status.or_fail("get the status").into_inner().runtime_handlers;
    let names: Vec<_> = handlers.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["", "hull", "a", "missing", "writable"]);
    assert!(handlers.iter().all(|of| of.features.is_some_and(|of| of.recursive_read_only_mounts)));

    // Only with cgroup v2 is a container's cgroup namespace its own.
    let is_v2 = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    let config = node.host_dir().parent().or_fail("find the node").join("hull.toml");
    let config = config.display().to_string();
    let checked = node.hull(&["--config", &config, "check"]).stdout;
    let line = |name: &str| {
        let found = checked.lines().find(|line| line.contains(&format!("handler {name}")));
        found.or_fail(format!("find handler {name} in {checked}")).to_owned()
    };
    assert!(line("a").starts_with("ok "), "{checked}");
    assert!(line("missing").starts_with("warning") && line("missing").contains("missing.json"));
    assert_eq!(line("writable").starts_with("ok "), is_v2, "{checked}");
    let writable = cri.run_pod_by("writable", cri.pod_config("writable")).await;
    if is_v2 {
        let script = "mkdir /sys/fs/cgroup/mine && echo made; echo 1 > /sys/fs/cgroup/pids.max";
        let said = cri.output(&writable.or_fail("run a pod"), shell("main", &image, script)).await;
        assert!(said.stdout == "made\n" && !said.stderr.is_empty(), "{said:?}");
    } else {
        let refused = writable.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("cgroup v2"), "{refused}");
    }

    // The command line chooses one by name.
    let _id = cri.pull(&image).await.or_fail("pull busybox");
    let run = |handler: &str| {
        node.hull(&["run", "--rm", "--runtime", handler, &image, "sh", "-c", "ulimit -n"])
    };
    assert_eq!(run("a").good(), "64\n");
    let refused = run("b");
    assert!(refused.code != 0 && refused.stderr.contains("`a`, `missing`"), "{refused:?}");
}
