// SPDX-License-Identifier: Apache-2.0
//! A fuzzer of requests that look valid: thousands of them, for every method, decided by a seed. Each is answered
//! within its bound, never with INTERNAL or UNKNOWN, nothing panics, and in the end everything can be removed.

mod found;
mod odd;
mod requests;

use crate::registry::faults;
use crate::scaled;
use hull_proto::cri as api;
use hull_tests::cri::{channel, idle};
use hull_tests::eventually::with_long_timeout;
use hull_tests::process::Process;
use hull_tests::random::{Random, seed};
use hull_tests::shell::{names, say};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, paths};
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use requests::{Objects, Requests, is_streaming, own_seconds, shown};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// Longest that a call may take that does not itself allow more.
const CALL_MAX: Duration = Duration::from_secs(20);
/// When the caller leaves whose call has no end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most pods and containers that are there at a time.
const PODS_MAX: usize = 5;
const CONTAINERS_MAX: usize = 8;

/// The answer to one request; `None` when the caller left as it may.
async fn call(
    channel: &Channel,
    method: &MethodDescriptor,
    request: DynamicMessage,
) -> Option<Result<(), Status>> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::from_maybe_shared(path).or_fail("make a path of a method's name");
    let endless = own_seconds(&request).is_some_and(|seconds| seconds > 5);
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.or_fail("connect to the daemon");
    let codec = ProstCodec::<DynamicMessage, ()>::default();
    let streams = is_streaming(method);
    let answer = async {
        if !streams {
            return grpc.unary(tonic::Request::new(request), path, codec).await.map(drop);
        }
        let answer = grpc.server_streaming(tonic::Request::new(request), path, codec).await;
        let mut stream = answer?.into_inner();
        // Events go on for ever.
        let first = tokio::time::timeout(Duration::from_millis(20), stream.message()).await;
        first.unwrap_or(Ok(None)).map(drop)
    };
    let limit = with_long_timeout(if endless { PATIENCE } else { CALL_MAX });
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Some(answer),
        Err(_) if endless => None,
        Err(_) => Some(Err(tonic::Status::from_error("no answer within the bound".into()))),
    }
}

/// The faults of an answer.
fn wrong(method: &str, answer: &Result<(), Status>) -> Vec<String> {
    let Err(refused) = answer else { return Vec::new() };
    let mut found = faults(method, refused);
    if refused.code() == Code::Unknown {
        found.push(format!("{method}: called unknown: {}", refused.message()));
    }
    found
}

/// A node that pulls from the registry of the tests and from nowhere else.
async fn node() -> Node {
    let policy = paths::fixtures().join(format!("fuzz-policy-{}.toml", std::process::id()));
    let host = &fixture::registry().host;
    let rules =
        format!("default = \"reject\"\n[[repository]]\nmatch = \"{host}/*\"\nrule = \"accept\"\n");
    fs::write(&policy, rules).or_fail("write a policy");
    let node = Node::start_with(&format!("[image]\npolicy = {policy:?}\n")).await;
    // It is read at the start.
    drop(fs::remove_file(&policy));
    node
}

/// Removes some of what is there when there is too much, and sees to it that there is something.
async fn tend(cri: &Cri, objects: &mut Objects, random: &mut Random) -> Result<(), Status> {
    let mut pods: Vec<String> = cri.pods().await.into_iter().map(|pod| pod.id).collect();
    let mut containers = containers(cri).await;
    while containers.len() > CONTAINERS_MAX {
        let one = containers.swap_remove(random.below(containers.len()));
        cri.stop(&one, 0).await?;
        cri.remove(&one).await?;
    }
    while pods.len() > PODS_MAX {
        let one = pods.swap_remove(random.below(pods.len()));
        cri.stop_pod(&one).await?;
        cri.remove_pod(&one).await?;
    }
    if !containers.is_empty() && !pods.is_empty() && !random.once_in(40) {
        (objects.pods, objects.containers) = (pods, containers);
        return Ok(());
    }
    objects.image_id = cri.pull(&objects.image).await?;
    let name = format!("kept-{}", random.next());
    let pod = cri.run_pod(&name).await?;
    let container = cri.create(&pod, idle("main", &objects.image)).await?;
    cri.start(&container).await?;
    objects.pods = [pods, vec![pod]].concat();
    objects.containers = [containers, vec![container]].concat();
    Ok(())
}

/// Starts containers that were not there before and runs a command in them; what is wrong with the answers.
async fn started(cri: &Cri, objects: &Objects) -> Vec<String> {
    let mut found = Vec::new();
    for new in containers(cri).await.iter().filter(|id| !objects.containers.contains(id)) {
        found.extend(wrong("StartContainer", &cri.start(new).await));
        found.extend(wrong("ExecSync", &cri.exec_for(new, &["true"], 10).await.map(drop)));
    }
    found
}

async fn containers(cri: &Cri) -> Vec<String> {
    let listed = cri.runtime.clone().list_containers(api::ListContainersRequest::default()).await;
    let listed = listed.or_fail("list containers").into_inner().containers;
    listed.into_iter().map(|container| container.id).collect()
}

/// The finding without its numbers and ids, to compare it with others.
fn kind(finding: &str) -> String {
    finding.chars().filter(|c| !c.is_ascii_hexdigit()).take(70).collect()
}

/// Cgroups at the top of each hierarchy that are not of a test node.
fn cgroups() -> Vec<String> {
    let all = hull_tests::host::hierarchies().into_iter().flat_map(|dir| {
        names(&dir).into_iter().map(move |name| dir.join(name)).filter(|path| path.is_dir())
    });
    let shown = all.map(|path| path.display().to_string());
    shown.filter(|path| !path.contains("/hull-test") && !path.contains("/hulltest")).collect()
}

/// How many requests a daemon has answered before its memory counts: by then what it sets up once, threads,
/// tables and buffers, is there.
const WARM_UP: u32 = 200;

/// A run of the fuzzer against one daemon.
struct Run {
    cri: Cri,
    channel: Channel,
    requests: Requests,
    objects: Objects,
    /// The first finding of each kind.
    found: BTreeMap<String, String>,
    /// How often each code was the answer.
    codes: BTreeMap<String, u32>,
}

impl Run {
    /// Sends the request that `random` decides, and sees to what it made.
    async fn step(&mut self, number: u32, mut random: Random) {
        let (method, request) = self.requests.make(&mut random, &self.objects);
        let text = shown(&Value::Message(request.clone()));
        let answer = call(&self.channel, &method, request).await.unwrap_or(Ok(()));
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        *self.codes.entry(format!("{code:?}")).or_insert(0) += 1;
        let mut findings = wrong(method.name(), &answer);
        if method.name() == "CreateContainer" && answer.is_ok() {
            let after = started(&self.cri, &self.objects).await;
            findings.extend(after.into_iter().map(|one| format!("after CreateContainer: {one}")));
        }
        if let Err(refused) = tend(&self.cri, &mut self.objects, &mut random).await {
            findings.push(format!("after {}: {refused}", method.name()));
        }
        for finding in findings {
            self.found.entry(kind(&finding)).or_insert(format!("{number}: {finding}\n  {text}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_of_every_method_are_answered_and_whatever_they_made_can_be_removed() {
    let (node, random) = (node().await, Random::new(seed("fuzz")));
    let (cri, channel) = (node.cri(), channel(&node.socket()));
    let requests = Requests::new(cri.clone());
    let image = fixture::busybox();
    let objects = Objects { image, host_dir: node.host_dir(), ..Default::default() };
    let port = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let (setting, groups) = (fs::read_to_string(port).ok(), cgroups());
    let (found, codes) = (BTreeMap::new(), BTreeMap::new());
    let mut run = Run { cri, channel, requests, objects, found, codes };
    tend(&run.cri, &mut run.objects, &mut random.clone()).await.or_fail("make the first pod");
    for number in 0..WARM_UP {
        run.step(number, random.fork(number.into())).await;
    }
    run.cri.remove_all_pods().await.or_fail("remove what the first requests made");
    tend(&run.cri, &mut run.objects, &mut random.clone()).await.or_fail("make another pod");
    let daemon = Process(node.daemon_pid());
    let before = daemon.memory();
    let last = WARM_UP + scaled(1_000, 20_000);
    let began = Instant::now();
    for number in WARM_UP..last {
        run.step(number, random.fork(number.into())).await;
    }
    let counts = &run.codes;
    say(&format!("fuzz: {last} requests, the last in {:.0?}: {counts:?}", began.elapsed()));
    run.cri.remove_all_pods().await.or_fail("remove everything");
    node.nothing_is_left().await;
    let odd = "a record was set aside";
    assert!(!has_bad_record(&node.state_dir()), "{odd}");
    crate::registry::lives_on(&node).await;
    assert_eq!(fs::read_to_string(port).ok(), setting, "the host's own setting was changed");
    assert_eq!(cgroups(), groups, "a cgroup outside of the node's was made or removed");
    let list: Vec<&String> = run.found.values().collect();
    assert!(list.is_empty(), "{} kinds of faults: {}", list.len(), text(&list));
    daemon.memory_returns("fuzz: daemon", before).await;
}

fn text(list: &[&String]) -> String {
    list.iter().map(|one| format!("\n{one}")).collect()
}

fn has_bad_record(state: &Path) -> bool {
    ["pods", "containers", "plans"]
        .iter()
        .any(|dir| names(&state.join(dir)).iter().any(|name| name.ends_with(".bad")))
}
