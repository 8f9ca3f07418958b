// SPDX-License-Identifier: Apache-2.0
//! Clients that ask a daemon under a memory limit of its own for more than it has: it refuses, the kernel never has to
//! kill it, and it goes on serving.

use hull_proto::cri as api;
use hull_tests::memory::Limit;
use hull_tests::{Cri, ExpectExt as _, Node};
use std::io::Write as _;
use std::net::TcpStream;
use tonic::{Code, Status};

const LIMIT_BYTES: u64 = 128 << 20;

/// How much is asked for: all of it by `make adversary`, some of it every day.
fn part(all: usize, everyday: usize) -> usize {
    if std::env::var_os("ADVERSARY_ROUNDS").is_some() { all } else { everyday }
}

/// Answered, or refused with what to do about it.
fn is_clean(what: &str, answer: Result<(), Status>) -> bool {
    let Err(refused) = answer else { return true };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{what}: {refused}");
    assert!(refused.message().contains("hint"), "{what}: {refused}");
    false
}

async fn exec(cri: &Cri, id: &str) -> Result<(), Status> {
    let request = api::ExecSyncRequest {
        container_id: id.into(),
        cmd: ["sh", "-c", "head -c 17000000 /dev/zero"].map(str::to_owned).into(),
        timeout: 60,
    };
    cri.runtime.clone().exec_sync(request).await.map(drop)
}

async fn list(cri: &Cri, value: &str) -> Result<(), Status> {
    let label_selector = [("app".to_owned(), value.to_owned())].into();
    let filter = api::PodSandboxFilter { label_selector, ..Default::default() };
    let request = api::ListPodSandboxRequest { filter: Some(filter) };
    cri.runtime.clone().list_pod_sandbox(request).await.map(drop)
}

/// Connections to the streaming port that ask for nothing.
async fn forwards(cri: &Cri, pod: &str, count: usize) -> Vec<TcpStream> {
    let request = api::PortForwardRequest { pod_sandbox_id: pod.into(), port: vec![80] };
    let url = cri.runtime.clone().port_forward(request).await.or_fail("ask for a port");
    let url = url.into_inner().url;
    let address = url.trim_start_matches("http://").split('/').next().or_fail("find the address");
    let connect = |_| {
        let mut stream = TcpStream::connect(address).or_fail("connect");
        // It may be closed already, for the sake of a newer one.
        let _closed = stream.write_all(b"GET /portforward/0 HTTP/1.1\r\nHost: a\r\nX: ");
        stream
    };
    (0..count).map(connect).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_with_little_memory_refuses_and_is_not_killed() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "main", &image).await;
    let daemon = node.daemon_pid();
    let Some(limit) = Limit::around("memory of the daemon", daemon, LIMIT_BYTES) else { return };

    let execs = futures_util::future::join_all((0..part(300, 60)).map(|_| exec(&cri, &id))).await;
    let whole = execs.into_iter().map(|ran| is_clean("exec", ran)).filter(|of| *of);
    println!("execs that were answered: {}", whole.count());

    let value = "x".repeat(15 << 20);
    let lists = (0..part(200, 20)).map(|_| list(&cri, &value));
    let lists = futures_util::future::join_all(lists).await;
    let whole = lists.into_iter().map(|listed| is_clean("list", listed)).filter(|of| *of);
    println!("lists that were answered: {}", whole.count());

    let idle = forwards(&cri, &pod, part(1200, 300)).await;
    println!("{} MiB at most, {} killed", limit.peak() >> 20, limit.oom_kills());
    assert_eq!(limit.oom_kills(), 0);
    let ran = cri.exec(&id, &["echo", "on"]).await.or_fail("exec beside all that");
    assert_eq!(ran.stdout, "on\n");
    let other = cri.run_pod("other").await.or_fail("run a pod beside all that");
    cri.remove_pod(&other).await.or_fail("remove it");
    drop(idle);
    assert_eq!(node.daemon_pid(), daemon);
    cri.remove_all_pods().await.or_fail("remove all pods");
    node.nothing_is_left().await;
}
