// SPDX-License-Identifier: Apache-2.0
//! Exec and attach sessions of a client of our own: many, slow, cut off, with a terminal.

use hull_tests::session::{self, Input, Output, RESIZE, STDIN, STDOUT};
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually};
use std::sync::Arc;

/// A container that waits for `/go` and then runs `script`; somebody may type into it, or not.
async fn waits(cri: &Cri, pod: &str, image: &str, script: &str, interactive: bool) -> String {
    let script = format!("until [ -e /go ]; do sleep 0.02; done; {script}");
    let name = if interactive { "interactive" } else { "waits" };
    let mut config = hull_tests::cri::shell(name, image, &script);
    config.stdin = interactive;
    cri.run(pod, config).await
}

async fn go(cri: &Cri, id: &str) {
    let touched = cri.exec(id, &["touch", "/go"]).await.or_fail("give the sign");
    assert_eq!(touched.code, 0);
}

/// How many processes have exactly this command line.
fn running(command: &str) -> usize {
    run("pgrep", ["-fx", command]).stdout.lines().count()
}

async fn none_runs(command: &str) {
    eventually(format!("no `{command}` runs"), || async {
        if running(command) == 0 { Ok(()) } else { Err("one does".into()) }
    })
    .await;
}

/// Ten megabytes in through `cat` and out again, by a hundred clients at once; each has bytes of its
/// own, so none gets another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sessions_of_ten_megabytes_each_come_back_as_they_were() {
    const SESSIONS: usize = 100;
    const LENGTH: usize = 10_000_000;
    const PIECE: usize = 32 << 10;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let mut state = 1_u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(LENGTH + SESSIONS)
    .collect();
    let bytes: Arc<[u8]> = bytes.into();
    let mut all = Vec::new();
    for number in 0..SESSIONS {
        let (mut input, mut output) = session::exec(&cri, &id, &["cat"], false).await;
        let bytes = Arc::clone(&bytes);
        all.push(tokio::spawn(async move {
            let mine = &bytes[number..number + LENGTH];
            let feed = async {
                for piece in mine.chunks(PIECE) {
                    assert!(input.send(STDIN, piece).await, "session {number} broke");
                }
                input.end(STDIN).await;
            };
            let mut at = 0;
            let check = async {
                let mut status = Vec::new();
                while let Some((channel, got)) = output.next().await {
                    if channel == STDOUT {
                        assert!(mine[at..].starts_with(&got), "session {number} from byte {at}");
                        at += got.len();
                    } else {
                        status.extend_from_slice(&got);
                    }
                }
                String::from_utf8_lossy(&status).into_owned()
            };
            let ((), status) = tokio::join!(feed, check);
            assert!(at == LENGTH && status.contains("Success"), "session {number}: {at} {status}");
        }));
    }
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_new_size_reaches_the_process_of_an_exec() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.02; done";
    let (mut input, mut output) = session::exec(&cri, &id, &["sh", "-c", script], true).await;
    let _ready = output.until("ready").await;
    // Bytes that are not a size change nothing, and do not prevent a later size.
    assert!(input.send(RESIZE, b" \n").await);
    input.resize(120, 40).await;
    let transcript = output.rest().await;
    assert!(String::from_utf8_lossy(&transcript.stdout).contains("40 120"), "{transcript:?}");
    assert_eq!(transcript.code(), Some(7), "{transcript:?}");
}

#[tokio::test]
async fn who_attaches_to_a_terminal_types_into_it_and_sets_its_size() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = hull_tests::cri::container("shell", &image, &["sh"]);
    (config.stdin, config.tty) = (true, true);
    let id = cri.run(&pod, config).await;
    let (mut input, mut output) = session::attach(&cri, &id, true, true).await;
    output.begun().await;
    input.resize(132, 43).await;
    // Size and keys take ways of their own, so the shell itself waits for the size.
    let wait = b"until [ \"$(stty size)\" = '43 132' ]; do sleep 0.02; done; echo size''d\n";
    assert!(input.send(STDIN, wait).await);
    let _text = output.until("sized").await;
    // Going away ends nothing: the next finds the same shell.
    assert!(input.send(STDIN, b"x=kept; echo do''ne\n").await);
    let _text = output.until("done").await;
    drop((input, output));
    let (mut input, mut output) = session::attach(&cri, &id, true, true).await;
    assert!(input.send(STDIN, b"echo \"it is $x\"; exit 5\n").await);
    let transcript = output.rest().await;
    assert!(String::from_utf8_lossy(&transcript.stdout).contains("it is kept"), "{transcript:?}");
    assert_eq!(transcript.status["status"], "Success", "{transcript:?}");
    assert_eq!(cri.ended(&id).await.exit_code, 5);
}

#[tokio::test]
async fn all_who_are_attached_see_all_of_the_output() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "seq 1 20000; echo bad >&2";
    let id = waits(&cri, &pod, &image, script, false).await;
    let mut clients: Vec<(Input, Output)> = Vec::new();
    for _ in 0..4 {
        let (input, mut output) = session::attach(&cri, &id, false, false).await;
        output.begun().await;
        clients.push((input, output));
    }
    attached(&cri, &id, 4).await;
    go(&cri, &id).await;
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let all = clients.iter_mut().map(|(_, output)| output.rest());
    for transcript in futures_util::future::join_all(all).await {
        assert!(transcript.stdout == expected.as_bytes(), "{} bytes", transcript.stdout.len());
        assert_eq!(transcript.stderr, b"bad\n");
        assert_eq!(transcript.status["status"], "Success");
    }
}

/// Waits until so many clients hear the container: the session begins before the monitor has the
/// client's sockets. A mark in the output would change it, so the monitor's descriptors are counted.
async fn attached(cri: &Cri, id: &str, clients: usize) {
    let monitor = monitor_of(cri.pid(id).await);
    eventually(format!("{clients} are attached"), || async {
        let sockets = std::fs::read_dir(format!("/proc/{monitor}/fd"));
        let sockets = sockets.or_fail("look at the monitor's descriptors").flatten();
        let sockets = sockets.filter(|fd| {
            let to = std::fs::read_link(fd.path()).unwrap_or_default();
            to.to_string_lossy().starts_with("socket:")
        });
        // One it listens on, one is the daemon's; two per client.
        let found = sockets.count();
        if found == 2 + 2 * clients { Ok(()) } else { Err(format!("{found} sockets")) }
    })
    .await;
}

fn monitor_of(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).or_fail("read its stat");
    let behind_name = stat.rsplit(") ").next().or_fail("find the end of its name");
    behind_name.split(' ').nth(1).or_fail("find its parent").to_owned()
}

/// One that nobody can type into does not wait at all, another one only for seconds.
#[tokio::test]
async fn a_client_that_takes_nothing_does_not_stop_a_container_and_is_told_what_it_missed() {
    const LENGTH: usize = 40_000_000;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = format!("head -c {LENGTH} /dev/zero | tr '\\0' x; echo; exit 3");
    for interactive in [false, true] {
        let id = waits(&cri, &pod, &image, &script, interactive).await;
        let (_input, mut slow) = session::attach(&cri, &id, false, false).await;
        slow.begun().await;
        attached(&cri, &id, 1).await;
        go(&cri, &id).await;
        // It has not read a byte of it by then.
        assert_eq!(cri.ended(&id).await.exit_code, 3);
        let transcript = slow.rest().await;
        assert!(transcript.stdout.len() < LENGTH, "it missed nothing: {}", transcript.stdout.len());
        assert!(
            transcript.stdout.len() > 1 << 20,
            "it is given what was kept: {}",
            transcript.stdout.len()
        );
        assert_eq!(transcript.status["status"], "Failure");
        let said = transcript.status["message"].as_str().unwrap_or_default();
        assert!(said.contains("fell too far behind"), "{said}");
        let logged: usize = cri.logs(&id).await.iter().map(|line| line.text.len()).sum();
        assert_eq!(logged, LENGTH, "the log missed nothing");
        cri.remove(&id).await.unwrap();
    }
}

#[tokio::test]
async fn an_interactive_container_waits_for_a_client_that_goes_on_reading() {
    const LENGTH: usize = 40_000_000;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = format!("head -c {LENGTH} /dev/zero | tr '\\0' x; echo bad >&2; exit 3");
    let id = waits(&cri, &pod, &image, &script, true).await;
    let (_input, mut output) = session::attach(&cri, &id, true, false).await;
    output.begun().await;
    attached(&cri, &id, 1).await;
    go(&cri, &id).await;
    let transcript = output.rest().await;
    assert_eq!(transcript.stdout.len(), LENGTH, "{}", transcript.status);
    assert!(transcript.stdout.iter().all(|byte| *byte == b'x'));
    assert_eq!(
        (transcript.stderr.as_slice(), &transcript.status["status"]),
        (&b"bad\n"[..], &"Success".into())
    );
    assert_eq!(cri.ended(&id).await.exit_code, 3);
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_takes_nothing_takes_its_process_along() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let (input, mut output) = session::exec(&cri, &id, &["yes", "vanished-client"], false).await;
    let _some = output.next().await.unwrap();
    assert_eq!(running("yes vanished-client"), 1);
    // Nothing of what it sent is read any more, and nobody sends a close.
    drop((input, output));
    none_runs("yes vanished-client").await;
}

#[tokio::test]
async fn a_daemon_that_ends_takes_sessions_along_and_leaves_containers_alone() {
    let mut node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for (name, killed) in [("killed", true), ("asked", false)] {
        let script = "while read x; do echo got $x; done";
        let mut config = hull_tests::cri::shell(name, &image, script);
        config.stdin = true;
        let cri = if killed { cri.clone() } else { node.cri() };
        let id = cri.run(&pod, config).await;
        let (mut typed, mut seen) = session::attach(&cri, &id, true, false).await;
        assert!(typed.send(STDIN, b"one\n").await);
        assert_eq!(seen.until("got").await, "got one\n");
        let command = ["sleep", "98761"];
        let (_input, mut output) = session::exec(&cri, &id, &command, false).await;
        eventually("the exec runs", || async {
            if running("sleep 98761") == 1 { Ok(()) } else { Err("not yet".into()) }
        })
        .await;
        if killed {
            node.kill();
        } else {
            node.terminate();
        }
        let transcript = output.rest().await;
        assert_eq!(transcript.status, serde_json::Value::Null, "nobody knows how it ended");
        assert_eq!(seen.next().await, None);
        none_runs("sleep 98761").await;
        node.start_again().await;
        let cri = node.cri();
        let (mut typed, mut seen) = session::attach(&cri, &id, true, false).await;
        assert!(typed.send(STDIN, b"two\n").await);
        assert_eq!(seen.until("got").await, "got two\n");
        assert_eq!(cri.exec(&id, &["true"]).await.unwrap().code, 0);
    }
}
