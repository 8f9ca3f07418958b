// SPDX-License-Identifier: Apache-2.0
//! A container that is started again, by its policy or by a person, is the same one: its id, its files, its log.

use hull_tests::image::Image;
use hull_tests::shell::finish;
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Counts its runs in a file of its own, and ends.
const COUNTS: &str = "echo x >> /runs; echo run $(wc -l < /runs); exit 1";

/// The output of a command as JSON.
fn output(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).or_fail("read JSON")
}

/// The container with this id, as `ps` lists it.
fn container(node: &Node, id: &str) -> Value {
    let all = output(node, &["ps", "-a", "-o", "json"]);
    let found = all.as_array().and_then(|all| all.iter().find(|of| of["id"] == id));
    found.cloned().unwrap_or_default()
}

/// Waits until a container is in a state and in this attempt or a later one.
async fn reaches(node: &Node, id: &str, state: &str, attempt: u64) -> Value {
    eventually("the container has its state", || async {
        let now = container(node, id);
        let is_it = now["state"] == state && now["attempt"].as_u64() >= Some(attempt);
        if is_it { Ok(now) } else { Err(now.to_string()) }
    })
    .await
}

/// Kills the first process of a container on the host.
fn kill_process(node: &Node, id: &str) {
    let pid = output(node, &["inspect", id])["info"]["pid"].as_i64().or_fail("find the process");
    let pid = i32::try_from(pid).or_fail("read the pid");
    assert!(pid > 1, "{pid}");
    kill(Pid::from_raw(pid), Signal::SIGKILL).or_fail("kill the process");
}

#[tokio::test]
async fn the_id_that_was_printed_is_good_in_every_command_after_a_restart() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let cidfile = node.host_dir().join("cid").display().to_string();
    let script = "echo up; sleep 1000";
    let run = [
        "run",
        "-d",
        "--name",
        "svc",
        "--cidfile",
        &cidfile,
        "--restart",
        "always",
        &image,
        "sh",
        "-c",
        script,
    ];
    let id = node.hull(&run).good().trim().to_owned();
    assert_eq!(fs::read_to_string(&cidfile).or_fail("read the file").trim(), id);
    let _out = node.hull(&["exec", &id, "sh", "-c", "echo kept > /kept"]).good();
    kill_process(&node, &id);
    let _now = reaches(&node, &id, "running", 1).await;
    assert_eq!(node.hull(&["exec", &id, "cat", "/kept"]).good(), "kept\n");
    let _named = node.hull(&["restart", "-t", "0", &id]).good();
    let now = reaches(&node, &id, "running", 2).await;
    assert_eq!((&now["restarts"], &now["id"]), (&0.into(), &Value::from(id.as_str())), "{now}");
    assert_eq!(node.hull(&["exec", &id, "cat", "/kept"]).good(), "kept\n");
    eventually("each run has printed its line", || async {
        let all = node.hull(&["logs", &id]).good();
        if all == "up\nup\nup\n" { Ok(()) } else { Err(all) }
    })
    .await;
    assert_eq!(node.hull(&["logs", "--previous", &id]).good(), "up\n");
    assert_eq!(node.hull(&["logs", "--previous", "--tail", "5", &id]).good(), "up\n");
    let info = output(&node, &["inspect", &id])["info"].clone();
    let how = &info["previousRun"]["state"]["Exited"]["how"];
    assert_eq!(how["Signal"]["signal"], 9, "{info}");
    assert!(node.hull(&["top", &id]).good().contains("sleep 1000"));
    let kept = node.host_dir().join("copy").display().to_string();
    let _out = node.hull(&["cp", &format!("{id}:/kept"), &kept]).good();
    assert_eq!(fs::read_to_string(&kept).or_fail("read the copy"), "kept\n");
    let explained = node.hull(&["explain", &id]).good();
    assert!(explained.contains("it was restarted 2 times"), "{explained}");
    let mut waiting = node.hull_command(&["wait", &id]);
    let mut waiting = waiting.stdout(Stdio::piped()).spawn().or_fail("wait for it");
    let _named = node.hull(&["stop", "-t", "0", &id]).good();
    let mut code = String::new();
    waiting.stdout.take().or_fail("have its stdout").read_to_string(&mut code).or_fail("read it");
    assert!(waiting.wait().or_fail("wait for it").success() && code == "137\n", "{code}");
    // The files are also there for one that does not run.
    let _out = node.hull(&["cp", &format!("{id}:/kept"), &kept]).good();
    let _named = node.hull(&["rm", &id]).good();
    node.nothing_is_left().await;
}

/// The state in the record of a container.
fn recorded(node: &Node, id: &str) -> String {
    let path = node.state_dir().join("containers").join(format!("{id}.json"));
    let text = fs::read_to_string(path).or_fail("read the record");
    let record: Value = serde_json::from_str(&text).or_fail("read JSON");
    let state = &record["record"]["state"];
    let name = state.as_str().or_else(|| state.as_object()?.keys().next().map(String::as_str));
    name.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_daemon_that_is_killed_at_any_moment_loses_no_run_and_no_file() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "counts", "--restart", "always", &image, "sh", "-c", COUNTS];
    let id = node.hull(&run).good().trim().to_owned();
    let mut attempt = 0;
    // The moments of a restart: it waits, it is recorded and not started yet, it runs.
    let moments = ["Exited", "Created", "Running", "Created", "Exited", "Created", "Created"];
    for moment in moments {
        eventually(format!("its record says {moment}"), || async {
            let now = recorded(&node, &id);
            if now == moment { Ok(()) } else { Err(now) }
        })
        .await;
        node.kill();
        node.start_again().await;
        let now = eventually("it was started again", || async {
            let now = container(&node, &id);
            let is_later = now["attempt"].as_u64() > Some(attempt);
            if is_later { Ok(now) } else { Err(now.to_string()) }
        })
        .await;
        attempt = now["attempt"].as_u64().or_fail("have an attempt");
    }
    let _named = node.hull(&["stop", "-t", "0", &id]).good();
    let last = reaches(&node, &id, "exited", attempt).await;
    let runs = last["attempt"].as_u64().or_fail("have an attempt") + 1;
    let path = node.host_dir().join("runs").display().to_string();
    let _out = node.hull(&["cp", &format!("{id}:/runs"), &path]).good();
    let counted = fs::read_to_string(&path).or_fail("read the copy").lines().count() as u64;
    assert_eq!(counted, runs, "each attempt has run once: {last}");
    let wanted: String = (1..=runs).map(|number| format!("run {number}\n")).collect();
    assert_eq!(node.hull(&["logs", &id]).good(), wanted);
    let _named = node.hull(&["start", &id]).good();
    let _now = reaches(&node, &id, "restarting", runs).await;
    let _named = node.hull(&["rm", "-f", &id]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_start_of_an_exited_container_is_no_start_of_cri() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let ran = node.hull(&["run", "--name", "once", &image, "sh", "-c", "echo ran; exit 3"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let id = output(&node, &["ps", "-a", "-o", "json"])[0]["id"]
        .as_str()
        .or_fail("have an id")
        .to_owned();
    let refused = node.cri().start(&id).await.unwrap_err();
    assert!(refused.message().contains("while it is exited"), "{refused}");
    let refused = node.hull(&["exec", "once", "true"]);
    let words = ["it has exited with code 3", "at 20", "hull start once"];
    assert!(refused.code == 125, "{refused:?}");
    assert!(words.iter().all(|word| refused.stderr.contains(word)), "{refused:?}");
    let _named = node.hull(&["start", "once"]).good();
    assert_eq!(node.hull(&["wait", &id]).good(), "3\n");
    assert_eq!(node.hull(&["logs", "once"]).good(), "ran\nran\n");
    let _named = node.hull(&["rm", "once"]).good();
    node.nothing_is_left().await;
}

/// An image that defines volumes: one with content, one that no layer has.
fn with_volumes() -> String {
    fixture::pushed("started-again", || {
        let layer =
            fixture::busybox_layer().dir("data", 0o777).file_of("data/seed", 0o644, 1000, "seed\n");
        let volumes = json!({"/data": {}, "/not/there": {}});
        Image::new(vec![layer.tar()], json!({"Cmd": ["sh"], "Volumes": volumes}))
    })
}

#[tokio::test]
async fn volumes_that_the_image_defines_are_kept_and_missing_sources_are_made() {
    let node = Node::start().await;
    let image = with_volumes();
    let source = node.host_dir().join("source");
    let volume = format!("{}:/from-host", source.display());
    let script = "cat /data/seed; cat /data/log /not/there/log; echo ran >> /data/log; echo was >> /not/there/log; ls /from-host";
    for root in [&[][..], &["--read-only"]] {
        fs::create_dir(&source).or_fail("make the source of a volume");
        let run = [
            &["run", "-d", "--name", "vol", "-v", &volume][..],
            root,
            &[&image, "sh", "-c", script],
        ];
        let id = node.hull(&run.concat()).good().trim().to_owned();
        assert_eq!(node.hull(&["wait", &id]).good(), "0\n");
        fs::remove_dir(&source).or_fail("remove the source of the volume");
        let _named = node.hull(&["start", "vol"]).good();
        assert_eq!(node.hull(&["wait", &id]).good(), "0\n");
        let said = node.hull(&["logs", "vol"]);
        assert_eq!(said.stdout, "seed\nseed\nran\nwas\n", "{said:?}");
        assert!(source.is_dir());
        fs::remove_dir(&source).or_fail("remove the source of the volume");
        let _named = node.hull(&["rm", "vol"]).good();
    }
    node.nothing_is_left().await;
}

#[tokio::test]
async fn rm_f_kills_at_once_whatever_the_grace_period() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let deaf = "trap '' TERM; echo deaf; while true; do sleep 1000; done";
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: deaf}}\nspec:\n  terminationGracePeriodSeconds: 300\n  containers:\n  \
         - {{name: one, image: '{image}', command: [sh, -c, \"{deaf}\"]}}\n  \
         - {{name: two, image: '{image}', command: [sh, -c, \"{deaf}\"]}}\n"
    );
    let file = hull_tests::node::write(&node.host_dir(), "deaf.yaml", &text).display().to_string();
    let _rows = node.hull(&["play", "kube", &file]).good();
    for name in ["deaf/one", "deaf"] {
        let began = Instant::now();
        let refused = node.hull(&["rm", name]);
        assert!(refused.code == 1 && refused.stderr.contains("hull rm -f"), "{refused:?}");
        let _named = node.hull(&["rm", "-f", name]).good();
        assert!(began.elapsed() < Duration::from_secs(100), "{name}: {:?}", began.elapsed());
    }
    let mut listed = node.hull_command(&["ps", "-a", "-q"]);
    assert_eq!(finish(&mut listed).good(), "");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn restarts_and_stops_at_the_same_time_end_no_pod() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "trap '' TERM; while :; do sleep 1; done";
    let id = node.hull(&["run", "-d", "--name", "busy", &image, "sh", "-c", script]).good();
    let again = ["restart", "-t", "0", "busy"];
    let all: [&[&str]; 6] =
        [&again, &again, &again, &again, &["stop", "-t", "0", "busy"], &["start", "busy"]];
    let pod = || output(&node, &["pods", "-o", "json"])[0].clone();
    let before = pod();
    for _ in 0..12 {
        let spawn = |args: &&[&str]| {
            let mut command = node.hull_command(args);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().or_fail("run hull")
        };
        for mut child in all.iter().map(spawn).collect::<Vec<_>>() {
            let _code = child.wait().or_fail("wait for hull");
        }
    }
    let _named = node.hull(&["start", "busy"]).good();
    let now = container(&node, id.trim());
    assert_eq!(now["state"], "running", "{now}");
    assert_eq!((&pod()["state"], &pod()["id"]), (&before["state"], &before["id"]));

    let mut stop = node.hull_command(&["stop", "-t", "30", "busy"]);
    let mut stopping = stop.stdout(Stdio::null()).spawn().or_fail("run hull");
    eventually("a start is refused meanwhile", || async {
        let said = node.hull(&["start", "busy"]);
        if said.stderr.contains("being stopped") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    let _named = node.hull(&["rm", "-f", "busy"]).good();
    let _code = stopping.wait().or_fail("wait for hull");
    node.nothing_is_left().await;
}
