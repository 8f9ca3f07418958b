// SPDX-License-Identifier: Apache-2.0
//! The commands with the names and files of crictl, and further options of docker, on a node.

use hull_tests::{ExpectExt as _, Node, fixture, node};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

/// The output of a command as JSON.
fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).or_fail("read JSON")
}

#[tokio::test]
async fn pods_and_containers_are_made_of_the_files_of_crictl() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["pull", "-q", &image]).good();
    let name = "registry.example.org/same:2";
    assert_eq!(node.hull(&["tag", &image, name]).good().trim(), name);
    let dir = node.host_dir();
    let logs = dir.join("logs").display().to_string();
    let pod = format!(
        r#"{{"metadata": {{"name": "made", "namespace": "default", "uid": "u-1", "attempt": 0}}, "log_directory": "{logs}"}}"#
    );
    let pod = node::write(&dir, "pod.json", &pod).display().to_string();
    let id = node.hull(&["runp", &pod]).good();
    let container = format!(
        "metadata: {{name: app}}\nimage: {{image: '{name}'}}\ncommand: [sleep, '1000']\nlog_path: app.log\n"
    );
    let container = node::write(&dir, "container.yaml", &container).display().to_string();
    let made = node.hull(&["create-container", id.trim(), &container, &pod]).good();
    let _named = node.hull(&["start", made.trim()]).good();
    let _named = node.hull(&["update", "--memory", "64m", made.trim()]).good();
    let status = json(&node, &["inspect", made.trim()]);
    let limit = &status["status"]["resources"]["linux"]["memoryLimitInBytes"];
    assert!(*limit == 67_108_864 || *limit == "67108864", "{status}");
    let _named = node.hull(&["pause", "made"]).good();
    assert_eq!(json(&node, &["ps", "-o", "json"])[0]["state"], "paused");
    let _named = node.hull(&["unpause", "made"]).good();
    let _named = node.hull(&["stopp", "made"]).good();
    assert_eq!(json(&node, &["pods", "-o", "json"])[0]["state"], "notready");
    let forward = node.hull(&["port-forward", "made", ":80"]);
    assert!(forward.code == 1 && forward.stderr.contains("made: it is stopped"), "{forward:?}");
    let _named = node.hull(&["rmp", "made"]).good();
    node.nothing_is_left().await;
}

/// Starts a command whose stdout is read line by line.
fn reading(node: &Node, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut command = node.hull_command(args);
    let mut child = command.stdout(Stdio::piped()).spawn().or_fail("start hull");
    let out = child.stdout.take().or_fail("have its stdout");
    (child, BufReader::new(out))
}

fn ended(mut child: Child) {
    child.kill().or_fail("end hull");
    let _status = child.wait().or_fail("wait for hull");
}

#[tokio::test]
async fn exposed_ports_user_namespaces_logs_and_stats_are_those_of_docker() {
    let node = Node::start().await;
    let image = fixture::pushed("exposing", || {
        let ports = serde_json::json!({"80/tcp": {}, "81-82/udp": {}});
        fixture::busybox_image().set("ExposedPorts", ports)
    });
    let script = "echo up; sleep 1000";
    let run = ["run", "-d", "--name", "a", "-P", &image, "sh", "-c", script];
    let _id = node.hull(&run).good();
    let ports = json(&node, &["port", "-o", "json", "a"]);
    assert_eq!(ports.as_array().map(Vec::len), Some(3), "{ports}");
    let run = ["run", "-d", "--name", "b", "--userns", "1048576", &image, "sh", "-c", script];
    let ran = node.hull(&run);
    // Kernels and machines without user namespaces for pods say so.
    let most = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if most.trim().parse::<u64>().is_ok_and(|most| most > 0) {
        assert_eq!(ran.code, 0, "{ran:?}");
        let map = node.hull(&["exec", "b", "cat", "/proc/self/uid_map"]).good();
        assert!(map.split_whitespace().eq(["0", "1048576", "65536"]), "{map}");
    } else {
        assert!(ran.stderr.contains("user namespace"), "{ran:?}");
        let _id = node.hull(&["run", "-d", "--name", "b", &image, "sh", "-c", script]).good();
    }
    let (child, mut lines) = reading(&node, &["logs", "-f", "a", "b"]);
    let mut said = [String::new(), String::new()];
    for line in &mut said {
        let _bytes = lines.read_line(line).or_fail("read a line");
    }
    said.sort();
    assert_eq!(said, ["[a/a] up\n", "[b/b] up\n"]);
    ended(child);
    let (child, mut lines) = reading(&node, &["stats", "--watch=1", "-o", "jsonl", "a"]);
    // A pod and its container: the third line is of a second sample.
    for _ in 0..3 {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).or_fail("read a sample") > 0, "it ended");
    }
    ended(child);
    let _named = node.hull(&["rm", "-f", "a", "b"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_follower_says_that_the_daemon_is_gone_and_ends_when_it_is_back() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let volume = format!("{}:/host", node.host_dir().display());
    let script = "echo up; while [ ! -e /host/go ]; do sleep 0.05; done; echo late";
    let run = ["run", "-d", "--name", "a", "-v", &volume, &image, "sh", "-c", script];
    let _id = node.hull(&run).good();
    let mut command = node.hull_command(&["logs", "-f", "a"]);
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().or_fail("start hull");
    let mut out = BufReader::new(child.stdout.take().or_fail("have its stdout"));
    let mut err = BufReader::new(child.stderr.take().or_fail("have its stderr"));
    let mut line = String::new();
    let _bytes = out.read_line(&mut line).or_fail("read a line");
    node.kill();
    let mut said = String::new();
    let _bytes = err.read_line(&mut said).or_fail("read what it says");
    assert!(said.starts_with("hull: the daemon does not answer"), "{said}");
    let _go = node::write(&node.host_dir(), "go", "");
    let _bytes = out.read_line(&mut line).or_fail("read a line");
    assert_eq!(line, "up\nlate\n");
    node.start_again().await;
    assert!(child.wait().or_fail("wait for hull").success());
    let _named = node.hull(&["rm", "-f", "a"]).good();
    node.nothing_is_left().await;
}
