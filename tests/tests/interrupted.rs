// SPDX-License-Identifier: Apache-2.0
//! Commands and daemons that are interrupted: by signals, by the end of the daemon, by an input that cannot
//! be read, by output that nobody takes.

use hull_tests::shell::{finish, run};
use hull_tests::terminal::Terminal;
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A script that says when it is ready, and stops when it is asked to.
const STOPS: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done";

/// A command of hull with pipes at all of its streams.
fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().or_fail("start hull")
}

/// Waits for the end of a command, whose stdin may stay open.
async fn ended(child: &mut Child) -> ExitStatus {
    eventually("hull ends", || {
        let status = child.try_wait().or_fail("wait for hull").ok_or_else(|| "it runs".to_owned());
        async move { status }
    })
    .await
}

/// All that a command that has ended has printed as errors.
fn errors(child: &mut Child) -> String {
    let mut text = String::new();
    let mut stderr = child.stderr.take().or_fail("take stderr");
    stderr.read_to_string(&mut text).or_fail("read stderr");
    text
}

fn send(signal: &str, pid: u32) {
    let _sent = run("kill", [format!("-{signal}"), pid.to_string()]).good();
}

/// Waits until a command has no connection to the daemon's streaming server: its session has ended.
async fn session_ended(pid: u32) {
    eventually("the session has ended", || async {
        // proc_pid_net(5): the tenth field of a line of `tcp` is the inode.
        let tcp = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).or_fail("read tcp");
        let inodes: Vec<_> =
            tcp.lines().filter_map(|line| line.split_whitespace().nth(9)).collect();
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).or_fail("list descriptors");
        let open = fds.flatten().filter(|fd| {
            let to = std::fs::read_link(fd.path()).unwrap_or_default();
            let inode = to.to_str().and_then(|to| to.strip_prefix("socket:[")?.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(&inode))
        });
        let count = open.count();
        if count == 0 { Ok(()) } else { Err(format!("{count} connections")) }
    })
    .await;
}

#[tokio::test]
async fn input_that_is_cut_stops_the_container_and_is_a_failure() {
    let mut node = Node::start().await;
    // It ends well when its input ends, and only then.
    let script = "read a; echo got $a; cat > /dev/null; echo all of it";
    let image = fixture::busybox();
    let mut child = piped(
        &mut node.hull_command(&["run", "--name", "reader", "-i", &image, "sh", "-c", script]),
    );
    let mut stdin = child.stdin.take().or_fail("take stdin");
    stdin.write_all(b"one\n").or_fail("write");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().or_fail("take stdout"));
    stdout.read_line(&mut line).or_fail("read");
    assert_eq!(line, "got one\n");
    node.kill();
    node.start_again().await;
    let status = ended(&mut child).await;
    let errors = errors(&mut child);
    assert_eq!(status.code(), Some(125), "{errors}");
    assert!(errors.contains("cannot pass on all of stdin to the container"), "{errors}");
    assert!(errors.contains("hint: the container got only a part"), "{errors}");
    drop(stdin);
    let _removed = node.hull(&["rm", "-f", "reader"]).good();
}

#[tokio::test]
async fn a_restart_after_the_end_of_the_input_is_not_noticed() {
    let mut node = Node::start().await;
    let image = fixture::busybox();
    let script = "cat; echo end; until [ -e /go ]; do sleep 0.02; done; exit 3";
    let mut child = piped(
        &mut node.hull_command(&["run", "--name", "reader", "-i", &image, "sh", "-c", script]),
    );
    let mut stdin = child.stdin.take().or_fail("take stdin");
    stdin.write_all(b"all\n").or_fail("write");
    drop(stdin);
    let mut stdout = BufReader::new(child.stdout.take().or_fail("take stdout")).lines();
    for expected in ["all", "end"] {
        assert_eq!(stdout.next().or_fail("read a line").or_fail("read a line"), expected);
    }
    session_ended(child.id()).await;
    node.kill();
    node.start_again().await;
    let _touched = node.hull(&["exec", "reader", "touch", "/go"]).good();
    let status = ended(&mut child).await;
    assert_eq!(status.code(), Some(3), "{}", errors(&mut child));
    let _removed = node.hull(&["rm", "-f", "reader"]).good();
}

#[tokio::test]
async fn a_run_whose_input_cannot_be_passed_on_does_not_wait_for_ever() {
    let node = Node::start().await;
    let image = fixture::busybox();
    // Its loopback is not the daemon's, so no session can be opened.
    let run = node.hull_command(&["run", "--rm", "-i", &image, "sh", "-c", STOPS]);
    let mut elsewhere = Command::new("unshare");
    elsewhere.arg("--net").arg(run.get_program()).args(run.get_args());
    let mut child = piped(&mut elsewhere);
    let status = ended(&mut child).await;
    let text = errors(&mut child);
    assert_eq!(status.code(), Some(125), "{text}");
    assert!(text.contains("cannot pass on all of stdin"), "{text}");
    // A directory opens, and cannot be read.
    let directory = || File::open("/").or_fail("open a directory");
    let run = ["run", "--rm", "-i", &image, "sh", "-c", STOPS];
    let ran = finish(node.hull_command(&run).stdin(directory()));
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.stderr.contains("read stdin"), "{ran:?}");
    let _id = node.hull(&["run", "-d", "--name", "web", &image, "sleep", "1000000"]).good();
    let ran = finish(node.hull_command(&["exec", "-i", "web", "cat"]).stdin(directory()));
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.stderr.contains("read stdin"), "{ran:?}");
    // A container that does not wait for its input has its own exit code.
    for _ in 0..5 {
        let mut run = node.hull_command(&["run", "--rm", "-i", &image, "sh", "-c", "exit 4"]);
        let ran = finish(run.stdin(File::open("/dev/zero").or_fail("open /dev/zero")));
        assert_eq!(ran.code, 4, "{ran:?}");
    }
    let _removed = node.hull(&["rm", "-f", "web"]).good();
    node.nothing_is_left().await;
}

/// It has closed its output, so its client waits for its exit alone.
#[tokio::test]
async fn an_attach_without_output_ends_with_each_signal() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "read x; echo ready; exec >&- 2>&-; exec sleep 1000000";
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let name = signal.to_lowercase();
        let run = ["run", "-d", "-i", "--name", &name, &image, "sh", "-c", script];
        let _id = node.hull(&run).good();
        let mut child = piped(&mut node.hull_command(&["attach", &name]));
        let mut stdin = child.stdin.take().or_fail("take stdin");
        stdin.write_all(b"\n").or_fail("write");
        let mut ready = [0; 6];
        child.stdout.as_mut().or_fail("take stdout").read_exact(&mut ready).or_fail("read");
        session_ended(child.id()).await;
        send(signal, child.id());
        let status = ended(&mut child).await;
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{signal}");
        let still = node.hull(&["exec", &name, "true"]);
        assert_eq!(still.code, 0, "attach ends alone: {still:?}");
        let _removed = node.hull(&["rm", "-f", &name]).good();
    }
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_second_signal_kills_the_container_at_a_terminal() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.1; done";
    let run = node.hull_command(&["run", "--rm", "-it", &image, "sh", "-c", script]);
    let mut terminal = Terminal::start(&run, (80, 24));
    terminal.wait_for("ready\r\n").await;
    let began = Instant::now();
    send("TERM", terminal.pid());
    session_ended(terminal.pid()).await;
    send("TERM", terminal.pid());
    assert_eq!(terminal.finish(), 137, "{}", terminal.screen());
    // The grace period is ten seconds.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn each_signal_stops_the_container_of_a_run_with_input() {
    let node = Node::start().await;
    let image = fixture::busybox();
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let run = ["run", "--rm", "-i", &image, "sh", "-c", STOPS];
        let mut child = piped(&mut node.hull_command(&run));
        let _open = child.stdin.take();
        let mut ready = [0; 6];
        child.stdout.as_mut().or_fail("take stdout").read_exact(&mut ready).or_fail("read");
        send(signal, child.id());
        let status = ended(&mut child).await;
        assert_eq!(status.code(), Some(7), "{signal}: {}", errors(&mut child));
    }
    node.nothing_is_left().await;
}

/// nohup(1) starts a program with SIGHUP ignored.
#[tokio::test]
async fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run = node.hull_command(&["run", "--rm", &image, "sh", "-c", STOPS]);
    let mut nohup = Command::new("nohup");
    let mut child = piped(nohup.arg(run.get_program()).args(run.get_args()));
    let mut ready = [0; 6];
    child.stdout.as_mut().or_fail("take stdout").read_exact(&mut ready).or_fail("read");
    send("HUP", child.id());
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.or_fail("read its status");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).or_fail("find it");
    let ignored = u64::from_str_radix(ignored.trim(), 16).or_fail("parse it");
    assert_eq!(ignored & 1, 1, "SIGHUP is not caught: {status}");
    send("TERM", child.id());
    assert_eq!(ended(&mut child).await.code(), Some(7), "{}", errors(&mut child));
    node.nothing_is_left().await;
}

/// The reader of hull's output is a pipe that is full.
#[tokio::test]
async fn output_that_nobody_takes_delays_no_signal() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script =
        "trap 'exit 7' TERM; while :; do echo 0123456789012345678901234567890123456789; done";
    let run = ["run", "--name", "loud", &image, "sh", "-c", script];
    let mut child = piped(&mut node.hull_command(&run));
    eventually("more than a pipe of output was logged", || async {
        let log = run_log_bytes(&node);
        if log > 1 << 20 { Ok(()) } else { Err(format!("{log} bytes")) }
    })
    .await;
    send("TERM", child.id());
    eventually("the container has stopped", || async {
        let shown = node.hull(&["ps", "-a"]);
        if shown.stdout.contains("exited") { Ok(()) } else { Err(shown.stdout) }
    })
    .await;
    // It waits for its reader only: the next signal ends it, or the third one if it has not seen the exit yet.
    let status = eventually("hull ends", || {
        send("TERM", child.id());
        let status = child.try_wait().or_fail("wait for hull").ok_or_else(|| "it runs".to_owned());
        async move { status }
    });
    assert_eq!(status.await.code(), Some(143), "{}", errors(&mut child));
    let _removed = node.hull(&["rm", "-f", "loud"]).good();
    node.nothing_is_left().await;
}

/// The size of the logs of `hull run` on this node.
fn run_log_bytes(node: &Node) -> u64 {
    let pods = std::fs::read_dir(node.data_dir().join("run-logs")).into_iter().flatten().flatten();
    pods.filter_map(|pod| pod.path().join("0.log").metadata().ok()).map(|of| of.len()).sum()
}

#[tokio::test]
async fn a_terminal_that_fell_behind_shows_nothing_twice() {
    const LINES: u64 = 2_000_000;
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = format!("seq 1 {LINES}; exit 3");
    let mut child = piped(
        &mut node.hull_command(&["run", "--name", "loud", "-t", &image, "sh", "-c", &script]),
    );
    eventually("the container has ended, although nobody reads", || async {
        let shown = node.hull(&["ps", "-a"]);
        if shown.stdout.contains("exited") { Ok(()) } else { Err(shown.stdout) }
    })
    .await;
    let errors = std::thread::spawn({
        let mut stderr = child.stderr.take().or_fail("take stderr");
        move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).or_fail("read stderr");
            text
        }
    });
    let stdout = BufReader::new(child.stdout.take().or_fail("take stdout"));
    let mut last = 0;
    for line in stdout.lines() {
        let line = line.or_fail("read a line");
        // The last line before the break may be cut.
        let Some(line) = line.strip_suffix('\r') else { continue };
        let number: u64 = line.parse().or_fail("parse a line");
        assert!(number > last, "{number} comes after {last}");
        last = number;
    }
    let errors = errors.join().unwrap();
    assert_eq!(ended(&mut child).await.code(), Some(3), "{errors}");
    assert!(last < LINES && errors.contains("output is missing here"), "{last}: {errors}");
    let _removed = node.hull(&["rm", "-f", "loud"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn an_import_that_is_refused_does_not_wait_for_the_rest_of_the_archive() {
    let node = Node::start_with("[image]\narchive_bytes_max = 65536\n").await;
    let mut child = piped(&mut node.hull_command(&["import", "-"]));
    let mut stdin = child.stdin.take().or_fail("take stdin");
    // The daemon refuses the first piece of a mebibyte, and the next one does not come.
    stdin.write_all(&vec![0; (1 << 20) + 1]).or_fail("write");
    let status = ended(&mut child).await;
    let errors = errors(&mut child);
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("archive_bytes_max"), "{errors}");
    drop(stdin);
}

#[tokio::test]
async fn a_daemon_that_is_asked_twice_to_end_does_not_wait_for_calls() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let call = tokio::spawn({
        let (cri, id) = (node.cri(), id.clone());
        async move { cri.exec_for(&id, &["sh", "-c", "touch /begun; exec sleep 1000"], 300).await }
    });
    eventually("the call is under way", || async {
        let found = cri.exec(&id, &["test", "-e", "/begun"]).await.or_fail("exec");
        if found.code == 0 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    send("TERM", u32::try_from(node.daemon_pid()).or_fail("read its pid"));
    eventually("the daemon waits for the call", || async {
        let log = node.daemon_log();
        if log.contains("shutdown requested; calls") { Ok(()) } else { Err(log) }
    })
    .await;
    // It would wait for twenty seconds.
    let began = Instant::now();
    node.terminate();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    call.await.or_fail("join").unwrap_err();
    node.start_again().await;
    assert_eq!(node.cri().exec(&id, &["true"]).await.or_fail("exec").code, 0);
}
