// SPDX-License-Identifier: Apache-2.0
//! `hull run --restart`: the daemon starts an exited container again, and whatever a person stops stays stopped.

use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The output of a command as JSON.
fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).or_fail("read JSON")
}

/// The only container of the pod, as `ps` lists it.
fn container(node: &Node, pod: &str) -> Value {
    let filter = format!("pod={pod}");
    let all = json(node, &["ps", "-a", "-o", "json", "--filter", &filter]);
    // In the moment of a restart there are two attempts, the newest first.
    all[0].clone()
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
    assert_ne!(now["id"], id.trim());
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
