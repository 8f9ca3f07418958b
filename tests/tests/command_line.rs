// SPDX-License-Identifier: Apache-2.0
//! The command line of a person against the daemon.

use hull_tests::shell::finish;
use hull_tests::{Node, eventually, fixture, node, paths};
use std::io::Read as _;
use std::process::{Command, Stdio};

#[tokio::test]
async fn hull_run_pulls_runs_and_exits_with_the_containers_code() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let ran = node.hull(&["run", "--rm", &image, "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!(ran.code, 9, "{ran:?}");
    assert_eq!(ran.stdout, "out\n", "{ran:?}");
    assert!(ran.stderr.contains("err\n"), "{ran:?}");
    // The first process of a pid namespace cannot kill itself: its child does.
    let killed = "sh -c 'kill -9 $$'; exit $?";
    let ran = node.hull(&["run", "--rm", &image, "sh", "-c", killed]);
    assert_eq!(ran.code, 137, "{ran:?}");
    assert!(node.cri().pods().await.is_empty(), "--rm removes the pod");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn hull_run_takes_the_usual_options() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let file = node::write(&node.host_dir(), "note", "from the host\n");
    let volume = format!("{}:/note:ro", file.display());
    let script = "cat /note; echo $MINE; pwd; hostname; id -u; touch /x || echo read-only";
    let options = [
        "run",
        "--rm",
        "-v",
        &volume,
        "-e",
        "MINE=yes",
        "--workdir",
        "/srv",
        "--hostname",
        "named",
        "--user",
        "app",
        "--read-only",
        &image,
        "sh",
        "-c",
        script,
    ];
    let ran = node.hull(&options);
    assert_eq!(ran.stdout, "from the host\nyes\n/srv\nnamed\n1000\nread-only\n", "{ran:?}");
}

#[tokio::test]
async fn hull_run_fails_with_a_message_and_leaves_nothing() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let ran = node.hull(&["run", "--rm", &image, "no-such-command"]);
    assert_eq!(ran.code, 127, "{ran:?}");
    assert!(ran.stderr.contains("error: ") && ran.stderr.contains("no-such-command"), "{ran:?}");
    let missing = format!("{}/tests/never-pushed:1", fixture::registry().host);
    let ran = node.hull(&["run", "--rm", &missing]);
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.stderr.contains("never-pushed"), "{ran:?}");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn interrupting_hull_run_stops_and_removes_the_container() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 1000 & wait; done";
    let mut command = node.hull_command(&["run", "--rm", &image, "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut up = [0; 3];
    out.read_exact(&mut up).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let _status = child.wait().unwrap();
    assert_eq!(rest, "bye\n");
    assert!(node.cri().pods().await.is_empty());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_day_with_the_command_line() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let good = |args: &[&str]| node.hull(args).good();
    let said = good(&["pull", &image]);
    assert!(said.contains("sha256:") || said.contains(&image), "{said}");
    assert!(good(&["images"]).contains("tests/busybox"));
    let script = "trap 'exit 0' TERM; echo hello; while true; do sleep 1000 & wait; done";
    let _ids = good(&["run", "-d", "--name", "day", &image, "sh", "-c", script]);
    let listed = good(&["ps"]);
    assert!(listed.contains("day"), "{listed}");
    eventually("the log is there", || async {
        let said = node.hull(&["logs", "day"]);
        if said.stdout == "hello\n" { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    assert_eq!(good(&["exec", "day", "echo", "inside"]), "inside\n");
    assert_eq!(node.hull(&["exec", "day", "sh", "-c", "exit 3"]).code, 3);
    let inspected: serde_json::Value = serde_json::from_str(&good(&["inspect", "day"])).unwrap();
    assert!(inspected.to_string().contains("\"pid\""), "{inspected}");
    assert!(good(&["stats"]).contains("day"));
    let _said = good(&["stop", "day"]);
    assert!(!good(&["ps"]).contains("day"), "a stopped one is listed only with -a");
    assert!(good(&["ps", "-a"]).contains("day"));
    let _said = good(&["rm", "day"]);
    assert!(!good(&["ps", "-a"]).contains("day"));
    let _said = good(&["rmi", &image]);
    assert!(!good(&["images"]).contains("tests/busybox"));
    for pod in node.cri().pods().await {
        let _said = good(&["rm", "-f", &pod.id]);
    }
    node.nothing_is_left().await;
}

#[tokio::test]
async fn commands_that_need_no_daemon_work_without_one() {
    let hull = |args: &[&str]| finish(Command::new(paths::hull()).args(args));
    let defaults = hull(&["config", "default"]).good();
    assert!(defaults.contains("state_dir"), "{defaults}");
    assert!(hull(&["completion", "bash"]).good().contains("hull"));
    assert!(hull(&["--version"]).good().starts_with("hull "));
    let checked = hull(&["check"]);
    assert!(checked.stdout.to_lowercase().contains("overlay"), "{checked:?}");
    let ran = hull(&["--socket", "/nowhere/hull.sock", "ps"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("/nowhere/hull.sock") && ran.stderr.contains("hint: "), "{ran:?}");
}

#[tokio::test]
async fn an_unknown_config_key_is_named_with_the_nearest_known() {
    let file = std::env::temp_dir().join(format!("hull-config-{}.toml", std::process::id()));
    std::fs::write(&file, "state_dri = \"/run/x\"\n").unwrap();
    let ran = finish(Command::new(paths::hull()).args([
        "--config",
        file.to_str().unwrap(),
        "config",
        "show",
    ]));
    std::fs::remove_file(&file).unwrap();
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("state_dri") && ran.stderr.contains("state_dir"), "{ran:?}");
}

#[tokio::test]
async fn an_id_may_be_given_by_its_beginning_or_its_name() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let one = cri.run_idle(&pod, "one", &image).await;
    for name in ["one", &one[..8], &one] {
        assert_eq!(node.hull(&["exec", name, "echo", "x"]).good(), "x\n");
    }
    let ran = node.hull(&["exec", "nobody", "true"]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("nobody"), "{ran:?}");
}
