// SPDX-License-Identifier: Apache-2.0
//! The values that CreateContainer resolved hold for a container's life: for its start and every exec, in this
//! daemon and the next, whatever has become of profiles and settings. And how what is kept on disk is
//! guarded, and used when it cannot be written.

use hull_proto::cri::{self as api, security_profile::ProfileType};
use hull_tests::cri::{idle, resources, security};
use hull_tests::shell::{names, run};
use hull_tests::{Cri, ExpectExt as _, Node, node};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tonic::Code;

/// Says how the process is filtered, and whether it may make a directory.
const PROBE: [&str; 3] =
    ["sh", "-c", "grep Seccomp: /proc/self/status; mkdir /tmp/$$ && echo made || echo denied"];
const CONFINED: &str = "Seccomp:\t2\ndenied\n";
const UNCONFINED: &str = "Seccomp:\t0\nmade\n";

fn profile(node: &Node, denies: bool) -> PathBuf {
    let action = if denies { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action}],
    });
    node::write(&node.seccomp_dir(), "no-mkdir.json", &rules.to_string())
}

/// An idle container with that profile.
fn confined(name: &str, image: &str, profile: &Path) -> api::ContainerConfig {
    let mut config = idle(name, image);
    security(&mut config).seccomp = Some(api::SecurityProfile {
        profile_type: ProfileType::Localhost.into(),
        localhost_ref: profile.display().to_string(),
    });
    config
}

async fn probe(cri: &Cri, container: &str) -> String {
    cri.exec(container, &PROBE).await.or_fail("exec in a container").stdout
}

/// Sets a setting for the next daemon.
fn set_default_seccomp(node: &Node, value: &str) {
    let text = format!("[runtime]\ndefault_seccomp = {value:?}\n");
    let dir = node.state_dir().with_file_name("hull.toml.d");
    fs::create_dir_all(&dir).or_fail("make the directory of more config");
    let _path = node::write(&dir, "test.toml", &text);
}

#[tokio::test]
async fn an_exec_is_confined_as_its_container_whatever_became_of_the_profile() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let file = profile(&node, true);
    let made = cri.run(&pod, confined("main", &image, &file)).await;
    // Before the first exec.
    fs::remove_file(&file).unwrap();
    assert_eq!(probe(&cri, &made).await, CONFINED, "its file is gone");
    node.kill();
    node.start_again().await;
    assert_eq!(probe(&cri, &made).await, CONFINED, "its file is gone, and the daemon is another");
    let _file = profile(&node, false);
    assert_eq!(probe(&cri, &made).await, CONFINED, "its file says something else");
    node.restart().await;
    assert_eq!(probe(&cri, &made).await, CONFINED, "the same after a restart");
    let new = cri.run(&pod, confined("new", &image, &file)).await;
    assert_eq!(probe(&cri, &new).await, "Seccomp:\t2\nmade\n", "a new one has the new profile");
    cri.remove_all_pods().await.unwrap();
    assert_eq!(names(&node.state_dir().join("plans")), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_made_before_a_restart_starts_with_what_was_resolved_then() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let file = profile(&node, true);
    let made = cri.make(&pod, confined("main", &image, &file)).await;
    let update = api::UpdateContainerResourcesRequest {
        container_id: made.clone(),
        linux: Some(api::LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 321,
            ..Default::default()
        }),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(update).await.unwrap();
    fs::remove_file(&file).unwrap();
    node.kill();
    node.start_again().await;
    cri.start(&made).await.unwrap();
    let pid = cri.pid(&made).await;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(probe(&cri, &made).await, CONFINED);
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score, "321\n", "what was updated since is there");
    let score = cri.exec(&made, &["cat", "/proc/self/oom_score_adj"]).await.unwrap().stdout;
    assert_eq!(score, "321\n", "of an exec too");
    let mut limited = idle("other", &image);
    resources(&mut limited).memory_limit_in_bytes = 64 << 20;
    let other = cri.run(&pod, limited).await;
    assert_eq!(memory_limit(&cri, &made).await, memory_limit(&cri, &other).await);
}

/// As its cgroup has it.
async fn memory_limit(cri: &Cri, container: &str) -> String {
    let file = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    cri.exec(container, &["sh", "-c", file]).await.or_fail("read the memory limit").stdout
}

#[tokio::test]
async fn the_nodes_default_profile_is_that_of_the_containers_making() {
    let mut node = Node::start_with("[runtime]\ndefault_seccomp = \"runtime/default\"\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let script = [
        "sh",
        "-c",
        "grep Seccomp: /proc/self/status; unshare -U true && echo made || echo denied",
    ];
    let run = async |container: &str| cri.exec(container, &script).await.unwrap().stdout;
    let confined = cri.run_idle(&pod, "confined", &image).await;
    set_default_seccomp(&node, "unconfined");
    node.restart().await;
    assert_eq!(run(&confined).await, CONFINED);
    let unconfined = cri.run_idle(&pod, "unconfined", &image).await;
    assert_eq!(probe(&cri, &unconfined).await, UNCONFINED);
    set_default_seccomp(&node, "runtime/default");
    node.kill();
    node.start_again().await;
    assert_eq!(run(&confined).await, CONFINED);
    assert_eq!(probe(&cri, &unconfined).await, UNCONFINED);
}

#[tokio::test]
async fn without_a_record_of_its_profile_an_exec_is_refused_rather_than_unconfined() {
    let mut node = Node::start_with("[runtime]\ndefault_seccomp = \"runtime/default\"\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let by_default = cri.run_idle(&pod, "default", &image).await;
    let file = profile(&node, true);
    let by_file = cri.run(&pod, confined("file", &image, &file)).await;
    // As of a release that kept no plans.
    for container in [&by_default, &by_file] {
        fs::remove_file(node.state_dir().join("plans").join(container)).unwrap();
    }
    node.restart().await;
    assert!(probe(&cri, &by_default).await.starts_with("Seccomp:\t2\n"), "it is resolved again");
    assert_eq!(probe(&cri, &by_file).await, CONFINED);
    set_default_seccomp(&node, "unconfined");
    fs::remove_file(&file).unwrap();
    node.restart().await;
    let refused = cri.exec(&by_default, &PROBE).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("seccomp profile") && refused.message().contains("hint"));
    let refused = cri.exec(&by_file, &PROBE).await.unwrap_err();
    assert!(refused.message().contains("no-mkdir.json"), "{refused}");
}

#[tokio::test]
async fn what_the_daemon_keeps_is_roots_alone() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let _made = cri.run_idle(&pod, "main", &image).await;
    let mut sockets = 0;
    let mut dirs = vec![node.state_dir()];
    while let Some(dir) = dirs.pop() {
        for path in names(&dir).iter().map(|name| dir.join(name)) {
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            // Bound into containers, whose users read them.
            let is_shared =
                ["hosts", "hostname", "resolv.conf"].iter().any(|of| path.ends_with(of));
            let allowed: &[u32] = match () {
                () if kind.is_dir() => &[0o700, 0o711],
                () if kind.is_socket() => &[0o600, 0o660],
                () if is_shared => &[0o644],
                () => &[0o600],
            };
            sockets += u32::from(kind.is_socket());
            assert!(allowed.contains(&mode(&path)), "{:o} {}", mode(&path), path.display());
            if kind.is_dir() {
                dirs.push(path);
            }
        }
    }
    assert!(sockets >= 1, "a pod's monitor listens below state_dir");
    for socket in [node.socket(), node.nri_socket()] {
        assert!(
            [0o600, 0o660].contains(&mode(&socket)),
            "{:o} {}",
            mode(&socket),
            socket.display()
        );
    }
    // Layers are their images'; what lies beside them is ours.
    for name in names(&node.data_dir()) {
        let path = node.data_dir().join(&name);
        // These stand for a root directory, which any user of a container may enter.
        let allowed: &[u32] = if ["below", "empty", "places"].contains(&name.as_str()) {
            &[0o755]
        } else {
            &[0o700, 0o711, 0o600]
        };
        assert!(allowed.contains(&mode(&path)), "{:o} {}", mode(&path), path.display());
    }
    for record in ["images", "inventories"].map(|dir| node.data_dir().join(dir)) {
        for name in names(&record) {
            assert_eq!(mode(&record.join(&name)), 0o600, "{}/{name}", record.display());
        }
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).or_fail(format!("look at {}", path.display())).permissions().mode()
        & 0o7777
}

/// A directory mounted over itself, read-only, until this is dropped.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(path: PathBuf) -> Self {
        let text = path.display().to_string();
        let _said = run("mount", ["--bind", &text, &text]).good();
        let this = Self(path);
        let _said = run("mount", ["-o", "remount,bind,ro", &text]).good();
        this
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _said = run("umount", ["--lazy", &self.0.display().to_string()]);
    }
}

#[tokio::test]
async fn a_data_directory_that_is_read_only_is_served_and_told() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    node.terminate();
    let read_only = ReadOnly::mount(node.data_dir());
    node.start_again().await;
    let echo = cri.exec(&made, &["echo", "goes on"]).await.unwrap().stdout;
    assert_eq!(echo, "goes on\n");
    assert!(cri.image_status(&image).await.unwrap().is_some(), "images are listed");
    let said = cri.runtime.clone().status(api::StatusRequest::default()).await.unwrap();
    let conditions = said.into_inner().status.unwrap().conditions;
    let of = |kind: &str| conditions.iter().find(|of| of.r#type == kind).cloned().unwrap();
    let data_dir = of("DataDirWritable");
    assert!(!data_dir.status && data_dir.message.contains("EROFS"), "{data_dir:?}");
    assert!(of("RuntimeReady").status, "what runs is not to be evicted");
    let pull = cri.pull(&format!("{image}-other")).await.unwrap_err();
    let create = cri.create(&pod, idle("new", &image)).await.unwrap_err();
    for refused in [pull, create] {
        assert!(refused.message().contains("EROFS"), "{refused}");
        assert!(refused.message().contains("hint: make its filesystem writable"), "{refused}");
    }
    assert!(node.daemon_log().contains("data_dir is read-only"));
    let config = node.state_dir().with_file_name("hull.toml").display().to_string();
    let checked = node.hull(&["--config", &config, "check"]);
    assert!(checked.stdout.contains("read-only filesystem"), "{checked:?}");
    drop(read_only);
    let _new = cri.run_idle(&pod, "new", &image).await;
    let said = cri.runtime.clone().status(api::StatusRequest::default()).await.unwrap();
    let conditions = said.into_inner().status.unwrap().conditions;
    assert!(conditions.iter().all(|of| of.status), "{conditions:?}");
}
