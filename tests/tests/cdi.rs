// SPDX-License-Identifier: Apache-2.0
//! Devices by name (container device interface), as drivers describe them in files, and the hooks that come with them.

use hull_proto::cri as api;
use hull_proto::cri::NamespaceMode;
use hull_tests::cri::{idle, pod_namespaces, security, shell};
use hull_tests::{Node, eventually, host, node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const DRIVER: &str = "cdiVersion: 0.6.0
kind: vendor.com/thing
containerEdits:
  env: [THING=common]
  mounts:
    - hostPath: LIBRARY
      containerPath: /opt/thing
      options: [ro, nosuid, nodev]
devices:
  - name: loops
    containerEdits:
      deviceNodes:
        - path: /dev/thing0
          hostPath: /dev/loop-control
          permissions: r
";

fn wants(mut config: api::ContainerConfig, devices: &[&str]) -> api::ContainerConfig {
    let device = |name: &&str| api::CdiDevice { name: (*name).into() };
    config.cdi_devices = devices.iter().map(device).collect();
    config
}

#[tokio::test]
async fn a_device_is_there_with_all_that_its_driver_says_and_nothing_else_is() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let looks = "echo $THING; cat /opt/thing/lib; touch /opt/thing/x 2>&1 | grep -o Read-only; \
                 (: < /dev/thing0) && echo opened; (: > /dev/thing0) 2>&1 | grep -o 'not permitted'";
    let config = wants(shell("main", &image, looks), &["vendor.com/thing=loops"]);
    let unknown = cri.create(&pod, config.clone()).await.unwrap_err();
    assert!(unknown.message().contains("`vendor.com/thing=loops`"), "{unknown}");
    assert!(unknown.message().contains(&node.cdi_dir().display().to_string()), "{unknown}");

    // The driver comes while the daemon runs.
    let library = node.host_dir().join("library");
    std::fs::create_dir(&library).unwrap();
    let _path = node::write(&library, "lib", "library\n");
    let text = DRIVER.replace("LIBRARY", &library.display().to_string());
    let _path = node::write(&node.cdi_dir(), "thing.yaml", &text);
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "common\nlibrary\nRead-only\nopened\nnot permitted\n", "{said:?}");

    let without =
        cri.output(&pod, shell("without", &image, "echo $THING; ls /dev/thing0 /opt")).await;
    assert_eq!(without.stdout, "\n", "{without:?}");
}

/// The file of a device `vendor.com/hooked=one` with these hooks.
fn hooked(node: &Node, hooks: &Value) {
    let device = json!({
        "cdiVersion": "0.6.0", "kind": "vendor.com/hooked",
        "devices": [{"name": "one", "containerEdits": {"env": ["A=b"]}}],
        "containerEdits": {"hooks": hooks},
    });
    let _path = node::write(&node.cdi_dir(), "hooked.json", &device.to_string());
}

fn hook(kind: &str, script: &str) -> Value {
    json!({
        "hookName": kind, "path": "/bin/sh", "args": ["sh", "-c", script],
        "env": ["PATH=/usr/bin:/bin"], "timeout": 20,
    })
}

fn wants_hooks(config: api::ContainerConfig) -> api::ContainerConfig {
    wants(config, &["vendor.com/hooked=one"])
}

/// Writes a line: the kind, the mount namespace, and the state.
fn logs(kind: &str, log: &Path) -> String {
    let log = log.display();
    format!("{{ echo {kind} $(readlink /proc/self/ns/mnt) $(tr -d '\\n'); }} >> {log}")
}

fn lines(log: &Path) -> Vec<String> {
    fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn lines_of(log: &Path, count: usize) -> Vec<String> {
    eventually(format!("{count} hooks have run"), || async {
        let found = lines(log);
        if found.len() >= count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

fn bundles(node: &Node) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(node.state_dir().join("bundles"))?;
    entries.map(|entry| entry.map(|entry| entry.path())).collect()
}

#[tokio::test]
async fn hooks_run_in_their_order_and_namespaces_with_the_state_and_a_bundle() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let log = node.host_dir().join("log");
    let kinds = ["poststop", "poststart", "createContainer", "createRuntime", "prestart"];
    let mut hooks: Vec<_> = kinds.iter().map(|kind| hook(kind, &logs(kind, &log))).collect();
    // Its path is the container's.
    hooks.push(hook("startContainer", "{ echo $A; cat; } > /from-inside"));
    hooked(&node, &json!(hooks));
    let id = cri.run(&pod, wants_hooks(idle("main", &image))).await;
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    let (of_host, own) = (namespace(node.daemon_pid()), namespace(cri.pid(&id).await));
    let inside = cri.exec(&id, &["cat", "/from-inside"]).await.unwrap().stdout;
    assert!(inside.starts_with('\n') && inside.contains("\"created\""), "{inside}");
    let bundle = bundles(&node).unwrap().pop().unwrap();

    cri.stop(&id, 0).await.unwrap();
    let seen: Vec<(String, String, Value)> = lines_of(&log, 5)
        .await
        .iter()
        .map(|line| {
            let [kind, namespace, state] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            (kind.to_owned(), namespace.to_owned(), serde_json::from_str(state).unwrap())
        })
        .collect();
    let (of_host, own) = (of_host.display().to_string(), own.display().to_string());
    for ((kind, namespace, state), (expected, place, status)) in seen.iter().zip([
        ("prestart", &of_host, "creating"),
        ("createRuntime", &of_host, "creating"),
        ("createContainer", &own, "creating"),
        ("poststart", &of_host, "running"),
        ("poststop", &of_host, "stopped"),
    ]) {
        assert_eq!((kind.as_str(), namespace), (expected, place), "{seen:?}");
        assert_eq!((&state["status"], &state["id"]), (&json!(status), &json!(id)), "{state}");
        assert_eq!(state["bundle"], json!(bundle));
        assert_eq!(state["annotations"]["io.kubernetes.cri.container-name"], "main");
        assert_eq!(state["pid"].is_null(), status == "stopped", "{state}");
    }
    cri.remove(&id).await.unwrap();
    assert_eq!(bundles(&node).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(lines(&log).len(), 5, "each runs once");
}

#[tokio::test]
async fn each_run_of_a_container_has_its_hooks() {
    let node = Node::start().await;
    let image = hull_tests::fixture::busybox();
    let log = node.host_dir().join("log");
    let kinds = ["createRuntime", "createContainer", "poststart", "poststop"];
    let write = |kind: &&str| hook(kind, &format!("echo {kind} >> {}", log.display()));
    hooked(&node, &json!(kinds.iter().map(write).collect::<Vec<_>>()));
    let device = ["--device", "vendor.com/hooked=one"];
    let run = [&["run", "-d", "--name", "again"][..], &device, &[&image, "sleep", "1000"]].concat();
    let _id = node.hull(&run).good();
    let _id = node.hull(&["restart", "-t", "0", "again"]).good();
    let _id = node.hull(&["kill", "again"]).good();
    lines_of(&log, 8).await;
    let _id = node.hull(&["start", "again"]).good();
    let _id = node.hull(&["rm", "-f", "again"]).good();
    assert_eq!(lines(&log), kinds.repeat(3));
}

/// A program with the part of `nvidia-cdi-hook`'s that its callers see.
const CDI_HOOK: &str = r#"#!/bin/sh
bundle=$(sed -n 's/.*"bundle":"\([^"]*\)".*/\1/p')
[ "$(stat -c %a "$bundle/config.json")" = 600 ] || { echo "config.json is not private"; exit 1; }
root=$(sed -n 's/.*"root":{[^}]*"path":"\([^"]*\)".*/\1/p' "$bundle/config.json")
[ -n "$root" ] || { echo "no root.path"; exit 1; }
case $1 in
create-symlinks) ln -s "${3%%::*}" "$root${3##*::}" ;;
update-ldcache) echo "$3" > "$root/etc/ld.so.cache" ;;
chmod) chmod "$3" "$root$5" ;;
*) exit 2 ;;
esac
"#;

#[tokio::test]
async fn a_device_as_nvidia_ctk_cdi_generate_writes_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let program = node::write(&node.host_dir(), "nvidia-cdi-hook", CDI_HOOK);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let file = format!(
        "---
cdiVersion: 0.5.0
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, create-symlinks, --link, 'libcuda.so.1::/usr/libcuda.so']
    hookName: createContainer
    path: {program}
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib64]
    env: [NVIDIA_CTK_DEBUG=false]
    hookName: createContainer
    path: {program}
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: {program}
    options: [ro, nosuid, nodev, bind]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/zero
    hooks:
    - args: [nvidia-cdi-hook, chmod, --mode, '711', --path, /home]
      hookName: createContainer
      path: {program}
  name: \"0\"
kind: nvidia.com/gpu
",
        program = program.display()
    );
    let _path = node::write(&node.cdi_dir(), "nvidia.yaml", &file);
    // Files that the request does not name.
    let _path = node::write(&node.cdi_dir(), "odd.yaml", "kind: [");
    hooked(&node, &json!([hook("later", "true")]));
    let looks = "ls /dev/nvidia0; echo $NVIDIA_VISIBLE_DEVICES$NVIDIA_CTK_DEBUG; readlink /usr/libcuda.so; \
                 cat /etc/ld.so.cache; stat -c %a /home; ls /usr/bin/nvidia-smi";
    for attempt in ["first", "second"] {
        let config = wants(shell(attempt, &image, looks), &["nvidia.com/gpu=0"]);
        let said = cri.output(&pod, config).await;
        let expected = "/dev/nvidia0\nvoid\nlibcuda.so.1\n/usr/lib64\n711\n/usr/bin/nvidia-smi\n";
        assert_eq!(said.stdout, expected, "{said:?}");
    }
}

#[tokio::test]
async fn a_hook_in_the_container_that_the_seccomp_profile_kills_is_the_profiles_fault() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let under = |name: &str, calls: &[&str], action: &str| {
        let rule = json!({"names": calls, "action": action});
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let path = node::write(&node.seccomp_dir(), "hooks.json", &profile.to_string());
        let mut config = wants_hooks(idle(name, &image));
        security(&mut config).seccomp = Some(api::SecurityProfile {
            profile_type: api::security_profile::ProfileType::Localhost.into(),
            localhost_ref: path.display().to_string(),
        });
        config
    };
    hooked(&node, &json!([hook("startContainer", "mkdir /made")]));
    let calls = ["mkdir", "mkdirat"];
    let id = cri.create(&pod, under("killed", &calls, "SCMP_ACT_KILL_PROCESS")).await.unwrap();
    let said = cri.start(&id).await.unwrap_err();
    for part in ["startContainer hook #0", "seccomp profile", "likely"] {
        assert!(said.message().contains(part), "{part:?} in {said}");
    }
    // Without calls for hooks, and for what comes without them, all are in one message.
    let calls = ["waitid", "execve", "ppoll"];
    let said = cri.create(&pod, under("refused", &calls, "SCMP_ACT_ERRNO")).await.unwrap_err();
    for call in calls {
        assert!(said.message().contains(&format!("`{call}`")), "{call} in {said}");
    }
}

#[tokio::test]
async fn a_hook_that_fails_or_hangs_is_named_and_nothing_of_it_is_left() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let log = node.host_dir().join("log");
    let mut after = 0;
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let fails = hook(kind, "echo begun; echo 'no luck here' >&2; exit 3");
        let poststop = hook("poststop", &logs("poststop", &log));
        hooked(&node, &json!([fails, poststop, hook("poststart", &logs("poststart", &log))]));
        let id = cri.create(&pod, wants_hooks(idle(kind, &image))).await.unwrap();
        let said = cri.start(&id).await.unwrap_err();
        for part in [&format!("{kind} hook #0: `/bin/sh`"), "exit code 3", "no luck here", "(hint:"]
        {
            assert!(said.message().contains(part), "{part:?} in {said}");
        }
        assert!(cri.status(&id).await.message.contains("no luck here"));
        after += 1;
        let ran = lines_of(&log, after).await;
        assert!(ran.iter().all(|line| line.starts_with("poststop")), "{ran:?}");
        cri.remove(&id).await.unwrap();
    }
    // Its children, one of which has left its session.
    let marks = ["86401.17", "86402.17"];
    for kind in ["createRuntime", "createContainer"] {
        let script = format!("sleep {} & setsid setsid sleep {} & wait", marks[0], marks[1]);
        let mut hangs = hook(kind, &script);
        hangs["timeout"] = json!(1);
        hooked(&node, &json!([hangs]));
        let id =
            cri.create(&pod, wants_hooks(idle(&format!("{kind}-hangs"), &image))).await.unwrap();
        let said = cri.start(&id).await.unwrap_err();
        assert!(said.message().contains("killed after 1 s"), "{said}");
        let left = running_with(&marks).unwrap();
        assert_eq!(left, Vec::<String>::new(), "{kind}");
        cri.remove(&id).await.unwrap();
    }
    let missing = json!([{"hookName": "createRuntime", "path": "/no/such/hook"}]);
    hooked(&node, &missing);
    let id = cri.create(&pod, wants_hooks(idle("missing", &image))).await.unwrap();
    let said = cri.start(&id).await.unwrap_err();
    assert!(said.message().contains("execve(/no/such/hook)"), "{said}");
    // These change nothing for the container.
    hooked(&node, &json!([hook("poststart", "echo too late; exit 9"), hook("poststop", "exit 8")]));
    let id = cri.run(&pod, wants_hooks(idle("late", &image))).await;
    assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerRunning);
    cri.stop(&id, 0).await.unwrap();
    eventually("both are logged", || async {
        let log = node.daemon_log();
        let parts = ["poststart hook #0", "too late", "poststop hook #0", "exit code 8"];
        let missing: Vec<_> = parts.iter().filter(|part| !log.contains(**part)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
}

/// The command lines of processes that have one of these words.
fn running_with(words: &[&str]) -> std::io::Result<Vec<String>> {
    let processes = fs::read_dir("/proc")?.flatten();
    let lines = processes.filter_map(|of| fs::read_to_string(of.path().join("cmdline")).ok());
    let is_one =
        |line: &String| line.starts_with("sleep") && words.iter().any(|word| line.contains(word));
    Ok(lines.filter(is_one).collect())
}

#[tokio::test]
async fn poststop_hooks_run_once_also_when_the_daemon_and_the_monitor_are_killed() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let log = node.host_dir().join("log");
    hooked(&node, &json!([hook("poststop", &logs("poststop", &log))]));
    // The daemon: the monitor runs them.
    let id = cri.run(&pod, wants_hooks(idle("first", &image))).await;
    let pid = cri.pid(&id).await;
    node.kill();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    lines_of(&log, 1).await;
    node.start_again().await;
    cri.ended(&id).await;
    cri.remove(&id).await.unwrap();
    assert_eq!(lines(&log).len(), 1);
    // The daemon and the monitor: the next daemon runs them.
    let id = cri.run(&pod, wants_hooks(idle("second", &image))).await;
    let monitor = host::monitor_of(&pod);
    node.kill();
    kill(monitor, Signal::SIGKILL).unwrap();
    node.start_again().await;
    cri.ended(&id).await;
    assert_eq!(lines(&log).len(), 1, "nobody has removed it");
    cri.remove(&id).await.unwrap();
    assert_eq!(lines(&log).len(), 2);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    // A pod that is stopped as a whole; and a container that never ran is owed nothing.
    let pod = cri.run_pod("other").await.unwrap();
    cri.run(&pod, wants_hooks(idle("third", &image))).await;
    cri.create(&pod, wants_hooks(idle("never", &image))).await.unwrap();
    cri.stop_pod(&pod).await.unwrap();
    lines_of(&log, 3).await;
    cri.remove_pod(&pod).await.unwrap();
    assert_eq!((lines(&log).len(), bundles(&node).unwrap().len()), (3, 0));
}

#[tokio::test]
async fn a_daemon_that_is_killed_during_a_hook_changes_nothing() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let (log, gate) = (node.host_dir().join("log"), node.host_dir().join("gate"));
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let waits =
        format!("echo begun >> {0}; cat {1}; echo over >> {0}", log.display(), gate.display());
    hooked(&node, &json!([hook("createRuntime", &waits)]));
    let id = cri.create(&pod, wants_hooks(idle("main", &image))).await.unwrap();
    let starting = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.start(&id).await })
    };
    lines_of(&log, 1).await;
    node.kill();
    assert!(starting.await.unwrap().is_err(), "its daemon is gone");
    node.start_again().await;
    let again = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.start(&id).await })
    };
    fs::write(&gate, "").unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(lines(&log), ["begun", "over"], "it ran once");
    assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerRunning);
}

/// There `/proc/<pid>/root` of a hook would be the host's.
#[tokio::test]
async fn no_hook_with_the_hosts_root_is_seen_in_a_shared_pid_namespace() {
    let node = Node::start().await;
    let (cri, _, image) = node.pod("other").await;
    // Into the container's root, its working directory: with a user namespace nothing else is open to it.
    let script = "{ readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt; } > from-hook";
    hooked(&node, &json!([hook("createContainer", script)]));
    let pid_namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    let of_host = pid_namespace(&node.daemon_pid().to_string());
    for name in ["plain", "mapped"] {
        let mut config = cri.pod_config(name);
        pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
        if name == "mapped" {
            let ranges = vec![api::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
            pod_namespaces(&mut config).userns_options = Some(api::UserNamespace {
                mode: NamespaceMode::Pod.into(),
                uids: ranges.clone(),
                gids: ranges,
            });
        }
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut config = wants_hooks(idle("main", &image));
        security(&mut config).namespace_options.get_or_insert_default().pid =
            NamespaceMode::Pod.into();
        let id = cri.run(&pod, config).await;
        let said = cri.exec(&id, &["cat", "/from-hook"]).await.unwrap().stdout;
        let own = fs::read_link(format!("/proc/{}/ns/mnt", cri.pid(&id).await)).unwrap();
        assert_eq!(said, format!("{}\n{}\n", of_host.display(), own.display()), "{name}");
        let owner = cri.exec(&id, &["stat", "-c", "%u:%g", "/from-hook"]).await.unwrap().stdout;
        assert_eq!(owner, "0:0\n", "{name}");
    }
}
