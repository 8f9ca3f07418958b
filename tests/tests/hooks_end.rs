// SPDX-License-Identifier: Apache-2.0
//! The end of hooks: by a stop of their container, and what becomes of the processes that they leave running.

use hull_proto::cri as api;
use hull_tests::cri::{idle, pod_namespaces, security, shell};
use hull_tests::shell::finish;
use hull_tests::{Cri, ExpectExt as _, Node, eventually, node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// Has the device `vendor.com/hooked=one` come with this hook.
fn hooked(node: &Node, kind: &str, script: &str) {
    let hook = json!({
        "hookName": kind, "path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin"], "timeout": 60,
    });
    let device = json!({
        "cdiVersion": "0.6.0", "kind": "vendor.com/hooked",
        "devices": [{"name": "one", "containerEdits": {"env": ["A=b"]}}],
        "containerEdits": {"hooks": [hook]},
    });
    let _path = node::write(&node.cdi_dir(), "hooked.json", &device.to_string());
}

fn with_hook(mut config: api::ContainerConfig) -> api::ContainerConfig {
    config.cdi_devices = vec![api::CdiDevice { name: "vendor.com/hooked=one".into() }];
    config
}

/// Whether a process runs: not one that has ended and waits for its parent.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits for the number of a process that a hook writes to a file.
async fn pid_in(file: &Path) -> i32 {
    eventually("the hook has written a number", || async {
        let text = fs::read_to_string(file).map_err(|err| err.to_string())?;
        let is_whole = text.ends_with('\n');
        text.trim().parse::<i32>().ok().filter(|_| is_whole).ok_or(text)
    })
    .await
}

async fn ends(pid: i32) {
    eventually(format!("process {pid} has ended"), || async {
        if runs(pid) { Err("it runs".to_owned()) } else { Ok(()) }
    })
    .await;
}

/// The container's root, as the node sees it while the container runs.
fn root_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_hook_fails_the_start_and_says_so() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let mark = node.host_dir().join(format!("pid-{kind}"));
        let inside = kind == "startContainer";
        let file = if inside { "/tmp/pid".into() } else { mark.display().to_string() };
        let waits = format!("echo waiting; sleep 86403.17 & echo $! > {file}; wait");
        hooked(&node, kind, &waits);
        let mut config = with_hook(idle(kind, &image));
        if inside {
            config.mounts = vec![hull_tests::cri::mount(&node.host_dir(), "/tmp")];
        }
        let id = cri.create(&pod, config).await.or_fail("create a container");
        let mut start = node.hull_command(&["start", &id]);
        let started = tokio::task::spawn_blocking(move || finish(&mut start));
        let seen = if inside { node.host_dir().join("pid") } else { mark };
        let pid = pid_in(&seen).await;
        cri.stop(&id, 0).await.or_fail("stop it");
        let said = started.await.or_fail("wait for `hull start`");
        assert_ne!(said.code, 0, "{kind}: {said:?}");
        let message = cri.status(&id).await.message;
        let wanted = if inside {
            "it was stopped before its program ran".to_owned()
        } else {
            format!(
                "it was stopped while its {kind} hook #0: `/bin/sh` ran, which said \"waiting\""
            )
        };
        for text in [&said.stderr, &message] {
            assert!(text.contains(&wanted) && text.contains("hint: "), "{kind}: {text}");
        }
        assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerExited);
        if !inside {
            ends(pid).await;
        }
        cri.remove(&id).await.or_fail("remove it");
    }
}

#[tokio::test]
async fn a_container_that_is_killed_during_a_hook_is_not_called_stopped() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mark = node.host_dir().join("state");
    // The hook knows the process that waits for it: it is in the state on its input.
    let script =
        format!("sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' > {}; sleep 86404.17", mark.display());
    hooked(&node, "createRuntime", &script);
    let id = cri.create(&pod, with_hook(idle("main", &image))).await.or_fail("create it");
    let starting = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.start(&id).await })
    };
    let pid = pid_in(&mark).await;
    kill(Pid::from_raw(pid), Signal::SIGKILL).or_fail("kill the process that waits");
    let said = starting.await.or_fail("wait for the start").unwrap_err();
    for part in ["it was killed while its createRuntime hook #0: `/bin/sh` ran", "dmesg"] {
        assert!(said.message().contains(part), "{part:?} in {said}");
    }
    cri.remove(&id).await.or_fail("remove it");
}

/// By the kind of the hook that left it running.
#[tokio::test]
async fn what_a_hook_on_the_node_leaves_running_outlives_the_container() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let left = node.host_dir().join(kind);
        let script = format!("sleep 7331 > /dev/null 2>&1 & echo $! > {}", left.display());
        hooked(&node, kind, &script);
        let id = cri.run(&pod, with_hook(idle(kind, &image))).await;
        cri.stop(&id, 0).await.or_fail("stop it");
        cri.remove(&id).await.or_fail("remove it");
        let pid = pid_in(&left).await;
        let ran = runs(pid);
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        assert!(ran, "what a {kind} hook left running has ended");
        ends(pid).await;
    }
}

/// In the container's mount namespace with the node's rights: the container's root would become its root, and what it
/// executes or loads the image's.
#[tokio::test]
async fn what_a_create_container_hook_leaves_running_is_gone_before_the_program_runs() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let _id = cri.pull(&image).await.or_fail("pull it");
    let left = node.host_dir().join("left");
    // One of the hook's group, and one that leaves its session and its parent.
    let script = format!(
        "sleep 7332 > /dev/null 2>&1 & echo $! > {0}; \
         setsid sh -c 'sleep 7332 > /dev/null 2>&1 & echo $! > {0}-2'",
        left.display()
    );
    hooked(&node, "createContainer", &script);
    for mode in ["own", "node"] {
        let mut config = cri.pod_config(mode);
        let mut container =
            with_hook(shell("main", &image, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"));
        if mode == "node" {
            // Then the container's own process runs the hook.
            pod_namespaces(&mut config).pid = api::NamespaceMode::Node.into();
            security(&mut container).namespace_options.get_or_insert_default().pid =
                api::NamespaceMode::Node.into();
        }
        let pod = cri.run_pod_with(config).await.or_fail("run a pod");
        let said = cri.output(&pod, container).await;
        for file in [left.clone(), left.with_file_name("left-2")] {
            let pid = pid_in(&file).await;
            assert!(!runs(pid), "{mode}: {} runs", file.display());
            fs::remove_file(file).or_fail("remove the file");
        }
        assert!(said.stdout.contains("cat "), "{said:?}");
        assert!(!said.stdout.contains("7332"), "{said:?}");
    }
}

#[tokio::test]
async fn what_a_start_container_hook_leaves_running_ends_with_the_container() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    hooked(&node, "startContainer", "sleep 7333 > /dev/null 2>&1 & echo $! > /left");
    let id = cri.run(&pod, with_hook(idle("main", &image))).await;
    let root = root_of(cri.pid(&id).await);
    let inside: String = fs::read_to_string(root.join("left")).or_fail("read its number");
    let is_it = format!("tr '\\0' ' ' < /proc/{}/cmdline", inside.trim());
    assert_eq!(cri.exec(&id, &["sh", "-c", &is_it]).await.unwrap().stdout, "sleep 7333 ");
    let pid = on_node(&cri, &id, "sleep\x007333\0").await;
    cri.stop(&id, 0).await.or_fail("stop it");
    assert!(!runs(pid), "it runs");
}

/// The number on the node of a process in the container's pid namespace, by its command line.
async fn on_node(cri: &Cri, id: &str, command: &str) -> i32 {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&cri.pid(id).await.to_string());
    let entries = fs::read_dir("/proc").or_fail("list processes").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_it = |pid: &String| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == command && namespace(pid) == own
    };
    names.filter(is_it).find_map(|pid| pid.parse().ok()).or_fail("find the process")
}
