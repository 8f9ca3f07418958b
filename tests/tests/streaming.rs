// SPDX-License-Identifier: Apache-2.0
//! Exec with streams, attach and port-forward, as crictl does them.

use hull_tests::crictl::{Forward, TRANSPORTS, crictl, lacks_crictl};
use hull_tests::shell::{Ran, finish, run};
use hull_tests::{ExpectExt as _, Node, eventually};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// Runs a command with `input` and gives its output byte by byte.
fn fed(command: &mut Command, input: &[u8]) -> (i32, Vec<u8>, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().or_fail("start crictl");
    let mut stdin = child.stdin.take().or_fail("take its input");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().or_fail("wait for crictl");
    let _broken = writer.join();
    let code = output.status.code().unwrap_or(-1);
    (code, output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Bytes that no text handling leaves alone.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn exec_gives_both_outputs_and_the_exit_code() {
    if lacks_crictl("exec_gives_both_outputs_and_the_exit_code") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let script = "echo out; echo err >&2; exit 3";
    for by in TRANSPORTS {
        let exec = |command: &[&str]| {
            finish(&mut crictl(&node, &[&["exec", "--transport", by, &id], command].concat()))
        };
        let Ran { code, stdout, stderr } = exec(&["sh", "-c", script]);
        assert_eq!(stdout, "out\n", "{by}: {stderr}");
        assert!(stderr.contains("err\n") && stderr.contains('3'), "{by}: {stderr}");
        assert_ne!(code, 0);
        assert_eq!(exec(&["true"]).code, 0);
        let ran = exec(&["no-such-command"]);
        assert!(ran.code != 0 && ran.stderr.contains("no-such-command"), "{by}: {ran:?}");
    }
}

#[tokio::test]
async fn a_megabyte_of_input_comes_back_byte_for_byte() {
    if lacks_crictl("a_megabyte_of_input_comes_back_byte_for_byte") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let input = noise(1 << 20);
    for by in TRANSPORTS {
        let exec = |command: &[&str]| {
            crictl(&node, &[&["exec", "--transport", by, "-i", &id], command].concat())
        };
        let (code, output, stderr) = fed(&mut exec(&["cat"]), &input);
        assert_eq!(code, 0, "{by}: {stderr}");
        assert!(output == input, "{by}: {} bytes came back of {}", output.len(), input.len());
        // One that reads no input ends all the same.
        let (code, output, stderr) = fed(&mut exec(&["echo", "x"]), &input);
        assert_eq!((code, output.as_slice()), (0, &b"x\n"[..]), "{by}: {stderr}");
    }
}

#[tokio::test]
async fn a_process_goes_with_its_client() {
    if lacks_crictl("a_process_goes_with_its_client") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let inputs = [Vec::new(), noise(350 << 10)];
    let cases = TRANSPORTS.iter().flat_map(|by| inputs.iter().map(move |input| (by, input)));
    for (seconds, (by, input)) in (98_765..).zip(cases) {
        let script = format!("echo up; exec sleep {seconds}");
        let mut command =
            crictl(&node, &["exec", "--transport", by, "-i", &id, "sh", "-c", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        let found = || run("pgrep", ["-fx", &format!("sleep {seconds}")]).stdout;
        eventually("the exec is there", || async { some(found()) }).await;
        let mut stdin = child.stdin.take().unwrap();
        // Input that the process never reads stands in the way of what comes behind it.
        stdin.write_all(input).unwrap();
        end(&mut child);
        drop(stdin);
        eventually("the exec is gone", || async { some(found()).map_or(Ok(()), Err) }).await;
    }
}

fn some(found: String) -> Result<String, String> {
    if found.is_empty() { Err("nothing is found".into()) } else { Ok(found) }
}

/// Ends a child of ours with SIGKILL.
fn end(child: &mut Child) {
    child.kill().or_fail("kill a child");
    let _status = child.wait().or_fail("wait for a child");
}

#[tokio::test]
async fn a_terminal_is_one_and_has_the_clients_size() {
    if lacks_crictl("a_terminal_is_one_and_has_the_clients_size") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let script = "test -t 0 && test -t 1 && test -t 2 && read x && echo got $x; exit 4";
    for by in TRANSPORTS {
        let exec = ["exec", "--transport", by, "-it", &id, "sh", "-c", script];
        let (_, output, stderr) = fed(&mut in_terminal(&crictl(&node, &exec)), b"word\n");
        let output = String::from_utf8_lossy(&output).into_owned();
        assert!(output.contains("got word"), "{by}: {output}{stderr}");
        assert!(output.contains("exit") && output.contains('4'), "{by}: {output}");
    }
}

/// The same command with a terminal of its own, which `script` gives it.
fn in_terminal(inner: &Command) -> Command {
    let line: Vec<_> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut outer = Command::new("script");
    outer.args(["-qec", &line.join(" "), "/dev/null"]);
    outer
}

#[tokio::test]
async fn who_attaches_feeds_the_container_and_sees_its_output() {
    if lacks_crictl("who_attaches_feeds_the_container_and_sees_its_output") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for by in TRANSPORTS {
        let mut config = hull_tests::cri::shell(by, &image, "exec cat");
        (config.stdin, config.stdin_once) = (true, true);
        let id = cri.run(&pod, config).await;
        let input = "some words\n".repeat(5000);
        let attach = ["attach", "--transport", by, "-i", &id];
        let (_, output, stderr) = fed(&mut crictl(&node, &attach), input.as_bytes());
        // The input ends with the first client, and so does cat.
        assert_eq!(cri.ended(&id).await.exit_code, 0, "{by}: {stderr}");
        assert!(output == input.as_bytes(), "{by}: {} bytes came back: {stderr}", output.len());
        assert_eq!(cri.logs(&id).await.len(), 5000, "the log has it as well");
    }
}

#[tokio::test]
async fn a_port_of_a_pod_is_reached_through_its_loopback() {
    if lacks_crictl("a_port_of_a_pod_is_reached_through_its_loopback") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let page = noise(300_000);
    std::fs::write(node.host_dir().join("page"), &page).unwrap();
    let script = "exec httpd -f -p 127.0.0.1:8080 -h /w";
    let mut config = hull_tests::cri::shell("server", &image, script);
    config.mounts.push(hull_tests::cri::mount(&node.host_dir(), "/w"));
    let id = cri.run(&pod, config).await;
    eventually("the server answers", || async {
        let asked = cri.exec(&id, &["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/page"]);
        let ran = asked.await.unwrap();
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
    for by in TRANSPORTS {
        let forward = Forward::start(&node, by, &pod, 8080);
        let port = forward.port;
        // Several at a time: they share one connection to the node.
        let fetch = |_| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").unwrap();
                let mut back = Vec::new();
                let _length = stream.read_to_end(&mut back).unwrap();
                back
            })
        };
        for fetching in (0..4).map(fetch).collect::<Vec<_>>() {
            let back = fetching.join().unwrap();
            assert!(back.ends_with(&page), "{by}: {} bytes came back", back.len());
        }
    }
}

#[tokio::test]
async fn a_port_of_a_pod_on_the_hosts_network_is_the_hosts() {
    if lacks_crictl("a_port_of_a_pod_on_the_hosts_network_is_the_hosts") {
        return;
    }
    let node = Node::start().await;
    let cri = node.cri();
    let mut config = cri.pod_config("host");
    let on_host = hull_proto::cri::NamespaceMode::Node.into();
    hull_tests::cri::pod_namespaces(&mut config).network = on_host;
    let pod = cri.run_pod_with(config).await.unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let answers = std::thread::spawn(move || {
        for _ in TRANSPORTS {
            let (mut stream, _) = server.accept().unwrap();
            let mut asked = [0; 5];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        }
    });
    for by in TRANSPORTS {
        let forward = Forward::start(&node, by, &pod, port);
        let mut stream = TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello", "{by}");
    }
    answers.join().unwrap();
}
