// SPDX-License-Identifier: Apache-2.0
//! `hull exec`, `run` and `attach` at a real terminal, and with pipes.

use hull_tests::shell::{finish, run};
use hull_tests::terminal::Terminal;
use hull_tests::{Node, eventually, fixture};
use std::io::{Read as _, Write as _};
use std::process::Stdio;
use std::time::Instant;

/// Starts a container that runs until it is stopped.
fn sleeper(node: &Node, name: &str) {
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", name, &image, "sleep", "1000000"]).good();
}

#[tokio::test]
async fn exec_gives_a_shell_at_the_terminal() {
    let node = Node::start().await;
    sleeper(&node, "web");
    let exec = node.hull_command(&["exec", "-it", "web", "sh"]);
    let mut terminal = Terminal::start(&exec, (93, 31));
    terminal.type_keys("echo $((40+2)) $TERM; test -t 0 && echo is-a-terminal\n");
    terminal.wait_for("42 xterm\r\n").await;
    terminal.wait_for("is-a-terminal\r\n").await;
    assert!(!terminal.is_as_before(), "all keys go to the container");
    terminal.type_keys("stty size\n");
    terminal.wait_for("31 93\r\n").await;
    // Ctrl-C is for the program in the container.
    terminal.type_keys("trap 'echo got-it' INT; echo ready\n");
    terminal.wait_for("ready\r\n").await;
    terminal.type_keys("\u{3}");
    terminal.wait_for("got-it\r\n").await;
    terminal.type_keys("exit 7\n");
    assert_eq!(terminal.finish(), 7);
    assert!(terminal.is_as_before(), "the terminal's settings are restored");
    let _removed = node.hull(&["rm", "-f", "web"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_detach_keys_leave_the_command_of_an_exec_running() {
    let node = Node::start().await;
    sleeper(&node, "web");
    // More output than a terminal holds: it would wait for a reader.
    let script = "echo ready; until [ -e /go ]; do sleep 0.1; done; \
                  i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; touch /done; sleep 7653";
    let exec = node.hull_command(&["exec", "-it", "web", "sh", "-c", script]);
    let mut terminal = Terminal::start(&exec, (80, 24));
    terminal.wait_for("ready\r\n").await;
    terminal.type_keys("\u{10}\u{11}");
    terminal.wait_for("detached; the command runs on").await;
    assert_eq!(terminal.finish(), 0, "{}", terminal.screen());
    assert!(terminal.is_as_before(), "the terminal's settings are restored");
    let _nothing = node.hull(&["exec", "web", "touch", "/go"]).good();
    eventually("the command has printed everything", || async {
        let there = node.hull(&["exec", "web", "test", "-e", "/done"]);
        if there.code == 0 { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    let running = node.hull(&["exec", "web", "sh", "-c", "ps | grep -c ' sleep 7653$'"]);
    assert_eq!(running.stdout, "1\n", "it runs on: {running:?}");
    // Other keys, or none.
    let keys = ["exec", "-it", "--detach-keys", "ctrl-a,d", "web", "cat"];
    let mut terminal = Terminal::start(&node.hull_command(&keys), (80, 24));
    terminal.type_keys("typed\n");
    terminal.wait_for("typed\r\ntyped\r\n").await;
    terminal.type_keys("\u{1}d");
    assert_eq!(terminal.finish(), 0, "{}", terminal.screen());
    let none =
        ["exec", "-it", "--detach-keys", "", "web", "sh", "-c", "head -c 2 | od -An -tx1; exit 5"];
    let mut terminal = Terminal::start(&node.hull_command(&none), (80, 24));
    terminal.type_keys("\u{10}\u{11}\n");
    assert_eq!(terminal.finish(), 5, "{}", terminal.screen());
    let _removed = node.hull(&["rm", "-f", "web"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_size_follows_the_terminal() {
    let node = Node::start().await;
    sleeper(&node, "web");
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 1000 & wait; done";
    let exec = node.hull_command(&["exec", "-it", "web", "sh", "-c", script]);
    let mut terminal = Terminal::start(&exec, (80, 24));
    terminal.wait_for("ready\r\n").await;
    terminal.resize(120, 40);
    terminal.wait_for("40 120\r\n").await;
    terminal.type_keys("\u{3}");
    assert_eq!(terminal.finish(), 130);
}

#[tokio::test]
async fn the_terminal_is_restored_when_exec_is_ended() {
    let node = Node::start().await;
    sleeper(&node, "web");
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let exec = node.hull_command(&["exec", "-it", "web", "sleep", "7654"]);
        let mut terminal = Terminal::start(&exec, (80, 24));
        eventually("the terminal is raw", || async {
            if terminal.is_as_before() { Err(terminal.screen()) } else { Ok(()) }
        })
        .await;
        let _sent = run("kill", [format!("-{signal}"), terminal.pid().to_string()]).good();
        assert_eq!(terminal.finish(), code, "{signal}: {}", terminal.screen());
        assert!(terminal.is_as_before(), "{signal}");
    }
    // Its process is killed with its session.
    let ran = node.hull(&["exec", "web", "sh", "-c", "ps | grep -c '[s]leep 7654'"]);
    assert_eq!(ran.stdout, "0\n", "{ran:?}");
}

/// A mebibyte of a stream in which none is like another.
fn mebibyte(number: u32) -> Vec<u8> {
    let words = (number << 18)..((number + 1) << 18);
    words.flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// 64 MiB; `EXEC_STDIN_MIB=1024` makes it a gibibyte.
#[tokio::test]
async fn exec_passes_on_every_byte_and_the_end_of_input() {
    let node = Node::start().await;
    sleeper(&node, "web");
    let wanted = std::env::var("EXEC_STDIN_MIB").ok().and_then(|text| text.parse().ok());
    let mebibytes: u32 = wanted.unwrap_or(64).min(4096);
    let mut exec = node.hull_command(&["exec", "-i", "web", "sh", "-c", "cat; echo end >&2"]);
    let mut child =
        exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let began = Instant::now();
    let writer = std::thread::spawn(move || {
        (0..mebibytes).for_each(|number| stdin.write_all(&mebibyte(number)).unwrap());
    });
    let mut got = vec![0; 1 << 20];
    for number in 0..mebibytes {
        stdout.read_exact(&mut got).unwrap();
        assert!(got == mebibyte(number), "mebibyte {number} differs");
    }
    assert_eq!(stdout.read(&mut got).unwrap(), 0, "nothing follows");
    writer.join().unwrap();
    println!("{mebibytes} MiB in and out in {:?}", began.elapsed());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(stderr, "end\n");
}

#[tokio::test]
async fn output_comes_as_it_is_printed_and_a_timeout_keeps_it() {
    let node = Node::start().await;
    sleeper(&node, "web");
    let script = "printf first; read line; echo \"$line\"";
    let mut exec = node.hull_command(&["exec", "-i", "web", "sh", "-c", script]);
    let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut first = [0; 5];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    stdin.write_all(b"second\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second\n");
    assert!(child.wait().unwrap().success());

    let ran =
        node.hull(&["exec", "--timeout", "1", "web", "sh", "-c", "echo kept; exec sleep 8765"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (124, "kept\n"), "{ran:?}");
    assert!(ran.stderr.contains("did not end within 1 s and was killed"), "{ran:?}");
    let ran = node.hull(&["exec", "web", "sh", "-c", "ps | grep -c '[s]leep 8765'"]);
    assert_eq!(ran.stdout, "0\n", "{ran:?}");
    for (command, code) in [("no-such-program", 127), ("/etc", 126)] {
        let ran = node.hull(&["exec", "web", command]);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.starts_with("error: cannot "), "{ran:?}");
    }
}

#[tokio::test]
async fn a_terminal_needs_a_terminal() {
    let node = Node::start().await;
    sleeper(&node, "web");
    let ran = finish(node.hull_command(&["exec", "-it", "web", "true"]).stdin(Stdio::null()));
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.stderr.contains("stdin is not a terminal"), "{ran:?}");
    assert!(ran.stderr.contains("hint: omit -t"), "{ran:?}");
    // Without -i, the command has a terminal, and ours is not needed.
    let ran = node.hull(&["exec", "-t", "web", "sh", "-c", "test -t 1 && echo yes"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "yes\r\n"), "{ran:?}");
}

#[tokio::test]
async fn run_shows_the_first_prompt_and_ends_with_the_shell() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run = node.hull_command(&["run", "--rm", "-it", "-e", "PS1=prompt> ", &image, "sh"]);
    let mut terminal = Terminal::start(&run, (80, 24));
    terminal.wait_for("prompt> ").await;
    terminal.type_keys("echo $((6*7))\n");
    terminal.wait_for("42\r\n").await;
    terminal.type_keys("exit 3\n");
    assert_eq!(terminal.finish(), 3);
    assert!(terminal.is_as_before());
    assert!(node.cri().pods().await.is_empty(), "--rm removes the pod");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn detaching_leaves_the_container_and_attach_comes_back() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run =
        node.hull_command(&["run", "--name", "shell", "-it", "-e", "PS1=prompt> ", &image, "sh"]);
    let mut terminal = Terminal::start(&run, (80, 24));
    terminal.wait_for("prompt> ").await;
    terminal.type_keys("\u{10}\u{11}");
    assert_eq!(terminal.finish(), 0, "{}", terminal.screen());
    assert!(terminal.is_as_before());
    terminal.wait_for("hull attach").await;
    let attach = node.hull_command(&["attach", "--detach-keys", "ctrl-x", "shell"]);
    let mut terminal = Terminal::start(&attach, (80, 24));
    terminal.type_keys("echo $((6*7))\n");
    terminal.wait_for("42\r\n").await;
    terminal.type_keys("\u{18}");
    assert_eq!(terminal.finish(), 0);
    let mut terminal = Terminal::start(&attach, (80, 24));
    terminal.type_keys("exit 5\n");
    assert_eq!(terminal.finish(), 5, "the exit code is the container's");
    let _removed = node.hull(&["rm", "-f", "shell"]).good();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn run_with_input_passes_on_a_file() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let mut run = node.hull_command(&["run", "--rm", "-i", &image, "cat"]);
    let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> =
        (0..1 << 20_u32).flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(got == bytes, "{} of {} bytes came back", got.len(), bytes.len());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_detached_run_keeps_its_input_for_attach() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let script = "read a; echo got $a; read b; echo got $b";
    let run = ["run", "-d", "-i", "--name", "reader", &image, "sh", "-c", script];
    let _id = node.hull(&run).good();
    let attach = || {
        let mut attach = node.hull_command(&["attach", "reader"]);
        attach.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut first = attach();
    first.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    eventually("the first line was read", || async {
        let logs = node.hull(&["logs", "reader"]);
        if logs.stdout == "got one\n" { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    // A client that ends leaves the input open for the next one.
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = attach();
    second.stdin.as_mut().unwrap().write_all(b"two\n").unwrap();
    let mut out = String::new();
    second.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "got two\n");
    assert_eq!(second.wait().unwrap().code(), Some(0));
    let _removed = node.hull(&["rm", "-f", "reader"]).good();
    node.nothing_is_left().await;
}
