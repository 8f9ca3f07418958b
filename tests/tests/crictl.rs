// SPDX-License-Identifier: Apache-2.0
//! crictl, every subcommand of it that a runtime serves, as people type them. (exec with input, attach with
//! input and port-forward are in `streaming.rs`.)

use hull_tests::shell::{Ran, finish};
use hull_tests::{ExpectExt as _, Node, eventually, fixture, node, paths};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::BufReader;
use std::process::{Child, Command, Stdio};

/// Subcommands that ask no runtime.
const OF_ITSELF: [&str; 3] = ["completion", "config", "help"];
/// Subcommands that are walked here or in `streaming.rs`.
const WALKED: [&str; 32] = [
    "attach",
    "checkpoint",
    "create",
    "events",
    "exec",
    "imagefsinfo",
    "images",
    "info",
    "inspect",
    "inspecti",
    "inspectp",
    "logs",
    "metricdescs",
    "metricsp",
    "pods",
    "port-forward",
    "ps",
    "pull",
    "rm",
    "rmi",
    "rmp",
    "run",
    "runp",
    "runtime-config",
    "start",
    "stats",
    "statsp",
    "stop",
    "stopp",
    "update",
    "update-runtime-config",
    "version",
];

fn command(node: &Node, args: &[&str]) -> Command {
    let endpoint = format!("unix://{}", node.socket().display());
    let mut command = Command::new(paths::crictl().or_fail("find crictl"));
    command.args(["--config", "/dev/null", "--runtime-endpoint", &endpoint]);
    command.args(["--image-endpoint", &endpoint]).args(args);
    command
}

fn crictl(node: &Node, args: &[&str]) -> Ran {
    finish(&mut command(node, args))
}

/// Output of a subcommand that must succeed.
fn good(node: &Node, args: &[&str]) -> String {
    crictl(node, args).good().trim().to_owned()
}

fn json_of(node: &Node, args: &[&str]) -> Value {
    let said = good(node, args);
    serde_json::from_str(&said).or_fail(format!("read the JSON of crictl {args:?}: {said}"))
}

fn there(test: &str) -> bool {
    let there = paths::crictl().is_some();
    if !there {
        paths::cannot_run(test, "crictl (`make tools`)");
    }
    there
}

/// Files with the configs of a pod and of a container of it.
fn configs(node: &Node, name: &str, image: &str, script: &str) -> (String, String) {
    let pod = json!({
        "metadata": {"name": name, "namespace": "tests", "uid": name, "attempt": 1},
        "log_directory": node.host_dir().join("logs"), "linux": {},
    });
    let container = json!({
        "metadata": {"name": "main"}, "image": {"image": image}, "log_path": format!("{name}.log"), "linux": {},
        "command": ["/bin/sh", "-c", script],
    });
    let file = |kind: &str, value: &Value| {
        let path =
            node::write(&node.host_dir(), &format!("{name}-{kind}.json"), &value.to_string());
        path.display().to_string()
    };
    (file("pod", &pod), file("container", &container))
}

/// Traps TERM, says hello, waits.
const WAIT: &str = "trap 'exit 0' TERM; echo hello; while true; do sleep 1000 & wait; done";

async fn log_is(node: &Node, container: &str, wanted: &str) {
    eventually("the log is there", || async {
        let said = crictl(node, &["logs", container]);
        if said.stdout == wanted { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_is_made_looked_at_and_removed() {
    if !there("a_pod_is_made_looked_at_and_removed") {
        return;
    }
    let node = Node::start().await;
    let image = fixture::busybox();
    assert!(good(&node, &["pull", &image]).contains("up to date"));
    assert!(good(&node, &["images"]).contains("tests/busybox"));
    let (pod_file, file) = configs(&node, "by-crictl", &image, WAIT);
    let pod = good(&node, &["runp", &pod_file]);
    assert!(good(&node, &["pods"]).contains("by-crictl"));
    let made = good(&node, &["create", &pod, &file, &pod_file]);
    assert_eq!(good(&node, &["start", &made]), made);
    assert!(good(&node, &["ps"]).contains("main"));
    assert_eq!(good(&node, &["exec", "-s", &made, "echo", "inside"]), "inside");
    assert_eq!(good(&node, &["exec", &made, "echo", "streamed"]), "streamed");
    log_is(&node, &made, "hello\n").await;
    let inspected = json_of(&node, &["inspect", &made]);
    assert!(inspected["info"]["pid"].as_i64().is_some_and(|pid| pid > 1), "{inspected}");
    assert!(good(&node, &["inspectp", &pod]).contains("SANDBOX_READY"));
    assert!(good(&node, &["inspecti", &image]).contains("sha256:"));
    let _said = good(&node, &["update", "--memory", "67108864", &made]);
    let limit =
        &json_of(&node, &["inspect", &made])["status"]["resources"]["linux"]["memoryLimitInBytes"];
    assert_eq!(limit, "67108864");
    let _said = good(&node, &["stop", &made]);
    assert!(good(&node, &["ps", "-a"]).contains("Exited"));
    let _said = good(&node, &["rm", &made]);
    let _said = good(&node, &["stopp", &pod]);
    assert!(good(&node, &["pods"]).contains("NotReady"));
    let _said = good(&node, &["rmp", &pod]);
    let _said = good(&node, &["rmi", &image]);
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_node_and_what_it_uses_are_told() {
    if !there("the_node_and_what_it_uses_are_told") {
        return;
    }
    let node = Node::start().await;
    assert!(good(&node, &["version"]).contains("hull"));
    assert!(good(&node, &["info"]).contains("RuntimeReady"));
    assert!(good(&node, &["runtime-config"]).contains("CGROUPFS"));
    assert!(good(&node, &["imagefsinfo"]).contains("usedBytes"));
    let _said = good(&node, &["update-runtime-config", "--pod-cidr", "10.213.250.0/28"]);

    let (cri, pod, image) = node.pod("web").await;
    assert!(cri.pod_ip(&pod).await.starts_with("10.213.250."), "the subnet that crictl gave");
    let made = cri.run_idle(&pod, "main", &image).await;
    assert!(good(&node, &["stats", "-o", "json"]).contains(&made));
    assert!(good(&node, &["statsp", "-o", "json"]).contains(&pod));
    assert!(good(&node, &["metricdescs"]).contains("container_memory_working_set_bytes"));
    let metrics = json_of(&node, &["metricsp"]);
    assert_eq!(metrics["podMetrics"][0]["podSandboxId"], pod, "{metrics}");
}

/// A crictl that runs on, until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn run_does_all_at_once_and_events_and_attach_follow() {
    if !there("run_does_all_at_once_and_events_and_attach_follow") {
        return;
    }
    let node = Node::start().await;
    let image = fixture::busybox();
    let mut events = Running(
        command(&node, &["events"]).stdout(Stdio::piped()).spawn().or_fail("start crictl events"),
    );
    let out = BufReader::new(events.0.stdout.take().or_fail("read its output"));
    let mut told = serde_json::Deserializer::from_reader(out).into_iter::<Value>();
    let script = "read line; echo got $line; exit 3";
    let (pod_file, file) = configs(&node, "at-once", &image, script);
    let made = good(&node, &["run", &file, &pod_file]);
    let mut kinds = Vec::new();
    while kinds.len() < 5 {
        let event = told.next().or_fail("read an event before the end").or_fail("read an event");
        kinds.push(event["containerEventType"].as_str().unwrap_or_default().to_owned());
    }
    let wanted = ["CREATED", "STARTED", "CREATED", "STARTED", "STOPPED"];
    assert_eq!(kinds, wanted.map(|kind| format!("CONTAINER_{kind}_EVENT")));
    log_is(&node, &made, "got\n").await;
    let refused = crictl(&node, &["checkpoint", "--export", "/tmp/never.tar", &made]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("exited"), "{refused:?}");
    let late = crictl(&node, &["attach", &made]);
    assert_ne!(late.code, 0);
    assert!(late.stderr.contains("exited"), "{late:?}");
}

/// Two pods, `one` and `two`, each with a container `main` that gets its name as an argument; `one` has ended.
fn two_pods(node: &Node, image: &str) -> [String; 4] {
    let made = ["one", "two"].map(|name| {
        let (pod_file, file) = configs(node, name, image, WAIT);
        let pod = good(node, &["runp", "--runtime", "hull", &pod_file]);
        let made = good(node, &["create", "--no-pull", &pod, &file, &pod_file]);
        let _said = good(node, &["start", &made]);
        (pod, made)
    });
    let [(pod_one, one), (pod_two, two)] = made;
    let _said = good(node, &["stop", "--timeout", "1", &one]);
    [pod_one, one, pod_two, two]
}

#[tokio::test]
async fn lists_are_filtered_and_shown_in_every_form() {
    if !there("lists_are_filtered_and_shown_in_every_form") {
        return;
    }
    let node = Node::start().await;
    let image = fixture::busybox();
    let _said = good(&node, &["pull", &image]);
    let [pod_one, one, pod_two, two] = two_pods(&node, &image);
    for (args, wanted) in [
        (&["ps", "-q", "--no-trunc"][..], &[&two][..]),
        (&["ps", "-a", "-q", "--no-trunc", "--latest"], &[&two]),
        (&["ps", "-q", "--no-trunc", "--state", "Exited"], &[&one]),
        (&["ps", "-a", "-q", "--no-trunc", "--pod", &pod_one], &[&one]),
        (&["ps", "-a", "-q", "--no-trunc", "--id", &one[..12]], &[&one]),
        (&["ps", "-q", "--no-trunc", "--image", &image], &[&two]),
        (&["ps", "-a", "-q", "--no-trunc", "--name", "no-such"], &[]),
        (&["ps", "-q", "--no-trunc", "--label", "no=such"], &[]),
        (&["pods", "-q", "--no-trunc", "--name", "one"], &[&pod_one]),
        (&["pods", "-q", "--no-trunc", "--state", "ready", "--latest"], &[&pod_two]),
        (&["pods", "-q", "--no-trunc", "--namespace", "elsewhere"], &[]),
        (&["pods", "-q", "--no-trunc", "--id", &pod_two], &[&pod_two]),
    ] {
        let said = good(&node, args);
        let said: BTreeSet<&str> = said.lines().collect();
        assert_eq!(said, wanted.iter().map(|id| id.as_str()).collect(), "{args:?}");
    }
    for (args, says) in [
        (&["ps", "-v"][..], "Attempt: 0"),
        (&["ps", "-o", "yaml", "-r"], "podSandboxId"),
        (&["pods", "-v"], "Namespace: tests"),
        (&["images", "-v", "--digests", "--pinned"], "RepoDigests"),
        (&["images", "--digests", "busybox"], ""),
        (&["inspect", "-o", "yaml", &two], "CONTAINER_RUNNING"),
        (&["inspect", "-o", "table", &one], "Exited"),
        (&["inspectp", "-o", "go-template", "--template", "{{.status.state}}", &pod_one], "READY"),
        (&["inspecti", "-q", "-o", "table", &image], "busybox"),
        (&["info", "-q", "-o", "yaml"], "NetworkReady"),
        (&["imagefsinfo", "-o", "table"], "/data"),
        (&["stats", "--seconds", "0", "--id", &two], "main"),
        (&["stats", "-a", "-o", "yaml"], &two),
        (&["statsp", "--seconds", "0", "--id", &pod_two], "two"),
        (&["metricsp", "-o", "yaml"], "container_last_seen"),
        (&["exec", "--transport", "websocket", &two, "hostname"], ""),
        (&["exec", "-s", "--timeout", "5", &two, "echo", "in time"], "in time"),
    ] {
        let said = good(&node, args);
        assert!(said.contains(says), "{args:?}: {says:?} in {said}");
    }
}

#[tokio::test]
async fn logs_are_cut_as_asked_and_everything_is_removed_at_once() {
    if !there("logs_are_cut_as_asked_and_everything_is_removed_at_once") {
        return;
    }
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = format!("seq 1 5; {WAIT}");
    let (pod_file, file) = configs(&node, "logs", &image, &script);
    let made = good(&node, &["run", "--with-pull", &file, &pod_file]);
    log_is(&node, &made, "1\n2\n3\n4\n5\nhello\n").await;
    for (args, wanted) in [
        (&["--tail", "2"][..], "5\nhello"),
        (&["--stream", "stderr"], ""),
        (&["--limit-bytes", "4", "--stream", "stdout"], "1\n2"),
        (&["--since", "1h", "--tail", "1"], "hello"),
    ] {
        let said = finish(command(&node, &["logs"]).args(args).arg(&made)).good();
        assert_eq!(said.trim(), wanted, "{args:?}");
    }
    assert!(good(&node, &["logs", "--timestamps", &made]).contains("T"));
    let _said = good(&node, &["logs", "--reopen", &made]);
    assert_eq!(good(&node, &["exec", "-s", &made, "echo", "on"]), "on");
    let refused = crictl(&node, &["rm", &made]);
    assert_ne!(refused.code, 0, "it runs: {refused:?}");
    let _said = good(&node, &["rm", "--force", &made]);
    let refused = crictl(&node, &["rmi", "localhost/none:1"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    let [_, one, ..] = two_pods(&node, &image);
    assert!(good(&node, &["rmi", "--prune"]).is_empty(), "the image is in use");
    let _said = good(&node, &["stop", "--all"]);
    let _said = good(&node, &["rm", "--all"]);
    assert_ne!(crictl(&node, &["inspect", &one]).code, 0);
    let _said = good(&node, &["rmp", "--all", "--force"]);
    assert!(good(&node, &["rmi", "--prune"]).contains("Deleted"));
    node.nothing_is_left().await;
}

#[test]
fn no_subcommand_of_crictl_is_left_out() {
    if !there("no_subcommand_of_crictl_is_left_out") {
        return;
    }
    let help = finish(Command::new(paths::crictl().or_fail("find crictl")).arg("--help")).good();
    let commands = help.lines().skip_while(|line| *line != "COMMANDS:").skip(1);
    let names = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(|name| name.trim_end_matches(',')));
    let names: BTreeSet<&str> = names.collect();
    let known: BTreeSet<&str> = OF_ITSELF.into_iter().chain(WALKED).collect();
    assert_eq!(names, known, "crictl's subcommands, and those that are walked here");
}
