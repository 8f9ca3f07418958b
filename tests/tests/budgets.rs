// SPDX-License-Identifier: Apache-2.0
//! Limits on what greedy clients and containers cost the daemon: memory, the streaming port, the state directory.

use hull_proto::cri as api;
use hull_tests::cri::shell;
use hull_tests::eventually::with_long_timeout;
use hull_tests::session;
use hull_tests::shell::run;
use hull_tests::{Cri, ExpectExt as _, Node, eventually};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Code;

/// Longest answer of gRPC clients, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const NOTICE: &str = "is cut here:";

async fn exec(cri: &Cri, id: &str, script: &str) -> Result<api::ExecSyncResponse, tonic::Status> {
    let request = api::ExecSyncRequest {
        container_id: id.into(),
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        timeout: 60,
    };
    Ok(cri.runtime.clone().exec_sync(request).await?.into_inner())
}

/// The end of a stream.
fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(120)..]).into_owned()
}

#[tokio::test]
async fn an_exec_with_more_output_than_an_answer_carries_is_cut_and_keeps_its_code() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let zeroes = |bytes: usize| format!("head -c {bytes} /dev/zero");
    // Whole ones are as they were.
    let ran = exec(&cri, &id, &format!("{}; exit 3", zeroes(15 << 20))).await.unwrap();
    assert_eq!((ran.exit_code, ran.stdout.len(), ran.stderr.len()), (3, 15 << 20, 0));
    for length in [(16 << 20) - 1, 16 << 20, 40 << 20] {
        let ran = exec(&cri, &id, &format!("{}; exit 3", zeroes(length))).await.unwrap();
        assert_eq!(ran.exit_code, 3);
        assert!(tail(&ran.stdout).contains(NOTICE), "{}", tail(&ran.stdout));
        assert!(ran.stdout.len() > 14 << 20 && ran.stderr.is_empty());
    }
    // Both together; and what is said last on the other stream is not lost.
    let (out, err) = (zeroes(9 << 20), zeroes(9 << 20));
    let ran = exec(&cri, &id, &format!("{out}; {err} >&2; exit 4")).await.unwrap();
    assert!(ran.stdout.len() + ran.stderr.len() < ANSWER_BYTES_MAX);
    assert!(ran.stdout.len() + ran.stderr.len() > 15 << 20);
    assert!(tail(&ran.stderr).contains(NOTICE));
    assert_eq!(ran.exit_code, 4);
    let ran =
        exec(&cri, &id, &format!("{}; echo why >&2; exit 5", zeroes(40 << 20))).await.unwrap();
    assert_eq!((ran.exit_code, ran.stderr.as_slice()), (5, &b"why\n"[..]));
    assert!(tail(&ran.stdout).contains(NOTICE));
}

#[tokio::test]
async fn a_stream_longer_than_the_setting_ends_with_a_line_that_says_so() {
    let node = Node::start_with("[runtime]\nexec_output_bytes_max = 1000\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let ran = exec(&cri, &id, "seq 1 1000; exit 2").await.unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.ends_with("[hull: stdout is cut here: 1000 bytes are kept, 2893 were dropped]\n"));
    assert_eq!(ran.exit_code, 2);
}

/// Memory of the daemon that is its own, in bytes: proc(5), `RssAnon`.
fn anonymous(daemon: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).or_fail("read its status");
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).or_fail("find RssAnon");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).or_fail("read it") << 10
}

/// The most that it was while `work` went on.
async fn peak<T>(daemon: i32, work: impl Future<Output = T>) -> (T, u64) {
    tokio::pin!(work);
    let mut most = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            done = &mut work => return (done, most),
            _ = tick.tick() => most = most.max(anonymous(daemon)),
        }
    }
}

/// Waits for longer than `eventually` does: what is unused is given back within a minute.
async fn back_to(daemon: i32, before: u64) {
    let most = before + before / 5 + (2 << 20);
    let until = Instant::now() + with_long_timeout(Duration::from_secs(60));
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while anonymous(daemon) > most {
        assert!(Instant::now() < until, "{} bytes, {before} before", anonymous(daemon));
        tick.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_execs_at_once_are_refused_and_the_daemon_stays_small() {
    const EXECS: usize = 300;
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let daemon = node.daemon_pid();
    assert_eq!(exec(&cri, &id, "echo small").await.unwrap().stdout, b"small\n");
    let before = anonymous(daemon);
    let all = futures_util::future::join_all((0..EXECS).map(|_| async {
        // What came is let go of at once: it is the daemon's memory that counts here.
        exec(&cri, &id, "head -c 17000000 /dev/zero; exit 7").await.map(|ran| {
            assert!(tail(&ran.stdout).contains(NOTICE));
            ran.exit_code
        })
    }));
    let (all, most) = peak(daemon, all).await;
    let whole = all.iter().filter(|ran| matches!(ran, Ok(7))).count();
    let refused: Vec<_> = all.iter().filter_map(|ran| ran.as_ref().err()).collect();
    println!(
        "{EXECS} execs: {whole} whole, {} refused; {} MiB, {} MiB at most",
        refused.len(),
        before >> 20,
        most >> 20
    );
    assert!(
        refused.iter().all(|err| err.code() == Code::ResourceExhausted
            && err.message().contains("runtime.call_memory_bytes_max")),
        "{:?}",
        refused.first()
    );
    assert_eq!(whole + refused.len(), EXECS);
    assert!(most < 110 << 20, "{most} bytes");
    back_to(daemon, before).await;
    // Small ones are never refused, and nothing of what was given out is kept back.
    assert_eq!(exec(&cri, &id, "echo small").await.unwrap().stdout, b"small\n");
    let ran = exec(&cri, &id, "head -c 17000000 /dev/zero; exit 7").await.unwrap();
    assert!(tail(&ran.stdout).contains(NOTICE) && ran.exit_code == 7);
}

#[tokio::test]
async fn a_container_with_many_commands_leaves_those_of_others_alone() {
    let node = Node::start_with("[runtime]\nexec_syncs_max = 4\n").await;
    let (cri, pod, image) = node.pod("web").await;
    let greedy = cri.run_idle(&pod, "greedy", &image).await;
    let other = cri.run_idle(&pod, "other", &image).await;
    let root = format!("/proc/{}/root", cri.pid(&greedy).await);
    let held = |name: &'static str| {
        let (cri, greedy) = (cri.clone(), greedy.clone());
        let script = format!("touch /{name}; while [ ! -e /go ]; do sleep 0.1; done");
        tokio::spawn(async move { exec(&cri, &greedy, &script).await })
    };
    let two = [held("one"), held("two")];
    eventually("two commands run", || async {
        let is_there = |name: &str| Path::new(&root).join(name).symlink_metadata().is_ok();
        if is_there("one") && is_there("two") { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let refused = exec(&cri, &greedy, "echo more").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains("hint: ")
            && refused.message().contains("runtime.exec_syncs_max")
    );
    assert_eq!(exec(&cri, &other, "echo probe").await.unwrap().stdout, b"probe\n");
    fs::write(Path::new(&root).join("go"), "").or_fail("let them end");
    for held in two {
        held.await.unwrap().unwrap();
    }
    assert_eq!(exec(&cri, &greedy, "echo more").await.unwrap().stdout, b"more\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_requests_at_once_are_refused_and_their_memory_is_given_back() {
    let node = Node::start().await;
    let (cri, _pod, _image) = node.pod("web").await;
    let daemon = node.daemon_pid();
    let before = anonymous(daemon);
    let value = "x".repeat(15 << 20);
    let list = || async {
        let label_selector = [("app".to_owned(), value.clone())].into();
        let filter = api::PodSandboxFilter { label_selector, ..Default::default() };
        let request = api::ListPodSandboxRequest { filter: Some(filter) };
        cri.runtime.clone().list_pod_sandbox(request).await
    };
    let all = futures_util::future::join_all((0..20).map(|_| list()));
    let (all, most) = peak(daemon, all).await;
    println!("{} MiB, {} MiB at most", before >> 20, most >> 20);
    let refused: Vec<_> = all.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(refused.iter().all(|err| err.code() == Code::ResourceExhausted), "{refused:?}");
    assert!(most < 110 << 20, "{most} bytes");
    list().await.or_fail("ask alone");
    back_to(daemon, before).await;
}

/// A URL at which a command can be had.
async fn exec_url(cri: &Cri, id: &str) -> String {
    let request = api::ExecRequest {
        container_id: id.into(),
        cmd: vec!["echo".into(), "here".into()],
        tty: false,
        stdin: false,
        stdout: true,
        stderr: false,
    };
    cri.runtime.clone().exec(request).await.or_fail("ask for an exec").into_inner().url
}

/// Where it leads, and the path there.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").or_fail("read the URL");
    rest.split_at(rest.find('/').or_fail("find its path"))
}

#[tokio::test]
async fn connections_that_ask_for_nothing_keep_nobody_from_a_session() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let url = exec_url(&cri, &id).await;
    let (address, _) = parts(&url);
    let connect = |sent: &str| {
        let mut stream = TcpStream::connect(address).or_fail("connect");
        stream.write_all(sent.as_bytes()).or_fail("send a part of a request");
        stream
    };
    let sent = ["", "GET /exec/0 HTTP/1.1\r\nHost: a\r\nX: "];
    let idle: Vec<_> = (0..1200).map(|number| connect(sent[number % 2])).collect();
    let began = Instant::now();
    let (_input, mut output) = session::open(&url).await.unwrap();
    let transcript = output.rest().await;
    assert_eq!(transcript.stdout, b"here\n");
    let took = began.elapsed();
    assert!(took < with_long_timeout(Duration::from_secs(3)), "{took:?}");
    // Who says nothing is not kept.
    let mut last = idle.last().or_fail("find the last of them");
    last.set_read_timeout(Some(with_long_timeout(Duration::from_secs(20)))).unwrap();
    let mut answer = Vec::new();
    let closed = last.read_to_end(&mut answer);
    assert!(
        !matches!(&closed, Err(err) if err.kind() == std::io::ErrorKind::WouldBlock),
        "{closed:?}"
    );
}

/// Sends a request's head and reads until the connection is closed.
fn ask(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).or_fail("connect");
    stream.set_read_timeout(Some(with_long_timeout(Duration::from_secs(3)))).or_fail("set a limit");
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).or_fail("send a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).or_fail("read the answer until the connection is closed");
    answer
}

#[tokio::test]
async fn pages_cannot_lead_a_browser_to_a_session_and_a_refusal_closes_the_connection() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let url = exec_url(&cri, &id).await;
    let (address, path) = parts(&url);
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io"
    );
    for headers in [
        "Host: rebound.example".to_owned(),
        format!("Host: {address}\r\nOrigin: https://page.example"),
        format!("Host: {address}\r\nOrigin: null"),
    ] {
        let answer = ask(address, &format!("{upgrade}\r\n{headers}"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{headers}: {answer}");
    }
    let answer = ask(address, &format!("GET /exec/0 HTTP/1.1\r\nHost: {address}"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    // None of them has used the token up; and a kubelet hands on what its own client sent.
    let by_kubelet =
        "Host: api.example:6443\r\nOrigin: https://page.example\r\nX-Forwarded-For: 192.0.2.1";
    let mut stream = TcpStream::connect(address).or_fail("connect");
    stream.write_all(format!("{upgrade}\r\n{by_kubelet}\r\n\r\n").as_bytes()).unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 101");
}

/// A small filesystem over a directory, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn over(dir: PathBuf) -> Self {
        let path = dir.display().to_string();
        let mounted = run("mount", ["-t", "tmpfs", "-o", "size=8m,mode=700", "small", &path]);
        assert_eq!(mounted.code, 0, "{}", mounted.stderr);
        Self(dir)
    }

    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create_new(&path).or_fail("make a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", ["-l", &self.0.display().to_string()]);
    }
}

/// A node whose state directory has eight megabytes.
async fn small_node() -> (Node, Small) {
    let mut node = Node::start().await;
    node.terminate();
    let small = Small::over(node.state_dir());
    node.start_again().await;
    (node, small)
}

fn free_bytes(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).or_fail("ask for free space");
    stat.f_bavail * stat.f_frsize
}

#[tokio::test]
async fn a_container_that_writes_to_its_pods_files_fills_no_state_directory() {
    let (node, small) = small_node().await;
    let (cri, pod, image) = node.pod("greedy").await;
    let before = free_bytes(&small.0);
    let script = "for f in hostname hosts resolv.conf; do head -c 9000000 /dev/zero >> /etc/$f || exit 1; done";
    let wrote = cri.output(&pod, shell("writes", &image, script)).await;
    assert_eq!(wrote.code, 0, "{}", wrote.stderr);
    assert!(free_bytes(&small.0) + (1 << 20) > before);
    let other = cri.run_pod("other").await.or_fail("run a pod beside it");
    let id = cri.run_idle(&other, "main", &image).await;
    let hosts = cri.exec(&id, &["cat", "/etc/hosts"]).await.unwrap();
    assert!(hosts.stdout.contains("\tother\n"), "{}", hosts.stdout);
    let files = |pod: &str| node.data_dir().join("pods").join(pod);
    assert!(files(&pod).join("hosts").is_file());
    cri.remove_all_pods().await.or_fail("remove all pods");
    assert!(!files(&pod).try_exists().or_fail("look at the files"));
    drop(small);
    drop(node);
}

#[tokio::test]
async fn a_full_state_directory_stops_new_pods_alone() {
    let (mut node, small) = small_node().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let other = cri.run_idle(&pod, "other", &image).await;
    let filler = small.fill();
    let refused = cri.run_pod("late").await.unwrap_err();
    assert!(
        refused.message().contains("ENOSPC") && refused.message().contains("free some space"),
        "{refused}"
    );
    assert_eq!(cri.pods().await.len(), 1);
    assert_eq!(cri.exec(&id, &["echo", "here"]).await.unwrap().stdout, "here\n");
    cri.stop(&id, 0).await.or_fail("stop a container");
    assert_eq!(cri.status(&id).await.state(), api::ContainerState::ContainerExited);
    cri.remove(&id).await.or_fail("remove a container");
    // The next daemon has to make do with it as well.
    node.kill();
    node.start_again().await;
    assert_eq!(cri.exec(&other, &["echo", "here"]).await.unwrap().stdout, "here\n");
    cri.stop_pod(&pod).await.or_fail("stop the pod");
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    fs::remove_file(filler).or_fail("make room");
    let pod = cri.run_pod("late").await.or_fail("run a pod when there is room");
    cri.remove_pod(&pod).await.or_fail("remove it");
    eventually("nothing is left of pods", || async {
        let left = hull_tests::shell::names(&node.state_dir().join("run"));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    drop(small);
    drop(node);
}
