// SPDX-License-Identifier: Apache-2.0
//! `hull doctor` and `hull top`: leaks are found with their owners and removed, pods that come and go are none, and the
//! load of what runs.

use hull_tests::host::Names;
use hull_tests::shell::run;
use hull_tests::{ExpectExt as _, Node, eventually, fixture, host};
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use tokio::process::Command;

/// The findings, and the exit code.
fn findings(node: &Node, more: &[&str]) -> (Vec<Value>, i32) {
    let args = [&["doctor", "-o", "json"], more].concat();
    let ran = node.hull(&args);
    let found = serde_json::from_str(&ran.stdout).or_fail(format!("read JSON: {}", ran.stderr));
    (found, ran.code)
}

fn names(found: &[Value]) -> String {
    found.iter().map(|of| format!("{} {}\n", of["subject"], of["name"])).collect()
}

/// Makes the cgroup of a pod in each hierarchy in which the node has a cgroup of its own.
fn make_cgroups(node: &Node, pod: &str) -> Vec<PathBuf> {
    let parents = host::hierarchies()
        .into_iter()
        .map(|top| top.join(node.names().cgroup.trim_start_matches('/')))
        .filter(|parent| parent.is_dir());
    let cgroups: Vec<_> = parents.map(|parent| parent.join(format!("pod{pod}"))).collect();
    assert!(!cgroups.is_empty(), "the pods' parent is in some hierarchy");
    for cgroup in &cgroups {
        fs::create_dir(cgroup).or_fail("make a cgroup");
    }
    cgroups
}

#[tokio::test]
async fn leaks_are_found_with_their_owners_and_removed() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "web", &image, "sleep", "1000"]).good();
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (0, 0), "a node that works: {found:#?}");

    // A pod and a container that no record knows, and a record that cannot be read.
    let (pod, container) = ("ab".repeat(32), "cd".repeat(32));
    fs::create_dir(node.state_dir().join("run").join(&pod)).or_fail("make a directory");
    fs::create_dir_all(node.data_dir().join("containers").join(&container).join("fs"))
        .or_fail("make a writable layer");
    fs::write(node.state_dir().join("plans").join(&container), "x").or_fail("write a plan");
    fs::write(node.state_dir().join("pods/odd.bad"), "x").or_fail("write a record");
    let cgroups = make_cgroups(&node, &pod);

    let (found, code) = findings(&node, &[]);
    let all = names(&found);
    assert_eq!(code, 1, "{all}");
    for subject in ["directory", "cgroup", "writable layer", "plan", "record"] {
        assert!(all.contains(subject), "{subject} is not in\n{all}");
    }
    assert!(found.iter().all(|of| of["outcome"] == "left"), "{found:#?}");
    let leaks = found.iter().filter(|of| of["class"] == "leak");
    assert!(leaks.clone().all(|of| of["owner"].as_str().is_some_and(|id| !id.is_empty())));

    let (fixed, code) = findings(&node, &["--fix"]);
    let left: Vec<_> = fixed.iter().filter(|of| of["outcome"] != "removed").cloned().collect();
    assert_eq!((left.len(), code), (1, 1), "a record is a person's to look at: {left:#?}");
    assert!(cgroups.iter().all(|cgroup| !cgroup.is_dir()), "{cgroups:?}");
    fs::remove_file(node.state_dir().join("pods/odd.bad")).or_fail("remove the record");
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
    // Rules that somebody else removed are named, and nothing is changed by looking.
    let table = node.names().table.clone();
    let _flushed = run("nft", ["delete", "table", "inet", &table]).good();
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (1, 1), "{found:#?}");
    assert_eq!((&found[0]["subject"], &found[0]["outcome"]), (&"rules".into(), &"left".into()));
    let still = node.hull(&["exec", "web", "echo", "there"]).good();
    assert_eq!(still.trim(), "there", "the pod that has a record runs on");
}

#[tokio::test]
async fn processes_in_a_cgroup_with_the_name_of_an_unknown_pod_are_left_alone() {
    let node = Node::start().await;
    let (_cri, _pod, _image) = node.pod("web").await;
    let cgroups = make_cgroups(&node, &"ac".repeat(32));
    let mut program = Command::new("sleep");
    let mut other =
        program.arg("1000").kill_on_drop(true).spawn().or_fail("run a program of somebody's");
    let pid = other.id().or_fail("find its pid").to_string();
    // In one hierarchy alone, and on v1 neither in the v2 tree nor in that of the freezer. A cpuset of v1 that nobody has
    // set takes no process.
    let mut last_asked: Vec<_> = cgroups.iter().collect();
    last_asked
        .sort_by_key(|dir| ["cgroup.events", "freezer.state"].map(|of| dir.join(of).is_file()));
    let entered =
        last_asked.into_iter().find(|dir| fs::write(dir.join("cgroup.procs"), &pid).is_ok());
    let entered = entered.or_fail("put the program into a cgroup");
    println!("it is in {}", entered.display());

    let (found, code) = findings(&node, &["--fix"]);
    assert_eq!((found.len(), code), (1, 1), "{found:#?}");
    let outcome = found[0]["outcome"].as_str().or_fail("find the outcome");
    assert!(outcome.contains("processes run in it"), "{outcome}");
    let ended = other.try_wait().or_fail("look after the program");
    assert!(ended.is_none() && cgroups.iter().all(|dir| dir.is_dir()), "{ended:?}");

    other.kill().await.or_fail("end the program");
    let (fixed, code) = findings(&node, &["--fix"]);
    assert_eq!((fixed.len(), code), (1, 0), "{fixed:#?}");
    assert!(cgroups.iter().all(|dir| !dir.is_dir()), "{cgroups:?}");
}

#[tokio::test]
async fn pods_that_come_and_go_are_no_leaks() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("stays").await;
    let _container = cri.run_idle(&pod, "main", &image).await;
    let others = async {
        for round in 0..6 {
            let other = cri.run_pod(&format!("goes{round}")).await.or_fail("run a pod");
            let _made = cri.run_idle(&other, "main", &image).await;
            cri.remove_pod(&other).await.or_fail("remove the pod");
        }
    };
    let socket = node.socket();
    let looks = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(hull_tests::paths::hull());
        command.arg("--socket").arg(socket).args(["doctor", "-o", "json"]);
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(hull_tests::shell::finish(&mut command).stdout);
        }
        all
    });
    let ((), looks) = tokio::join!(others, looks);
    for found in looks.or_fail("run doctor") {
        assert_eq!(found.trim(), "[]", "something that comes or goes is reported");
    }
}

#[tokio::test]
async fn sandboxes_and_containers_of_others_below_the_kubelets_cgroup_are_left_alone() {
    let node = Node::start().await;
    let cri = node.cri();
    let parent = format!("{}/kubepods/pod1", node.names().cgroup);
    let other = "ef".repeat(32);
    let mut pods = Vec::new();
    for name in ["one", "two"] {
        let mut config = cri.pod_config(name);
        config.linux.get_or_insert_default().cgroup_parent = parent.clone();
        pods.push(cri.run_pod_with(config).await.or_fail("run a pod"));
    }
    let dirs: Vec<_> = host::hierarchies()
        .into_iter()
        .map(|top| top.join(parent.trim_start_matches('/')))
        .filter(|dir| dir.is_dir())
        .collect();
    for dir in &dirs {
        fs::create_dir(dir.join(&other)).or_fail("make another runtime's cgroup");
    }
    let (found, code) = findings(&node, &["--fix"]);
    for dir in &dirs {
        fs::remove_dir(dir.join(&other)).or_fail("find the other's cgroup as it was");
    }
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
    for pod in &pods {
        assert_eq!(
            cri.pod_status(pod).await.or_fail("get the status").status.or_fail("read it").state,
            0
        );
    }
    cri.remove_all_pods().await.or_fail("remove the pods");
    // The kubelet has made that parent and removes it; here the test does.
    for dir in dirs {
        let _gone = fs::remove_dir(&dir);
        let _gone = dir.parent().map(fs::remove_dir);
    }
}

#[tokio::test]
async fn a_pod_without_a_network_lacks_nothing() {
    let node = Node::start_on_network(|_| "mode = \"none\"\n".to_owned()).await;
    let _pod = node.pod("alone").await;
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
}

#[tokio::test]
async fn a_monitor_that_does_not_answer_and_a_layer_that_is_gone_are_mismatches() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("odd").await;
    let container = cri.run_idle(&pod, "main", &image).await;
    let monitor = host::monitor_of(&pod);
    kill(monitor, Signal::SIGSTOP).or_fail("stop the monitor");
    let layer = node.data_dir().join("containers").join(&container);
    let aside = node.data_dir().join("aside");
    fs::rename(&layer, &aside).or_fail("move the layer");
    let (found, code) = findings(&node, &["--fix"]);
    fs::rename(&aside, &layer).or_fail("move the layer back");
    kill(monitor, Signal::SIGCONT).or_fail("let the monitor go on");
    let all = names(&found);
    assert!(code == 1 && all.contains(&pod) && all.contains(&container), "{all}");
    let owners: Vec<_> = found.iter().filter_map(|of| of["owner"].as_str()).collect();
    assert!(owners.iter().all(|owner| owner.contains("/odd")), "{owners:?}");
    assert!(found.iter().all(|of| of["class"] == "mismatch" && of["outcome"] == "left"));
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
}

#[tokio::test]
async fn the_load_of_running_containers_is_read_once_and_a_bundle_has_no_secrets() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let args = [
        "run",
        "-d",
        "--name",
        "busy",
        "-e",
        "KEY=hunter2",
        &image,
        "sh",
        "-c",
        "while true; do :; done",
    ];
    let _id = node.hull(&args).good();
    let rows: Value = eventually("the container uses the CPU", || async {
        let text = node.hull(&["top", "--once", "-o", "json"]).good();
        let rows: Value = serde_json::from_str(&text).or_fail("read JSON");
        let busy = rows[0]["cpuPercent"].as_f64().is_some_and(|percent| percent > 1.0);
        if busy { Ok(rows) } else { Err(text) }
    })
    .await;
    assert_eq!((&rows[0]["container"], &rows[0]["kind"]), (&"busy".into(), &"container".into()));
    assert!(rows[0]["memory"].as_u64().is_some_and(|bytes| bytes > 0), "{rows:#}");
    let processes = node.hull(&["top", "busy"]).good();
    assert!(processes.contains("while true"), "with a name it lists processes: {processes}");

    let container = node.hull(&["ps", "-q", "--filter", "pod=busy"]).good().trim().to_owned();
    let secret = ["sh", "-c", "echo hunter2; exit 3 # hunter2"];
    let _failed = node.cri().exec(&container, &secret).await;
    let bundle = node.state_dir().join("report.tar");
    let path = bundle.to_string_lossy().into_owned();
    let made = node.hull(&["doctor", "--bundle", &path]);
    assert_eq!(made.code, 0, "{made:?}");
    let bytes = fs::read(&bundle).or_fail("read the archive");
    let text = String::from_utf8_lossy(&bytes);
    for part in ["hull-bundle/config.json", "hull-bundle/check.json", "hull-bundle/pods/"] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("hunter2") && !text.contains("while true"));
    let mode = fs::metadata(&bundle).or_fail("look at the archive").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = node.hull(&["doctor", "--bundle", &path]);
    assert!(again.code == 1 && again.stderr.contains("must not exist"), "{again:?}");
}

#[tokio::test]
async fn a_pinned_network_namespace_of_a_removed_pod_is_removed_with_its_file() {
    let dir = |names: &Names| names.root.join("state/netns");
    let settings =
        |names: &Names| format!("mode = \"none\"\n[network.cni]\nnetns_dir = {:?}\n", dir(names));
    let node = Node::start_on_network(settings).await;
    let cri = node.cri();
    let pod = cri.run_pod("goes").await.or_fail("run a pod");
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    let netns_dir = dir(node.names());
    fs::create_dir_all(&netns_dir).or_fail("make the directory of pins");
    let pin = netns_dir.join(format!("hull-{pod}"));
    // What it is after a DEL that never succeeded, and after a pin that was interrupted.
    for is_mounted in [true, false] {
        fs::write(&pin, "").or_fail("write the file of a pin");
        if is_mounted {
            let _mounted = run(
                "mount",
                [OsStr::new("--bind"), OsStr::new("/proc/self/ns/net"), pin.as_os_str()],
            )
            .good();
        }
        let (found, code) = findings(&node, &[]);
        assert_eq!((found.len(), code), (1, 1), "{found:#?}");
        assert_eq!(found[0]["name"], pin.display().to_string());
        let (fixed, code) = findings(&node, &["--fix"]);
        assert_eq!((fixed.len(), code), (1, 0), "{fixed:#?}");
        assert_eq!(fixed[0]["outcome"], "removed");
        assert!(fs::symlink_metadata(&pin).is_err(), "{} is left", pin.display());
    }
    let (found, code) = findings(&node, &[]);
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
}

/// A process with the command line of a pod's monitor, and with this socket; it ends when the second of the pair closes.
fn like_a_monitor(dir: &Path, pod: &str, socket: OwnedFd) -> (Child, UnixStream) {
    // The name of the pod is that of its script, so that it is the first argument.
    fs::write(dir.join(pod), "read line <&1\n").or_fail("write a script");
    let (waits, ours) = UnixStream::pair().or_fail("make a pair of sockets");
    let mut command = std::process::Command::new("sh");
    command.arg0("hull-monitor").arg(pod).current_dir(dir);
    let child = command.stdin(socket).stdout(OwnedFd::from(waits)).spawn();
    (child.or_fail("run it"), ours)
}

/// Sockets at the path of a pod's monitor: one that listens, or a connection to it that outlived it.
fn socket_at(path: &Path, listens: bool) -> (OwnedFd, Option<UnixStream>) {
    let listener = UnixListener::bind(path).or_fail("listen");
    if listens {
        return (listener.into(), None);
    }
    let client = UnixStream::connect(path).or_fail("connect");
    let (connection, _) = listener.accept().or_fail("accept");
    (connection.into(), Some(client))
}

#[tokio::test]
async fn a_monitor_that_leaked_is_found_by_any_of_its_sockets_and_ended() {
    let node = Node::start().await;
    for (digits, listens) in [("ae", true), ("af", false)] {
        let pod = digits.repeat(32);
        let scripts = tempfile::tempdir().or_fail("make a directory");
        let dir = node.state_dir().join("run").join(&pod);
        fs::create_dir(&dir).or_fail("make the pod's directory");
        let (socket, _client) = socket_at(&dir.join("monitor.sock"), listens);
        // The directory would be found as a leak of its own.
        fs::remove_dir_all(&dir).or_fail("remove the pod's directory");
        let (mut monitor, _waits) = like_a_monitor(scripts.path(), &pod, socket);

        let (found, code) = findings(&node, &[]);
        assert_eq!((found.len(), code), (1, 1), "{found:#?}");
        let name = format!("hull-monitor {pod}");
        assert_eq!((&found[0]["subject"], &found[0]["name"]), (&"monitor".into(), &name.into()));
        let (fixed, code) = findings(&node, &["--fix"]);
        assert_eq!((fixed.len(), code), (1, 0), "{fixed:#?}");
        assert_eq!(fixed[0]["outcome"], "removed", "{fixed:#?}");
        let ended = monitor.wait().or_fail("wait for it");
        assert_eq!(ended.signal(), Some(9), "{ended:?}");
        let (found, code) = findings(&node, &[]);
        assert_eq!((found.len(), code), (0, 0), "{found:#?}");
    }
}

#[tokio::test]
async fn the_monitors_of_another_daemon_are_left_alone_also_when_it_is_gone() {
    let (node, mut other) = (Node::start().await, Node::start().await);
    let (_cri, _pod, _image) = node.pod("web").await;
    let (_cri, of_other, _image) = other.pod("web").await;
    let monitor = host::monitor_of(&of_other);
    for daemon_is_gone in [false, true] {
        if daemon_is_gone {
            other.kill();
        }
        let (found, code) = findings(&node, &["--fix"]);
        assert_eq!((found.len(), code), (0, 0), "gone: {daemon_is_gone}: {found:#?}");
        kill(monitor, None).or_fail("find the other daemon's monitor");
    }
    // A pod of the other one with a cgroup where this one makes its own: as long as its monitor runs it is not a leak.
    let cgroups = make_cgroups(&node, &of_other);
    let (found, code) = findings(&node, &["--fix"]);
    assert_eq!((found.len(), code), (0, 0), "{found:#?}");
    assert!(cgroups.iter().all(|cgroup| cgroup.is_dir()), "{cgroups:?}");
    for cgroup in cgroups {
        fs::remove_dir(cgroup).or_fail("remove the cgroup");
    }
    other.start_again().await;
    assert_eq!(host::monitor_of(&of_other), monitor, "the same monitor serves on");
}
