// SPDX-License-Identifier: Apache-2.0
//! Streaming as kubectl does it, by its own library (`tests/tools/kubeclient`): every version of
//! remotecommand, both transports, and the second when the first is refused.

use hull_proto::cri as api;
use hull_tests::shell::{Ran, finish};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, paths};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The transport that kubectl tries first, the one it falls back to, and the two together.
const TRANSPORTS: [&str; 3] = ["websocket", "spdy", "fallback"];

fn lacks_kubeclient(test: &str) -> bool {
    let lacks = paths::kubeclient().is_none();
    if lacks {
        paths::cannot_run(test, "kubeclient (`make tools`)");
    }
    lacks
}

fn kubeclient(args: &[&str]) -> Command {
    let mut command = Command::new(paths::kubeclient().or_fail("find kubeclient"));
    command.args(args);
    command
}

/// A URL at which a command runs in a container, with input unless there is a terminal to look at.
async fn exec_url(cri: &Cri, container: &str, command: &[&str], stdin: bool, tty: bool) -> String {
    let request = api::ExecRequest {
        container_id: container.into(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        tty,
        stdin,
        stdout: true,
        stderr: !tty,
    };
    cri.runtime.clone().exec(request).await.or_fail("ask for an exec").into_inner().url
}

async fn attach_url(cri: &Cri, container: &str, tty: bool) -> String {
    let container_id = container.to_owned();
    let request =
        api::AttachRequest { container_id, stdin: false, tty, stdout: true, stderr: !tty };
    cri.runtime.clone().attach(request).await.or_fail("ask for an attach").into_inner().url
}

async fn forward_url(cri: &Cri, pod: &str) -> String {
    let request = api::PortForwardRequest {
        pod_sandbox_id: pod.into(),
        ..api::PortForwardRequest::default()
    };
    cri.runtime.clone().port_forward(request).await.or_fail("ask for a forward").into_inner().url
}

#[tokio::test]
async fn input_ends_and_the_exit_code_comes_back_over_every_transport() {
    if lacks_kubeclient("input_ends_and_the_exit_code_comes_back_over_every_transport") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let input: Vec<u8> =
        (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for by in TRANSPORTS {
        let url =
            exec_url(&cri, &id, &["sh", "-c", "cat; echo end >&2; exit 3"], true, false).await;
        let mut command = kubeclient(&["-transport", by, "-i", "exec", &url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = input.clone();
        let feed = std::thread::spawn(move || stdin.write_all(&bytes));
        let ran = child.wait_with_output().unwrap();
        feed.join().unwrap().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!((ran.status.code(), said.as_str()), (Some(3), "end\n"), "{by}");
        assert!(ran.stdout == input, "{by}: {} bytes came back", ran.stdout.len());
    }
}

#[tokio::test]
async fn every_version_of_remotecommand_is_spoken() {
    if lacks_kubeclient("every_version_of_remotecommand_is_spoken") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let versions = [
        ("spdy", "v4.channel.k8s.io"),
        ("spdy", "v3.channel.k8s.io"),
        ("spdy", "v2.channel.k8s.io"),
        ("spdy", ""),
        ("websocket", "v5.channel.k8s.io"),
    ];
    for (by, protocol) in versions {
        let run = async |script: &str| {
            let url = exec_url(&cri, &id, &["sh", "-c", script], false, false).await;
            finish(&mut kubeclient(&["-transport", by, "-protocol", protocol, "exec", &url]))
        };
        let Ran { code, stdout, stderr } = run("echo out; echo bad >&2").await;
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (0, "out\n", "bad\n"),
            "{by} {protocol}"
        );
        let Ran { code, stderr, .. } = run("exit 3").await;
        let old = ["v3.channel.k8s.io", "v2.channel.k8s.io"].contains(&protocol);
        if old {
            assert!(stderr.contains("exit status 3"), "{by} {protocol}: {stderr}");
        } else {
            assert_eq!(code, 3, "{by} {protocol}: {stderr}");
        }
    }
}

#[tokio::test]
async fn a_refused_offer_leaves_the_url_to_the_next_one_but_only_once() {
    if lacks_kubeclient("a_refused_offer_leaves_the_url_to_the_next_one_but_only_once") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let url = exec_url(&cri, &id, &["echo", "here"], false, false).await;
    let offers = |protocol| {
        finish(&mut kubeclient(&["-transport", "fallback", "-protocol", protocol, "exec", &url]))
    };
    // No server has it, so the library comes again with SPDY.
    let ran = offers("v9.channel.k8s.io");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "here\n"), "{ran:?}");
    let ran = offers("v5.channel.k8s.io");
    assert!(ran.code == 99 && ran.stdout.is_empty(), "{ran:?}");
}

#[tokio::test]
async fn a_terminal_hears_of_its_size_over_every_transport() {
    if lacks_kubeclient("a_terminal_hears_of_its_size_over_every_transport") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let script = "trap 'stty size; exit 7' WINCH; echo ready; while :; do sleep 0.02; done";
    let cases = TRANSPORTS.map(|by| (by, "")).into_iter().chain([("spdy", "v3.channel.k8s.io")]);
    for (by, protocol) in cases {
        let url = exec_url(&cri, &id, &["sh", "-c", script], true, true).await;
        let args =
            ["-transport", by, "-protocol", protocol, "-i", "-t", "-size", "120x40", "exec", &url];
        let mut command = kubeclient(&args);
        // Its input stays open, as one does that somebody types into.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let keyboard = child.stdin.take();
        let ran = child.wait_with_output().unwrap();
        drop(keyboard);
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(said.contains("40 120"), "{by} {protocol}: {said}");
        if protocol.is_empty() {
            assert_eq!(ran.status.code(), Some(7), "{by}");
        }
    }
}

/// kubeclient that forwards a port which is free, and that port.
fn forwarding(by: &str, url: &str, to: u16) -> (Child, BufReader<ChildStdout>, u16) {
    let mut command = kubeclient(&["-transport", by, "forward", url, &format!("0:{to}")]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().or_fail("start kubeclient");
    let mut says = BufReader::new(child.stdout.take().or_fail("hear kubeclient"));
    let mut said = String::new();
    says.read_line(&mut said).or_fail("hear where it listens");
    let port = said.rsplit_once(" -> ").and_then(|(before, _)| before.rsplit_once(':'));
    let port = port.and_then(|(_, port)| port.parse().ok()).or_fail("find the port");
    (child, says, port)
}

async fn listens(cri: &Cri, id: &str) {
    eventually("the server listens", || async {
        let asked = cri.exec(id, &["sh", "-c", "netstat -lnt | grep -q :8080"]).await;
        let ran = asked.or_fail("look for the server");
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
}

/// The server answers once it has seen the end of what it is sent, which only one half says.
#[tokio::test]
async fn a_forwarded_connection_is_closed_by_halves_and_ends_with_its_pod() {
    if lacks_kubeclient("a_forwarded_connection_is_closed_by_halves_and_ends_with_its_pod") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "exec nc -ll -p 8080 -e sh -c 'wc -c; echo over'";
    let id = cri.run(&pod, hull_tests::cri::shell("server", &image, script)).await;
    listens(&cri, &id).await;
    let mut left = Vec::new();
    for by in TRANSPORTS {
        let (child, says, port) = forwarding(by, &forward_url(&cri, &pod).await, 8080);
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&vec![b'x'; 1_000_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _length = stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "1000000\nover\n", "{by}");
        left.push((by, child, says));
    }
    cri.stop_pod(&pod).await.or_fail("stop the pod");
    for (by, mut child, _says) in left {
        // The library says that it lost the connection; that it ends is what counts.
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(99), "{by}");
    }
}

#[tokio::test]
async fn sessions_end_with_their_container() {
    if lacks_kubeclient("sessions_end_with_their_container") {
        return;
    }
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for by in TRANSPORTS {
        let mut config =
            hull_tests::cri::shell(by, &image, "echo up; while :; do sleep 1000; done");
        config.tty = true;
        let id = cri.run(&pod, config).await;
        let url =
            exec_url(&cri, &id, &["sh", "-c", "echo ready; exec sleep 1000"], false, false).await;
        let mut exec = kubeclient(&["-transport", by, "exec", &url]);
        let mut exec = exec.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        exec.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let url = attach_url(&cri, &id, true).await;
        let mut attach = kubeclient(&["-transport", by, "-t", "attach", &url]).spawn().unwrap();
        cri.stop(&id, 0).await.or_fail("stop the container");
        assert_eq!(exec.wait().unwrap().code(), Some(137), "{by}");
        // It may have come too late, and gets an error then.
        assert!(matches!(attach.wait().unwrap().code(), Some(0 | 99)), "{by}");
    }
}
