// SPDX-License-Identifier: Apache-2.0
//! Names as kubectl's users write them: `-n NAMESPACE`, `-c CONTAINER`, also of containers that have ended; and the times
//! of `hull events`.

use hull_tests::{ExpectExt as _, Node, eventually, fixture, node};
use serde_json::Value;
use std::io::Read as _;
use std::process::Stdio;

/// The output of a command as JSON lines.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).or_fail("read JSON")).collect()
}

/// Plays a pod `web` with an init container and two that run.
async fn play(node: &Node, namespace: &str) {
    let image = fixture::busybox();
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: {namespace}}}\nspec:\n  restartPolicy: Never\n  \
         initContainers:\n  - {{name: setup, image: '{image}', command: [echo, 'prepared {namespace}']}}\n  \
         containers:\n  - {{name: app, image: '{image}', command: [sh, -c, 'echo app {namespace}; sleep 1000']}}\n  \
         - {{name: side, image: '{image}', command: [sh, -c, 'echo side; sleep 2000']}}\n"
    );
    let file = node::write(&node.host_dir(), "web.yaml", &text).display().to_string();
    let _rows = node.hull(&["play", "kube", &file]).good();
    eventually("it prints", || async {
        let said = node.hull(&["logs", "-n", namespace, "-c", "app", "web"]);
        if said.stdout == format!("app {namespace}\n") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

#[tokio::test]
async fn pods_of_one_name_are_told_apart_by_namespace_and_their_containers_by_c() {
    let node = Node::start().await;
    play(&node, "shop").await;
    play(&node, "test").await;
    let refused = node.hull(&["logs", "-c", "app", "web"]);
    assert!(refused.code == 1 && refused.stderr.contains("it may be"), "{refused:?}");
    let good = |args: &[&str]| node.hull(args).good();
    assert_eq!(good(&["logs", "-n", "shop", "-c", "setup", "web"]), "prepared shop\n");
    assert_eq!(good(&["logs", "--namespace", "test", "-c", "app", "-n", "1", "web"]), "app test\n");
    assert_eq!(good(&["exec", "-n", "shop", "-c", "app", "web", "echo", "hi"]), "hi\n");
    assert_eq!(good(&["exec", "web", "-n", "shop", "-c", "side", "--", "echo", "-n", "hi"]), "hi");
    assert!(good(&["top", "-n", "shop", "-c", "side", "web"]).contains("sleep 2000"));
    let refused = node.hull(&["exec", "-n", "shop", "-c", "none", "web", "true"]);
    assert!(refused.code == 125 && refused.stderr.contains("web/none"), "{refused:?}");
    for args in [
        &["exec", "-n", "shop", "-c", "setup", "web", "true"][..],
        &["top", "-n", "shop", "-c", "setup", "web"],
        &["attach", "-n", "shop", "-c", "setup", "web"],
    ] {
        let refused = node.hull(args);
        let says = refused.stderr.contains("it has exited with code 0, at 20");
        assert!(refused.code != 0 && says, "{args:?}: {refused:?}");
    }
    let explained = good(&["explain", "-n", "shop", "-c", "setup", "web"]);
    assert!(explained.starts_with("container shop/web/setup: "), "{explained}");
    // One of three runs: it is the one that is meant.
    let _named = good(&["stop", "-t", "0", "-n", "shop", "web/side"]);
    assert_eq!(good(&["exec", "-n", "shop", "web", "echo", "hi"]), "hi\n");
    let stopped =
        good(&["ps", "-a", "-n", "shop", "--filter", "name=side", "--format", "{{.state}}"]);
    assert_eq!(stopped.trim(), "exited");
    for args in [
        &["inspect", "-n", "none", "web/app"][..],
        &["stop", "-n", "none", "web"],
        &["rm", "-f", "-n", "none", "web"],
        &["kill", "-n", "none", "web/app"],
        &["wait", "-n", "none", "web/app"],
        &["pause", "-n", "none", "web"],
        &["restart", "-n", "none", "web/app"],
        &["cp", "-n", "none", "web/app:/etc/passwd", "-"],
        &["port", "-n", "none", "web"],
        &["stats", "-n", "none", "web"],
        &["inspectp", "-n", "none", "web"],
        &["stopp", "-n", "none", "web"],
        &["rmp", "-f", "-n", "none", "web"],
        &["port-forward", "-n", "none", "web", ":80"],
        &["audit", "-n", "none", "web"],
        &["update", "-n", "none", "--memory", "64m", "web/app"],
    ] {
        let refused = node.hull(args);
        assert!(
            refused.code != 0 && refused.stderr.contains("cannot find"),
            "{args:?}: {refused:?}"
        );
    }
    let _named = good(&["rm", "-f", "-n", "shop", "web"]);
    let left = good(&["pods", "--format", "{{.names}}"]);
    assert_eq!(left.trim(), "test/web");
    let _named = good(&["rmp", "-f", "-n", "test", "web"]);
    node.nothing_is_left().await;
}

#[tokio::test]
async fn events_have_a_beginning_and_an_end() {
    let node = Node::start().await;
    let image = fixture::busybox();
    assert_eq!(node.hull(&["run", "--rm", "--name", "one", &image, "sh", "-c", "exit 3"]).code, 3);
    let ask = |more: &[&str]| {
        let ran = node.hull(&[&["events", "-o", "jsonl"][..], more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    };
    let told = ask(&["--since", "10s", "--until", "0s", "--filter", "kind=container"]);
    let told = lines(&told.stdout);
    let kinds: Vec<&str> = told.iter().filter_map(|of| of["type"].as_str()).collect();
    assert_eq!(kinds, ["created", "started", "stopped", "deleted"], "{told:?}");
    assert_eq!(
        (&told[2]["exitCode"], &told[3]["name"]),
        (&3.into(), &"hull/one/one".into()),
        "{told:?}"
    );
    let all = ask(&["--until", "0s"]);
    assert!(all.stderr.is_empty() && lines(&all.stdout).len() > 4, "{all:?}");
    let later = told[2]["time"].as_str().or_fail("have a time");
    let late = ask(&["--since", later, "--until", "0s", "--filter", "kind=container"]);
    assert_eq!(lines(&late.stdout).len(), 2, "{late:?}");
    assert_eq!(ask(&["--until", "1h"]).stdout, "");
    // A position that is not kept any more.
    let gone = ask(&["--since", "1000", "--until", "0s", "--count", "1"]);
    assert!(gone.stderr.contains("are not kept any more"), "{gone:?}");
    assert_eq!(lines(&gone.stdout).len(), 1);
    let bad = node.hull(&["events", "--since", "yesterday"]);
    assert!(bad.code != 0 && bad.stderr.contains("such as 10m"), "{bad:?}");
    // What is to come ends as well.
    let began = std::time::Instant::now();
    let mut coming = node.hull_command(&["events", "-o", "jsonl", "-n", "none", "--count", "1"]);
    let mut coming = coming.stdout(Stdio::piped()).spawn().or_fail("read events");
    let end = time_in(1);
    assert_eq!(ask(&["--since", "0s", "--until", &end, "-n", "none"]).stdout, "");
    assert!(began.elapsed().as_millis() >= 500, "it ended at once");
    coming.kill().or_fail("end the reader");
    let mut text = String::new();
    coming.stdout.take().or_fail("have its stdout").read_to_string(&mut text).or_fail("read it");
    let _status = coming.wait().or_fail("reap the reader");
    assert_eq!(text, "", "events of other namespaces");
}

/// The time of day in so many seconds, in seconds since 1970.
fn time_in(seconds: u64) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    (since.or_fail("read the clock").as_secs() + seconds + 1).to_string()
}
