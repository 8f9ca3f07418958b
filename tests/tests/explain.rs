// SPDX-License-Identifier: Apache-2.0
//! `hull explain` and `hull trace`: the timelines of what runs and of what is gone, and what is wrong with it.

use hull_tests::shell::run;
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;

/// The account of a name, and the exit code.
fn account(node: &Node, name: &str) -> (Value, i32) {
    let ran = node.hull(&["explain", "-o", "json", name]);
    let account = serde_json::from_str(&ran.stdout).or_fail(format!("read JSON: {}", ran.stderr));
    (account, ran.code)
}

fn names(stages: &Value) -> Vec<&str> {
    let stages = stages.as_array().or_fail("find stages");
    stages.iter().filter_map(|stage| stage["name"].as_str().or(stage["stage"].as_str())).collect()
}

/// The sentences of the findings of one weight.
fn found(account: &Value, weight: &str) -> String {
    let findings = account["findings"].as_array().or_fail("find findings");
    let of_weight = findings.iter().filter(|of| of["weight"] == weight);
    of_weight.map(|of| format!("{}: {}\n", of["about"], of["diagnosis"]["what"])).collect()
}

#[tokio::test]
async fn a_pod_is_explained_while_it_runs_and_when_it_is_gone_by_this_daemon_and_the_next() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "web", &image, "sleep", "1000"]).good();
    let (of_pod, code) = account(&node, "web");
    assert_eq!((code, of_pod["isWell"].as_bool()), (0, Some(true)), "{of_pod:#}");
    let state = of_pod["state"].as_str().unwrap_or_default();
    assert!(of_pod["kind"] == "pod" && state.starts_with("ready, since 20"), "{state}");
    let stages = names(&of_pod["timelines"][0]["stages"]);
    for stage in ["start pod", "monitor", "network", "pause", "cgroup"] {
        assert!(stages.contains(&stage), "{stage} is not in {stages:?}");
    }
    let id = of_pod["id"].as_str().or_fail("find the id").to_owned();

    // The waterfall, in its three forms.
    let text = node.hull(&["trace", "web"]).good();
    assert!(text.contains("start container") && text.contains('█'), "{text}");
    let chart: Value =
        serde_json::from_str(&node.hull(&["trace", "-o", "json", &id]).good()).or_fail("read JSON");
    assert!(names(&chart["stages"]).contains(&"launch"), "{chart:#}");
    assert!(chart["tookUs"].as_u64().is_some_and(|took| took > 0), "{chart:#}");
    let svg = node.hull(&["trace", "-o", "svg", "web"]).good();
    assert!(svg.starts_with("<svg") && svg.contains("network"), "{svg}");

    // A daemon that goes on knows how the pod was started.
    node.restart().await;
    let (of_pod, _) = account(&node, &id);
    assert!(names(&of_pod["timelines"][0]["stages"]).contains(&"network"), "{of_pod:#}");

    // A command that fails is what people look for in a container that is not ready.
    let ran = node.cri().exec(&id_of(&of_pod, "container"), &["sh", "-c", "echo so; exit 3"]).await;
    drop(ran);
    let (of_container, code) = account(&node, "hull/web/web");
    assert_eq!(code, 1, "{of_container:#}");
    assert!(found(&of_container, "warning").contains("exit code 3"), "{of_container:#}");
    assert_eq!(of_container["findings"][0]["failedExec"]["output"], "so");

    let _gone = node.hull(&["rm", "-f", "web"]).good();
    eventually("the pod is known as one that is gone", || async {
        let (gone, code) = account(&node, &id);
        let is_gone = code == 0 && gone["state"] == "removed";
        if is_gone { Ok(()) } else { Err(format!("{code}: {gone:#}")) }
    })
    .await;
    node.restart().await;
    let (gone, _) = account(&node, "web");
    assert_eq!(gone["id"].as_str(), Some(id.as_str()), "{gone:#}");
    assert!(names(&gone["timelines"][0]["stages"]).contains(&"stop pod"), "{gone:#}");
    let unknown = node.hull(&["explain", "nothing"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("hint:"), "{unknown:?}");
}

fn id_of(account: &Value, kind: &str) -> String {
    let timelines = account["timelines"].as_array().or_fail("find timelines");
    let of_kind = timelines.iter().find(|of| of["kind"] == kind).or_fail("find one of the kind");
    of_kind["id"].as_str().or_fail("find its id").to_owned()
}

#[tokio::test]
async fn failures_are_explained_with_layer_and_fix() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let failed = node.hull(&["run", "-d", "--name", "bad", &image, "/no/such/program"]);
    assert_ne!(failed.code, 0, "{failed:?}");
    let (of_bad, code) = account(&node, "bad");
    assert_eq!(code, 1, "{of_bad:#}");
    assert!(found(&of_bad, "failure").contains("/no/such/program"), "{of_bad:#}");
    let text = node.hull(&["explain", "bad"]);
    assert!(text.stdout.contains("layer") && text.stdout.contains("fix"), "{text:?}");

    let _ran = node.hull(&["run", "-d", "--name", "ends", &image, "sh", "-c", "exit 3"]).good();
    eventually("the exit is explained", || async {
        let (of_ends, _) = account(&node, "ends");
        let failures = found(&of_ends, "failure");
        if failures.contains("code 3") { Ok(()) } else { Err(format!("{of_ends:#}")) }
    })
    .await;

    // One that ends while there is no daemon is known to the next one, also when it is removed.
    let _id = node.hull(&["run", "-d", "--name", "missed", &image, "sleep", "1000"]).good();
    let (of_missed, _) = account(&node, "missed");
    let container = id_of(&of_missed, "container");
    let pid = node.cri().pid(&container).await;
    node.kill();
    kill(Pid::from_raw(pid), Signal::SIGKILL).or_fail("kill the container");
    node.start_again().await;
    eventually("the missed end is explained", || async {
        let (of_missed, code) = account(&node, "missed");
        let is_known = code == 1 && found(&of_missed, "failure").contains("signal 9");
        if is_known { Ok(()) } else { Err(format!("{code}: {of_missed:#}")) }
    })
    .await;
    let _gone = node.hull(&["rm", "-f", "missed"]).good();
    let (of_missed, code) = account(&node, &container);
    assert_eq!(code, 1, "{of_missed:#}");

    let refused = "127.0.0.1:1/no/such:1";
    let pulled = node.hull(&["pull", refused]);
    assert_ne!(pulled.code, 0, "{pulled:?}");
    let (of_image, code) = account(&node, refused);
    assert_eq!((code, &of_image["kind"]), (1, &"image".into()), "{of_image:#}");
    assert!(of_image["findings"][0]["diagnosis"]["layer"] == "Image", "{of_image:#}");
    let (of_image, code) = account(&node, &image);
    assert_eq!((code, &of_image["state"]), (0, &"on this node".into()), "{of_image:#}");
}

#[tokio::test]
async fn what_a_daemon_was_killed_too_early_to_write_the_next_one_explains_from_records() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    for (pod, is_killed) in [("ends", true), ("runs", false)] {
        let _id = node.hull(&["run", "-d", "--name", pod, &image, "sleep", "1000"]).good();
        let (account, _) = account(&node, pod);
        let container = id_of(&account, "container");
        let pid = node.cri().pid(&container).await;
        node.kill();
        fs::remove_dir_all(node.names().root.join("state/history"))
            .or_fail("remove what the daemon has written so far");
        if is_killed {
            kill(Pid::from_raw(pid), Signal::SIGKILL).or_fail("kill the container");
        }
        node.start_again().await;
        explained_until_removed(&node, pod, &container, is_killed).await;
    }
}

/// The container is known by its names, also when it is gone.
async fn explained_until_removed(node: &Node, pod: &str, container: &str, is_killed: bool) {
    eventually("it is explained", || async {
        let (account, code) = account(node, pod);
        if code == i32::from(is_killed) { Ok(()) } else { Err(format!("{code}: {account:#}")) }
    })
    .await;
    let (before, _) = account(node, container);
    let _gone = node.hull(&["rm", "-f", pod]).good();
    let (gone, code) = account(node, container);
    assert_eq!((code, &gone["state"]), (i32::from(is_killed), &"removed".into()), "{gone:#}");
    assert_eq!(gone["name"], before["name"], "{gone:#}");
    assert_eq!(found(&gone, "failure").contains("signal 9"), is_killed, "{gone:#}");
    let stages = names(&gone["timelines"][0]["stages"]);
    assert!(stages.contains(&"remove container"), "{gone:#}");
}

#[tokio::test]
async fn a_kill_that_was_requested_a_pause_and_a_cut_link_are_named() {
    let node = Node::start().await;
    let image = fixture::busybox();
    for name in ["killed", "held", "cut"] {
        let _id = node.hull(&["run", "-d", "--name", name, &image, "sleep", "1000"]).good();
    }
    let _none = node.hull(&["pause", "held"]).good();
    let (held, code) = account(&node, "held");
    assert_eq!(code, 1, "{held:#}");
    assert!(found(&held, "warning").starts_with("\"hull/held/held\": \"paused"), "{held:#}");
    let _none = node.hull(&["unpause", "held"]).good();
    assert_eq!(account(&node, "held").1, 0);

    let _none = node.hull(&["kill", "-s", "KILL", "killed"]).good();
    eventually("the kill is known as requested", || async {
        let (killed, code) = account(&node, "killed");
        let is_known = found(&killed, "note").contains("a client of Hull sent SIGKILL");
        if code == 0 && is_known { Ok(()) } else { Err(format!("{code}: {killed:#}")) }
    })
    .await;

    let (cut, _) = account(&node, "cut");
    let id = id_of(&cut, "pod");
    let link = format!("hull{}", &id[..11]);
    let _none = run("ip", ["link", "delete", &link]).good();
    let (cut, code) = account(&node, "cut");
    assert_eq!(code, 1, "{cut:#}");
    assert!(found(&cut, "warning").contains("no network interface"), "{cut:#}");
    let doctor = node.hull(&["doctor"]);
    assert!(doctor.stdout.contains("no network interface"), "{}", doctor.stdout);
}
