// SPDX-License-Identifier: Apache-2.0
//! Pods come and go, each with a container that prints and ends with a code that is known, while something is killed
//! or stopped all the time: the daemon, monitors, pause, containers, the registry, NRI and CNI plugins. Nothing is
//! left in the end; no code is wrong, no line is lost, no event is missed but where what tells of it was killed.
//!
//! ```text
//! workers   one pod after the other, as a kubelet: what fails is asked again, or taken away
//! chaos     one fault after the other, the next when more pods have come and gone
//! listener  all events, with the number of the stream that they came on
//! ```
//!
//! `network/examples/soak.rs` does this for the pod network alone, without a daemon.

mod cycles;
mod faults;

use cycles::{Tally, Worker};
use faults::Chaos;
use hull_proto::cri::{self as api, ContainerEventType as Kind};
use hull_tests::host::Names;
use hull_tests::process::Process;
use hull_tests::random::{Random, seed};
use hull_tests::registry::Registry;
use hull_tests::shell::{names, say};
use hull_tests::{Cri, ExpectExt as _, Node, fixture};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const WORKERS: u32 = 4;
/// Pods that come and go between two faults.
const PODS_PER_FAULT: u32 = 3;
const REFERENCE: &str = "/usr/lib/cni";

/// Hands on to the bridge plugin, and now and then dies: before, or when all is done but said.
const MORTAL: &str = r#"#!/bin/sh
dies() { [ "$(od -An -N1 -tu1 /dev/urandom)" -lt 4 ]; }
dies && kill -9 $$
said=$(/usr/lib/cni/bridge)
code=$?
dies && kill -9 $$
printf '%s\n' "$said"
exit $code
"#;

/// State that workers, chaos and the listener share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Pods that came and went.
    done: AtomicU32,
    /// Blows so far: a verb that fails while this changes has an excuse.
    faults: AtomicU32,
    /// Pods of which something was killed.
    hit: Mutex<Vec<String>>,
    /// Pods and containers that are there now, by worker.
    there: Mutex<BTreeMap<u32, (String, String)>>,
    /// Where the image is.
    reference: Mutex<String>,
    /// The number of the stream that events come on; odd while there is one.
    stream: AtomicU32,
    /// Kinds of events by container, with the stream of each.
    events: Mutex<BTreeMap<String, Vec<(u32, Kind)>>>,
    is_over: AtomicBool,
}

/// A node with CNI plugins that die, where there are plugins.
async fn node() -> (Node, bool) {
    let has_plugins = [&format!("{REFERENCE}/bridge"), "/usr/sbin/iptables"]
        .iter()
        .all(|of| Path::new(of).is_file());
    if !has_plugins {
        return (Node::start().await, false);
    }
    let node = Node::start_on_network(settings).await;
    let at = node.host_dir();
    for dir in ["bin", "net.d"] {
        fs::create_dir_all(at.join(dir)).or_fail("make a directory of plugins");
    }
    let plugin = at.join("bin/mortal");
    fs::write(&plugin, MORTAL).or_fail("write a plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).or_fail("make it a program");
    let conf = format!(
        r#"{{"cniVersion": "1.0.0", "name": "pods", "plugins": [
            {{"type": "mortal", "bridge": "{}", "isGateway": true, "ipam": {{"type": "host-local",
              "dataDir": "{}", "ranges": [[{{"subnet": "{}"}}]]}}}}]}}"#,
        node.names().bridge,
        at.join("ipam").display(),
        node.subnet(),
    );
    fs::write(at.join("net.d/10-pods.conflist"), conf).or_fail("configure the network");
    (node, true)
}

fn settings(names: &Names) -> String {
    let at = |path: &str| names.root.join(path).display().to_string();
    format!(
        "mode = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{:?}, {REFERENCE:?}]\nnetns_dir = {:?}\n",
        at("host/net.d"),
        at("host/bin"),
        at("state/netns"),
    )
}

/// Notes all events until all is over.
async fn listen(cri: Cri, shared: Arc<Shared>) {
    while !shared.is_over.load(Ordering::SeqCst) {
        let mut runtime = cri.runtime.clone();
        // The daemon may be away.
        let Ok(events) = runtime.get_container_events(api::GetEventsRequest {}).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let stream = shared.stream.fetch_add(1, Ordering::SeqCst) + 1;
        let mut events = events.into_inner();
        while let Ok(Some(event)) = events.message().await {
            let kind = event.container_event_type();
            let mut noted = shared.events.lock().or_fail("note an event");
            noted.entry(event.container_id).or_default().push((stream, kind));
        }
        shared.stream.fetch_add(1, Ordering::SeqCst);
    }
}

/// Links and namespaces on the host that belong to CNI and not to a known pod.
fn left_of_plugins(node: &Node) -> Vec<String> {
    let given = names(&node.host_dir().join("ipam/pods"));
    given.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
}

fn registry() -> (Registry, String) {
    let registry = Registry::start();
    let reference = registry.push("soak/busybox", "1", &fixture::busybox_image().pack());
    (registry, reference)
}

/// How many pods come and go: `ADVERSARY_CYCLES`, else what belongs to the rounds.
fn cycles() -> u32 {
    let told = std::env::var("ADVERSARY_CYCLES").ok().and_then(|text| text.parse().ok());
    told.unwrap_or_else(|| crate::scaled(40, 10_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_come_and_go_while_everything_around_them_is_killed() {
    let (cycles, random) = (cycles(), Random::new(seed("soak")));
    let (mut node, has_plugins) = node().await;
    if !has_plugins {
        say("soak: without CNI plugins (apt-get install containernetworking-plugins iptables)");
    }
    let shared = Arc::new(Shared::default());
    let (registry, reference) = registry();
    node.cri().pull(&reference).await.or_fail("pull the first image");
    reference.clone_into(&mut shared.reference.lock().or_fail("name the image"));
    // What the first pod makes once is not what this is about.
    let mut warm = Worker::new(WORKERS, node.cri(), random.fork(99), Arc::clone(&shared));
    let _first = warm.run(1).await;
    let before = Process(node.daemon_pid()).memory();
    let listener = tokio::spawn(listen(node.cri(), Arc::clone(&shared)));
    let began = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let shared = Arc::clone(&shared);
            let mut worker = Worker::new(number, node.cri(), random.fork(number.into()), shared);
            tokio::spawn(async move { worker.run(cycles / WORKERS).await })
        })
        .collect();
    let mut chaos = Chaos::new(random.fork(1_000), Arc::clone(&shared), registry);
    while !workers.iter().all(|worker| worker.is_finished()) {
        chaos.inject_after(&mut node, PODS_PER_FAULT, &workers).await;
    }
    let mut tally = Tally::default();
    for worker in workers {
        tally.merge(worker.await.or_fail("wait for a worker"));
    }
    shared.is_over.store(true, Ordering::SeqCst);
    listener.abort();
    node.cri().remove_all_pods().await.or_fail("remove what is left");
    node.nothing_is_left().await;
    let addresses = left_of_plugins(&node);
    say(&format!(
        "soak: {} in {:.0?}; faults: {:?}",
        tally.shown(),
        began.elapsed(),
        chaos.counts()
    ));
    assert!(tally.wrong.is_empty(), "{} wrong: {:#?}", tally.wrong.len(), tally.wrong);
    assert!(addresses.is_empty(), "addresses that nobody has: {addresses:?}");
    crate::registry::lives_on(&node).await;
    Process(node.daemon_pid()).memory_returns("soak: daemon", before).await;
}
