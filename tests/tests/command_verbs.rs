// SPDX-License-Identifier: Apache-2.0
//! The commands of other tools' users: lifecycle of containers, copies, ports, pods of manifests, and what is printed.

use hull_tests::shell::finish;
use hull_tests::terminal::Terminal;
use hull_tests::{ExpectExt as _, Node, eventually, fixture, node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

/// A script that runs until SIGTERM, and writes a line for each SIGHUP.
const SCRIPT: &str =
    "trap 'exit 7' TERM; trap 'echo again' HUP; echo up; while true; do sleep 1000 & wait $!; done";

/// The output of a command as JSON.
fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).or_fail("read JSON")
}

/// The state of the container of a pod of `hull run`.
fn state(node: &Node, name: &str) -> String {
    let filter = format!("pod={name}");
    let all = json(node, &["ps", "-a", "-o", "json", "--filter", &filter]);
    all[0]["state"].as_str().unwrap_or_default().to_owned()
}

async fn printed(node: &Node, name: &str, text: &str) {
    eventually("the output is in the log", || async {
        let said = node.hull(&["logs", name]);
        if said.stdout.contains(text) { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_container_is_created_started_paused_signalled_restarted_and_waited_for() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let good = |args: &[&str]| node.hull(args).good();
    let id = good(&["create", "--name", "life", &image, "sh", "-c", SCRIPT]);
    assert_eq!(state(&node, "life"), "created");
    let _named = good(&["start", "life"]);
    printed(&node, "life", "up").await;
    let _named = good(&["pause", "life"]);
    assert_eq!(state(&node, "life"), "paused");
    for args in [&["exec", "life", "true"][..], &["attach", "life"]] {
        let refused = node.hull(args);
        assert!(
            refused.code != 0 && refused.stderr.contains("it is paused"),
            "{args:?}: {refused:?}"
        );
    }
    let refused = node.hull(&["exec", "life", "true"]);
    let fix = refused.stderr.split('`').find_map(|part| part.strip_prefix("hull "));
    let fix: Vec<&str> = fix.unwrap().split(' ').collect();
    assert_eq!(fix[0], "unpause");
    let _named = good(&fix);
    assert_eq!(state(&node, "life"), "running");
    let _nothing = good(&["exec", "life", "true"]);
    let _named = good(&["kill", "-s", "HUP", "life"]);
    printed(&node, "life", "again").await;
    let _named = good(&["restart", "-t", "5", "life"]);
    // As pid 1 it ignores signals until it has its traps.
    printed(&node, "life", "up").await;
    let again = json(&node, &["ps", "-o", "json"]);
    assert_eq!(again[0]["attempt"], 1, "{again}");
    assert_eq!(again[0]["id"], id.trim(), "{again}");
    assert_eq!(again.as_array().map(Vec::len), Some(1), "{again}");
    let mut waiting = node.hull_command(&["wait", "life"]);
    let mut waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
    let _named = good(&["kill", "-s", "TERM", "life"]);
    let mut code = String::new();
    waiting.stdout.take().unwrap().read_to_string(&mut code).unwrap();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(code, "7\n");
    let refused = node.hull(&["kill", "life"]);
    assert!(refused.code == 1 && refused.stderr.contains("exited"), "{refused:?}");
    // The id of the container takes the pod of `hull run` along.
    let ids = good(&["ps", "-a", "-q"]);
    let _named = good(&["rm", "-f", ids.trim()]);
    assert_eq!(good(&["ps", "-a", "--no-headers"]).trim(), "");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_paused_container_is_stopped_and_removed() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "still", &image, "sleep", "1000"]).good();
    let _named = node.hull(&["pause", "still"]).good();
    let _named = node.hull(&["rm", "-f", "still"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn files_are_copied_in_both_directions_and_links_of_the_container_lead_nowhere() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "box", &image, "sleep", "1000"]).good();
    let dir = node.host_dir();
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("site/sub")).unwrap();
    let large: Vec<u8> = (0..3 << 20).map(|at: u32| (at % 251) as u8).collect();
    fs::write(at("site/sub/large"), &large).unwrap();
    let path = |name: &str| at(name).display().to_string();
    let _out = node.hull(&["cp", &path("site"), "box:/site"]).good();
    let sums = node.hull(&["exec", "box", "sha256sum", "/site/sub/large"]).good();
    let _out = node.hull(&["cp", "box:/site/.", &path("back")]).good();
    assert!(fs::read(at("back/sub/large")).unwrap() == large, "{sums}");
    let owner = node.hull(&["exec", "box", "stat", "-c", "%u", "/site/sub/large"]).good();
    assert_eq!(owner, "0\n");
    // A link that the container makes to a file of the host.
    let secret = node::write(&dir, "secret", "of the host\n");
    let script = format!("ln -s {0} /link; ln -s {1} /way", secret.display(), dir.display());
    let _made = node.hull(&["exec", "box", "sh", "-c", &script]).good();
    let refused = node.hull(&["cp", "box:/way/secret", &path("stolen")]);
    assert!(refused.code == 1 && !at("stolen").try_exists().unwrap(), "{refused:?}");
    let _out = node.hull(&["cp", "box:/link", &path("link")]).good();
    assert_eq!(fs::read_link(at("link")).unwrap(), secret, "the link itself is copied");
    let new = node::write(&dir, "new", "of the container\n");
    let _out = node.hull(&["cp", &new.display().to_string(), "box:/link"]).good();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host\n");
    let archive = node.hull(&["cp", "box:/etc/passwd", "-"]).stdout;
    assert!(archive.contains("ustar") && archive.contains("root"), "a tar archive");
    let _named = node.hull(&["rm", "-f", "box"]).good();
}

#[tokio::test]
async fn files_are_copied_from_and_to_containers_that_do_not_run() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let dir = node.host_dir();
    let path = |name: &str| dir.join(name).display().to_string();
    let new = node::write(&dir, "new", "before the start\n").display().to_string();
    let create = ["create", "--name", "box", "-v", "kept:/data", &image, "sh", "-c"];
    let _id =
        node.hull(&[&create[..], &["cat /new; echo left > /left; ln -s / /way"]].concat()).good();
    let _out = node.hull(&["cp", &new, "box:/new"]).good();
    // A copy in progress keeps it from being started: nobody reads its archive, of which the pipe has not room for all.
    let mut copy = node.hull_command(&["cp", "box:/", "-"]);
    let mut copy = copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    copy.stdout.as_mut().unwrap().read_exact(&mut [0; 512]).unwrap();
    let refused = node.hull(&["cp", &new, "box:/new"]);
    assert!(refused.code == 1 && refused.stderr.contains("being copied"), "{refused:?}");
    let refused = node.hull(&["start", "box"]);
    assert!(refused.code == 1 && refused.stderr.contains("being copied"), "{refused:?}");
    drop(copy.stdout.take());
    let _ended = copy.wait().unwrap();
    eventually("the container is free", || async {
        let copied = node.hull(&["cp", &new, "box:/new"]);
        if copied.code == 0 { Ok(()) } else { Err(format!("{copied:?}")) }
    })
    .await;
    let refused = node.hull(&["cp", &new, "box:/data/new"]);
    assert!(refused.code == 1 && refused.stderr.contains("volumes/kept"), "{refused:?}");
    let _named = node.hull(&["start", "box"]).good();
    let _code = node.hull(&["wait", "box"]).good();
    assert_eq!(node.hull(&["logs", "box"]).good(), "before the start\n");
    let _out = node.hull(&["cp", "box:/left", &path("left")]).good();
    assert_eq!(fs::read_to_string(dir.join("left")).unwrap(), "left\n");
    let _out = node.hull(&["cp", "box:/etc/passwd", &path("passwd")]).good();
    assert!(fs::read_to_string(dir.join("passwd")).unwrap().starts_with("root:"));
    // Its links lead into its own root, as those of a running container.
    let _out = node.hull(&["cp", "box:/way/left", &path("again")]).good();
    let stolen = format!("box:/way{}", dir.join("new").display());
    let refused = node.hull(&["cp", &stolen, &path("stolen")]);
    assert!(refused.code == 1 && !dir.join("stolen").try_exists().unwrap(), "{refused:?}");
    let _named = node.hull(&["rm", "-f", "box"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn top_stats_port_and_port_forward_show_and_reach_a_pod() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "while true; do echo answer | nc -l -p 9000; done";
    let run = ["run", "-d", "--name", "net", "-p", "9000", &image, "sh", "-c", script];
    let _id = node.hull(&run).good();
    let ports = json(&node, &["port", "-o", "json", "net"]);
    let port = ports[0]["hostPort"].as_u64().unwrap();
    assert!(port > 0 && ports[0]["port"] == 9000, "{ports}");
    let line = node.hull(&["port", "net", "9000/tcp"]).good();
    assert_eq!(line, format!("0.0.0.0:{port}\n"));
    let processes = json(&node, &["top", "-o", "json", "net"]);
    let commands = processes.to_string();
    assert!(commands.contains("while true"), "{commands}");
    assert_eq!(processes[0]["inside"], 1, "{processes}");
    let stats = json(&node, &["stats", "-o", "json", "net"]);
    assert_eq!(stats.as_array().map(Vec::len), Some(2), "{stats}");
    let mut forward = node.hull_command(&["port-forward", "net", ":9000"]);
    let mut forward = forward.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(forward.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split(' ').next().unwrap().to_owned();
    eventually("the pod answers", || async {
        let mut text = String::new();
        let stream = TcpStream::connect(&address).map_err(|err| err.to_string())?;
        (&stream).read_to_string(&mut text).map_err(|err| err.to_string())?;
        if text == "answer\n" { Ok(()) } else { Err(format!("it said {text:?}")) }
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(forward.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(forward.wait().unwrap().success());
    let _named = node.hull(&["rm", "-f", "net"]).good();
}

#[tokio::test]
async fn a_manifest_is_played_and_taken_down() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: played, namespace: shop, labels: {{app: web}}}}\nspec:\n  \
         restartPolicy: Never\n  volumes: [{{name: data, emptyDir: {{}}}}]\n  \
         initContainers:\n  - {{name: init, image: '{image}', command: [sh, -c, 'echo made > /data/x'], volumeMounts: [{{name: data, mountPath: /data}}]}}\n  \
         containers:\n  - name: app\n    image: '{image}'\n    command: [sh, -c, 'cat /data/x; echo $WHO; sleep 1000']\n    \
         env: [{{name: WHO, value: me}}]\n    resources: {{limits: {{memory: 64Mi}}}}\n    volumeMounts: [{{name: data, mountPath: /data}}]\n"
    );
    let file = node::write(&node.host_dir(), "pod.yaml", &text).display().to_string();
    let rows = json(&node, &["play", "kube", "-o", "json", &file]);
    assert_eq!(rows[0]["state"], "started", "{rows}");
    printed(&node, "shop/played/app", "made\nme\n").await;
    let pods = json(&node, &["pods", "-n", "shop", "-o", "json", "--filter", "label=app=web"]);
    assert_eq!(pods[0]["names"], "shop/played", "{pods}");
    let taken = node.hull(&["play", "kube", &file]);
    assert!(taken.code == 1 && taken.stderr.contains("played"), "{taken:?}");
    let _rows = node.hull(&["kube", "down", &file]).good();
    assert_eq!(node.hull(&["pods", "-q"]).good(), "");
    let probe = text.replace("    env:", "    livenessProbe: {}\n    env:");
    let file = node::write(&node.host_dir(), "probe.yaml", &probe).display().to_string();
    let refused = node.hull(&["play", "kube", &file]);
    assert!(refused.stderr.contains("livenessProbe"), "{refused:?}");
    // A pod that the daemon refuses leaves no directory.
    let class = "  restartPolicy: Never\n  runtimeClassName: none\n";
    let refused = text.replace("  restartPolicy: Never\n", class);
    let file = node::write(&node.host_dir(), "class.yaml", &refused).display().to_string();
    let refused = node.hull(&["play", "kube", &file]);
    assert!(refused.code == 1 && refused.stderr.contains("none"), "{refused:?}");
    let left = fs::read_dir(node.data_dir().join("run-logs")).unwrap().count();
    assert_eq!(left, 0, "directories of removed pods");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn events_are_printed_as_they_happen() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let mut command = node.hull_command(&[
        "events",
        "-o",
        "json",
        "--filter",
        "kind=container",
        "--filter",
        "type=stopped",
        "--count",
        "1",
    ]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let events = std::cell::RefCell::new(child);
    let pod = || node.hull(&["run", "--rm", &image, "sh", "-c", "exit 3"]);
    // The stream has begun when an event arrives; one that comes before is not of interest.
    eventually("an event arrives", || async {
        assert_eq!(pod().code, 3);
        match events.borrow_mut().try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("no event yet: {other:?}")),
        }
    })
    .await;
    let mut text = String::new();
    events.into_inner().stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["type"], &event["exitCode"]), (&"stopped".into(), &3.into()), "{event}");
}

#[tokio::test]
async fn prune_removes_what_is_unused_and_asks_first() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _ran = node.hull(&["run", "--name", "done", &image, "true"]);
    let _id = node.hull(&["run", "-d", "--name", "runs", &image, "sleep", "1000"]).good();
    let mut asked = node.hull_command(&["prune"]);
    let asked = finish(asked.stdin(Stdio::null()));
    assert!(asked.code == 1 && asked.stderr.contains("-y"), "{asked:?}");
    let removed = node.hull(&["system", "prune", "--all", "-f"]).good();
    assert!(removed.contains("done") && !removed.contains("runs"), "{removed}");
    assert!(node.hull(&["images"]).good().contains("busybox"), "a container uses it");
    let refused = node.hull(&["rmi", &image]);
    assert!(refused.stderr.contains("`hull/runs` use it: remove its containers"), "{refused:?}");
    let _named = node.hull(&["rm", "-f", "runs"]).good();
    let usage = json(&node, &["df", "-o", "json"]);
    assert_eq!(usage[0]["active"], 0, "{usage}");
    let removed = node.hull(&["image", "prune", "-f"]).good();
    assert!(removed.is_empty(), "an image with a tag stays: {removed}");
    let removed = node.hull(&["image", "prune", "-a", "-f"]).good();
    assert!(removed.contains("busybox"), "{removed}");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn prune_names_and_leaves_a_pod_that_a_command_is_making() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let command = "command: [sleep, '1000']";
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  initContainers:\n  - {{name: first, image: '{image}', {command}}}\n  containers:\n  - {{name: app, image: '{image}', {command}}}\n"
    );
    let file = node::write(&node.host_dir(), "slow.yaml", &manifest).display().to_string();
    let mut play = node.hull_command(&["play", "kube", &file]);
    let mut play = play.stdout(Stdio::null()).stderr(Stdio::null()).spawn().or_fail("start a play");
    eventually("its init container runs", || async {
        let now = state(&node, "slow");
        if now == "running" { Ok(()) } else { Err(now) }
    })
    .await;
    let pruned = node.hull(&["prune", "-y"]);
    let left = pruned.stderr.contains("skipped pod slow: it is being made");
    assert!(pruned.code == 0 && left, "{pruned:?}");
    assert_eq!(state(&node, "slow"), "running");
    let pid = i32::try_from(play.id()).or_fail("read the pid of the play");
    kill(Pid::from_raw(pid), Signal::SIGTERM).or_fail("interrupt the play");
    let _interrupted = play.wait().or_fail("wait for the play");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn an_archive_is_loaded_from_stdin_and_a_container_is_not_an_image() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "box", &image, "sleep", "1000"]).good();
    let archive = node.host_dir().join("archive.tar").display().to_string();
    let _nothing = node.hull(&["save", "-o", &archive, &image]).good();
    let file = fs::File::open(&archive).or_fail("open the archive");
    let mut load = node.hull_command(&["load"]);
    let loaded = finish(load.stdin(file));
    assert!(loaded.code == 0 && loaded.stdout.contains("busybox"), "{loaded:?}");
    let mut terminal = Terminal::start(&node.hull_command(&["load"]), (80, 24));
    terminal.wait_for("stdin is a terminal").await;
    assert_eq!(terminal.finish(), 1, "{}", terminal.screen());
    let refused = node.hull(&["export", "box"]);
    assert!(refused.code == 1 && refused.stderr.contains("it is a container"), "{refused:?}");
    assert!(refused.stderr.contains("hint: `hull cp box:/ - > FILE`"), "{refused:?}");
    let refused = node.hull(&["ps", "-n", "5"]);
    assert!(refused.code == 1 && refused.stderr.contains("--last 5"), "{refused:?}");
    let refused = node.hull(&["logs", "pod/box"]);
    assert!(refused.code == 1 && refused.stderr.contains("the name alone, `box`"), "{refused:?}");
    let listed = node.hull(&["get", "pods", "-A", "-o", "name"]).good();
    assert_eq!(listed, "hull/box\n");
    let _named = node.hull(&["rm", "-f", "box"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn credentials_of_login_are_those_of_docker_and_gone_after_logout() {
    let node = Node::start().await;
    let directory = node.host_dir().join("docker");
    let hull = |args: &[&str], input: &str| {
        let mut command = node.hull_command(args);
        let command = command.env("DOCKER_CONFIG", &directory).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let login = ["login", "-u", "me", "--password-stdin", "r.example.org"];
    assert!(hull(&login, "secret\n").status.success());
    let text = fs::read_to_string(directory.join("config.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["auths"]["r.example.org"]["auth"], "bWU6c2VjcmV0", "{text}");
    assert!(hull(&["logout", "r.example.org"], "").status.success());
    assert!(!hull(&["logout", "r.example.org"], "").status.success());
}
