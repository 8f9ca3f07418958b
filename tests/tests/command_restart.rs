// SPDX-License-Identifier: Apache-2.0
//! `hull run --restart`: the daemon starts an exited container again, and whatever a person stops stays stopped.

use hull_tests::plugin::{Plugin, program};
use hull_tests::{ExpectExt as _, Node, eventually, fixture, node, paths};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json as value};
use std::io::Read as _;
use std::process::Stdio;

/// The output of a command as JSON.
fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).or_fail("read JSON")
}

/// The only container of the pod, as `ps` lists it.
fn container(node: &Node, pod: &str) -> Value {
    let filter = format!("pod={pod}");
    json(node, &["ps", "-a", "-o", "json", "--filter", &filter])[0].clone()
}

/// Waits until the container of the pod is in a state, and in this attempt.
async fn reaches(node: &Node, pod: &str, state: &str, attempt: u64) -> Value {
    eventually("the container has its state", || async {
        let now = container(node, pod);
        if now["state"] == state && now["attempt"] == attempt {
            Ok(now)
        } else {
            Err(now.to_string())
        }
    })
    .await
}

/// Kills the first process of a container on the host.
fn kill_process(node: &Node, pod: &str) {
    let pid = json(node, &["inspect", pod])["info"]["pid"].as_i64().or_fail("find the process");
    let pid = i32::try_from(pid).or_fail("read the pid");
    assert!(pid > 1, "{pid}");
    kill(Pid::from_raw(pid), Signal::SIGKILL).or_fail("kill the process");
}

#[tokio::test]
async fn a_container_runs_again_also_with_the_next_daemon_until_it_is_stopped() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "svc", "--restart", "always", &image, "sleep", "1000"];
    let id = node.hull(&run).good();
    kill_process(&node, "svc");
    let now = reaches(&node, "svc", "running", 1).await;
    assert_eq!((&now["restarts"], &now["restartPolicy"]), (&1.into(), &"always".into()), "{now}");
    assert_eq!(now["id"], id.trim());
    let restart = json(&node, &["inspect", "svc"])["info"]["restart"].clone();
    assert_eq!((&restart["policy"], &restart["count"]), (&"always".into(), &1.into()), "{restart}");
    // It exits while there is no daemon.
    let pid = json(&node, &["inspect", "svc"])["info"]["pid"].as_i64().or_fail("find the process");
    node.kill();
    kill(Pid::from_raw(i32::try_from(pid).or_fail("read the pid")), Signal::SIGKILL)
        .or_fail("kill the process");
    node.start_again().await;
    let _now = reaches(&node, "svc", "running", 2).await;
    let _named = node.hull(&["stop", "-t", "0", "svc"]).good();
    let _now = reaches(&node, "svc", "exited", 2).await;
    node.kill();
    node.start_again().await;
    // What is restarted waits for that from the moment that the daemon has it.
    assert_eq!(container(&node, "svc")["state"], "exited");
    assert_eq!(json(&node, &["inspect", "svc"])["info"]["restart"]["stopped"], true);
    let _named = node.hull(&["start", "svc"]).good();
    assert_eq!(reaches(&node, "svc", "running", 3).await["restarts"], 0);
    let _named = node.hull(&["kill", "svc"]).good();
    let _now = reaches(&node, "svc", "exited", 3).await;
    assert_eq!(json(&node, &["inspect", "svc"])["info"]["restart"]["pending"], false);
    let _named = node.hull(&["rm", "-f", "svc"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn what_a_person_started_again_runs_after_a_copy_and_with_the_next_daemon() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "svc", "--restart", "always", &image, "sleep", "1000"];
    let _id = node.hull(&run).good();
    let _named = node.hull(&["stop", "-t", "0", "svc"]).good();
    let _now = reaches(&node, "svc", "exited", 0).await;
    // A creation that fails leaves it stopped.
    let dir = node.host_dir();
    let pod = r#"{"metadata": {"name": "svc", "namespace": "hull", "uid": "u", "attempt": 0}}"#;
    let pod = node::write(&dir, "pod.json", pod).display().to_string();
    let same = format!("metadata: {{name: svc}}\nimage: {{image: '{image}'}}\n");
    let same = node::write(&dir, "same.yaml", &same).display().to_string();
    let refused = node.hull(&["create-container", "svc", &same, &pod]);
    assert!(refused.code != 0 && refused.stderr.contains("svc"), "{refused:?}");
    assert_eq!(json(&node, &["inspect", "svc"])["info"]["restart"]["stopped"], true);
    // Nobody reads this copy: it holds the stopped container.
    let mut copy = node.hull_command(&["cp", "svc:/", "-"]);
    let mut copy =
        copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().or_fail("start a copy");
    let archive = copy.stdout.as_mut().or_fail("have its stdout");
    archive.read_exact(&mut [0; 512]).or_fail("read its beginning");
    let refused = node.hull(&["start", "svc"]);
    assert!(refused.code == 1 && refused.stderr.contains("being copied"), "{refused:?}");
    // The hold ends with the daemon.
    node.kill();
    node.start_again().await;
    assert_eq!(container(&node, "svc")["state"], "exited");
    let copied = copy.wait_with_output().or_fail("read the copy");
    let said = String::from_utf8_lossy(&copied.stderr);
    assert!(copied.status.code() == Some(1) && said.contains("copy again"), "{said}");
    let _named = node.hull(&["start", "svc"]).good();
    let _now = reaches(&node, "svc", "running", 1).await;
    kill_process(&node, "svc");
    let now = reaches(&node, "svc", "running", 2).await;
    node.kill();
    node.start_again().await;
    let still = container(&node, "svc");
    assert_eq!((&still["id"], &still["state"]), (&now["id"], &"running".into()), "{still}");
    // Also one that was stopped before its first start.
    let create = ["create", "--name", "late", "--restart", "always", &image, "sleep", "1000"];
    let _id = node.hull(&create).good();
    let _named = node.hull(&["stop", "late"]).good();
    let _named = node.hull(&["start", "late"]).good();
    kill_process(&node, "late");
    let _now = reaches(&node, "late", "running", 1).await;
    let _named = node.hull(&["rm", "-f", "svc", "late"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_restart_on_its_way_is_not_held_and_follows_also_a_refused_start() {
    if program().is_none() {
        return paths::cannot_run(
            "a_restart_on_its_way_is_not_held",
            "the plugin for tests (`make tools`)",
        );
    }
    // A plugin has the container wait between its exit and its start.
    let node = Node::start_with("[nri]\nrequest_timeout_ms = 60000\n").await;
    let hangs = value!({"hang": "StopContainer"});
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "svc", "--restart", "always", &image, "sleep", "1000"];
    let _id = node.hull(&run).good();
    let plugin = Plugin::start(&node, "10-holds", &hangs).await;
    kill_process(&node, "svc");
    let _call = plugin.files().wait_for_call("StopContainer").await;
    let copied = node.hull(&["cp", "svc:/etc/passwd", "-"]);
    assert!(copied.code == 1 && copied.stderr.contains("about to be restarted"), "{copied:?}");
    drop(plugin);
    let _now = reaches(&node, "svc", "running", 1).await;
    // A container beside it, in the pid namespace of one that has ended when the restart is to be started.
    let id = node.hull(&["run", "-d", "--name", "one", &image, "sleep", "1000"]).good();
    let dir = node.host_dir();
    let pod = r#"{"metadata": {"name": "one", "namespace": "hull", "uid": "u", "attempt": 0}}"#;
    let pod = node::write(&dir, "pod.json", pod).display().to_string();
    let beside = value!({
        "metadata": {"name": "beside"},
        "image": {"image": image},
        "command": ["sleep", "1000"],
        "annotations": {"hull.run/restart": "always"},
        "linux": {"security_context": {"namespace_options": {"pid": 3, "target_id": id.trim()}}},
    });
    let beside = node::write(&dir, "beside.json", &beside.to_string()).display().to_string();
    let made = node.hull(&["create-container", "one", &beside, &pod]).good();
    let _named = node.hull(&["start", made.trim()]).good();
    let plugin = Plugin::start(&node, "20-holds", &hangs).await;
    kill_process(&node, made.trim());
    let _call = plugin.files().wait_for_call("StopContainer").await;
    let _named = node.hull(&["kill", id.trim()]).good();
    let _code = node.hull(&["wait", id.trim()]).good();
    drop(plugin);
    eventually("the attempt that was not started is tried again", || async {
        let now = json(&node, &["inspect", "beside"]);
        let reason = &now["status"]["reason"];
        let is_next = reason == "StartError" && now["info"]["restart"]["pending"] == true;
        if is_next { Ok(()) } else { Err(now["status"].to_string()) }
    })
    .await;
    assert!(node.daemon_log().contains("container not restarted"), "{}", node.daemon_log());
    let _named = node.hull(&["rm", "-f", "svc", "one"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn failures_are_counted_and_a_restarting_container_is_shown_stopped_and_removed() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run = |name: &str, policy: &str| {
        let run = [
            "run",
            "-d",
            "--name",
            name,
            "--restart",
            policy,
            &image,
            "sh",
            "-c",
            "echo run; exit 3",
        ];
        node.hull(&run).good()
    };
    let _id = run("twice", "on-failure:2");
    // The log goes on with each attempt, and ends with the last.
    assert_eq!(node.hull(&["logs", "-f", "twice"]).good(), "run\nrun\nrun\n");
    let last = reaches(&node, "twice", "exited", 2).await;
    assert_eq!((&last["exitCode"], &last["restarts"]), (&3.into(), &2.into()), "{last}");
    let _id = run("ever", "always");
    let shown = eventually("it waits for its restart", || async {
        let now = container(&node, "ever");
        if now["state"] == "restarting" { Ok(now) } else { Err(now.to_string()) }
    });
    let _now = shown.await;
    let pruned = node.hull(&["prune", "-y"]).good();
    assert!(pruned.contains("twice") && !pruned.contains("ever"), "{pruned}");
    // Wherever in a restart it is: a stop is final.
    for _ in 0..6 {
        let _named = node.hull(&["stop", "-t", "0", "ever"]).good();
        let stopped = eventually("it is stopped", || async {
            let now = container(&node, "ever");
            if now["state"] == "exited" { Ok(now) } else { Err(now.to_string()) }
        });
        let stopped = stopped.await;
        let id = stopped["id"].as_str().or_fail("have an id");
        let restart = json(&node, &["inspect", id])["info"]["restart"].clone();
        assert_eq!((&restart["stopped"], &restart["pending"]), (&true.into(), &false.into()));
        let _named = node.hull(&["start", "ever"]).good();
    }
    let _named = node.hull(&["stop", "-t", "0", "ever"]).good();
    let _named = node.hull(&["start", "ever"]).good();
    let _named = node.hull(&["rm", "-f", "ever"]).good();
    let _id = node.hull(&["create", "--rm", "--name", "brief", &image, "true"]).good();
    let _named = node.hull(&["start", "brief"]).good();
    eventually("the daemon removes a pod of `create --rm`", || async {
        let listed = node.hull(&["ps", "-a", "-q", "--filter", "pod=brief"]).good();
        if listed.is_empty() { Ok(()) } else { Err(listed) }
    })
    .await;
    for (options, word) in [(&["--rm", "-d"][..], "--rm"), (&[], "-d")] {
        let run = [&["run", "--restart", "always"][..], options, &[&image, "true"]].concat();
        let refused = node.hull(&run);
        assert!(refused.code == 125 && refused.stderr.contains(word), "{refused:?}");
    }
    node.nothing_is_left().await;
}
