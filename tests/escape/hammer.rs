// SPDX-License-Identifier: Apache-2.0
//! Fifty clients use one container with every verb at once, while it is stopped, removed and made again. Each call is
//! answered, none with INTERNAL or UNKNOWN; another pod is served meanwhile; descriptors and memory return.

use crate::registry::{faults, lives_on};
use crate::scaled;
use hull_proto::cri as api;
use hull_tests::cri::idle;
use hull_tests::process::Process;
use hull_tests::random::{Random, seed};
use hull_tests::shell::{names, say};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, session};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

const CLIENTS: u64 = 50;
/// Calls of each client in the first round.
const WARM_CALLS: u32 = 6;

/// The container that all use, which changes, and its pod.
#[derive(Clone)]
struct Target {
    pod: String,
    container: Arc<Mutex<String>>,
}

impl Target {
    fn container(&self) -> String {
        self.container.lock().or_fail("read which container it is").clone()
    }
}

/// Results of all calls: how often each code was returned, and the faults.
#[derive(Default)]
struct Report {
    codes: BTreeMap<String, u32>,
    wrong: BTreeMap<String, String>,
}

impl Report {
    fn add(&mut self, verb: &str, answer: &Result<(), Status>) {
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        *self.codes.entry(format!("{verb} {code:?}")).or_default() += 1;
        let Err(refused) = answer else { return };
        for fault in faults(verb, refused) {
            self.wrong.entry(format!("{verb} {code:?}")).or_insert(fault);
        }
        // A verb without an answer is one that the client gave up on.
        if matches!(code, Code::Unknown | Code::Cancelled) {
            let text = format!("{verb}: {code:?}: {}", refused.message());
            self.wrong.entry(format!("{verb} {code:?}")).or_insert(text);
        }
    }

    fn merge(&mut self, other: Self) {
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.wrong.extend(other.wrong);
    }
}

const VERBS: [&str; 14] = [
    "exec_sync",
    "update",
    "stats",
    "status",
    "pod_stats",
    "list",
    "events",
    "exec",
    "attach",
    "port_forward",
    "reopen_log",
    "start",
    "stop",
    "pod_status",
];

/// One call of a verb.
async fn call(cri: &Cri, verb: &str, target: &Target) -> Result<(), Status> {
    let (pod_sandbox_id, container_id) = (target.pod.clone(), target.container());
    let mut runtime = cri.runtime.clone();
    match verb {
        "exec_sync" => cri.exec_for(&container_id, &["echo", "here"], 20).await.map(drop),
        "update" => {
            let linux = Some(api::LinuxContainerResources {
                cpu_shares: 256,
                memory_limit_in_bytes: 96 << 20,
                ..Default::default()
            });
            let request =
                api::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
            runtime.update_container_resources(request).await.map(drop)
        }
        "stats" => {
            let request = api::ContainerStatsRequest { container_id };
            runtime.container_stats(request).await.map(drop)
        }
        "pod_stats" => {
            let request = api::PodSandboxStatsRequest { pod_sandbox_id };
            runtime.pod_sandbox_stats(request).await.map(drop)
        }
        "list" => {
            let request = api::ListContainersRequest::default();
            runtime.list_containers(request).await.map(drop)
        }
        "events" => runtime.get_container_events(api::GetEventsRequest {}).await.map(drop),
        "reopen_log" => {
            let request = api::ReopenContainerLogRequest { container_id };
            runtime.reopen_container_log(request).await.map(drop)
        }
        "start" => cri.start(&container_id).await,
        "stop" => cri.stop(&container_id, 5).await,
        "pod_status" => cri.pod_status(&pod_sandbox_id).await.map(drop),
        "exec" | "attach" | "port_forward" => stream(cri, verb, target).await,
        _ => cri.inspect(&container_id).await.map(drop),
    }
}

/// One call of a verb that answers with a URL, and every other time what the URL is for.
async fn stream(cri: &Cri, verb: &str, target: &Target) -> Result<(), Status> {
    let mut runtime = cri.runtime.clone();
    let container_id = target.container();
    let url = match verb {
        "exec" => {
            let cmd = vec!["echo".into(), "here".into()];
            let request =
                api::ExecRequest { container_id, cmd, stdout: true, ..Default::default() };
            runtime.exec(request).await?.into_inner().url
        }
        "attach" => {
            let request = api::AttachRequest { container_id, stdout: true, ..Default::default() };
            runtime.attach(request).await?.into_inner().url
        }
        _ => {
            let pod_sandbox_id = target.pod.clone();
            let request = api::PortForwardRequest { pod_sandbox_id, port: vec![80] };
            return runtime.port_forward(request).await.map(drop);
        }
    };
    // It may have been stopped meanwhile: a session then ends, or is not opened.
    if let Ok((_input, mut output)) = session::open_fast(&url).await {
        if verb == "exec" {
            output.rest().await;
        } else {
            output.begun().await;
        }
    }
    Ok(())
}

/// A client with a connection of its own.
async fn client(cri: Cri, target: Target, mut random: Random, calls: u32, stops: bool) -> Report {
    let mut report = Report::default();
    for _ in 0..calls {
        let verb = match *random.pick(&VERBS) {
            "stop" if !stops || !random.once_in(20) => "status",
            verb => verb,
        };
        report.add(verb, &call(&cri, verb, &target).await);
    }
    report
}

/// Has all clients make so many calls each, each on a connection of its own.
async fn hammered(
    node: &Node,
    target: &Target,
    random: &Random,
    calls: u32,
    stops: bool,
) -> Report {
    let clients = (0..CLIENTS).map(|number| {
        let own = Cri::at(&node.socket(), &node.host_dir());
        tokio::spawn(client(own, target.clone(), random.fork(number), calls, stops))
    });
    let mut report = Report::default();
    for client in clients.collect::<Vec<_>>() {
        report.merge(client.await.or_fail("wait for a client"));
    }
    report
}

/// Makes the container again whenever it has been stopped, until all is over.
async fn keep(cri: Cri, target: Target, image: String, is_over: Arc<AtomicBool>) -> u32 {
    let mut made = 0;
    while !is_over.load(Ordering::SeqCst) {
        let container = target.container();
        let status = cri.status(&container).await;
        if status.state() == api::ContainerState::ContainerRunning {
            continue;
        }
        cri.remove(&container).await.or_fail("remove a container that ended");
        let next = cri.create(&target.pod, idle("main", &image)).await.or_fail("create the next");
        // A client may have started it already.
        if let Err(refused) = cri.start(&next).await {
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        }
        next.clone_into(&mut target.container.lock().or_fail("name the next container"));
        made += 1;
    }
    made
}

/// Uses another pod until all is over; how long each round of verbs took.
async fn neighbour(cri: Cri, container: String, is_over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let began = Instant::now();
        let ran =
            cri.exec(&container, &["echo", "on"]).await.or_fail("run a command in another pod");
        assert_eq!(ran.stdout, "on\n");
        cri.status(&container).await;
        took.push(began.elapsed());
    }
    took.sort();
    took
}

/// The monitor of a pod.
fn monitor_of(pod: &str) -> Process {
    for entry in names(Path::new("/proc")) {
        let Ok(pid) = entry.parse::<i32>() else { continue };
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if arguments == format!("hull-monitor\0{pod}\0").into_bytes() {
            return Process(pid);
        }
    }
    panic!("no monitor of {pod}")
}

/// Waits until a process has hardly more descriptors open than before.
async fn descriptors_return(name: &str, of: Process, before: usize) {
    eventually(format!("{name} closes its descriptors"), || async {
        let now = of.descriptors();
        if now <= before { Ok(()) } else { Err(format!("{now}, {before} before")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_use_one_container_with_every_verb_at_once() {
    let (node, random) = (Node::start().await, Random::new(seed("hammer")));
    let (cri, pod, image) = node.pod("hammered").await;
    let container = cri.run_idle(&pod, "main", &image).await;
    let other = cri.run_pod("other").await.or_fail("run another pod");
    let healthy = cri.run_idle(&other, "main", &image).await;
    let target = Target { pod: pod.clone(), container: Arc::new(Mutex::new(container)) };
    // A first round makes what is made once, and buffers for as many connections: after it nothing may be added.
    drop(hammered(&node, &target, &random.fork(CLIENTS), WARM_CALLS, false).await);
    let (daemon, monitor) = (Process(node.daemon_pid()), monitor_of(&pod));
    let before = [daemon, monitor].map(|of| (of.memory(), of.descriptors()));
    let (is_over, calls) = (Arc::new(AtomicBool::new(false)), scaled(8, 200));
    let keeper = tokio::spawn(keep(cri.clone(), target.clone(), image, Arc::clone(&is_over)));
    let beside = tokio::spawn(neighbour(node.cri(), healthy, Arc::clone(&is_over)));
    let began = Instant::now();
    let report = hammered(&node, &target, &random, calls, true).await;
    is_over.store(true, Ordering::SeqCst);
    let took = beside.await.or_fail("wait for the other pod's task");
    let made = keeper.await.or_fail("wait for the container's task");
    let median = took[took.len() / 2];
    say(&format!(
        "hammer: {CLIENTS} clients, {calls} calls each, in {:.1?}; {made} containers; another pod {} times, {median:?} in the median; {:?}",
        began.elapsed(),
        took.len(),
        report.codes
    ));
    assert!(report.wrong.is_empty(), "{:#?}", report.wrong);
    lives_on(&node).await;
    for (name, of, before) in [("daemon", daemon, before[0]), ("monitor", monitor, before[1])] {
        descriptors_return(name, of, before.1).await;
        of.memory_returns(&format!("hammer: {name}"), before.0).await;
    }
}
