// SPDX-License-Identifier: Apache-2.0
//! Figures of a cluster: the time of pods from POST to Ready and from DELETE to gone, a rollout, and the cost of an
//! idle node, without probes and with some.
//!
//! Requests go through `kubectl proxy` on a socket. The times are those at which a watch delivers the pod. Processor
//! time is that of cgroups, so it has that of processes that come and go.

use super::api::{Api, PODS_MAX, Watch};
use super::cgroups::{RUNTIME, SYSTEM};
use super::figures::Figures;
use super::layout::{self, Layout};
use super::machine::Machine;
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use crate::host;
use crate::process::Process;
use crate::shell::say;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// How long an idle node is watched: three periods of the probes.
const IDLE: Duration = Duration::from_secs(30);
/// The path of the pods that are measured.
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// The node that they run on.
const NODE: &str = "n1";
/// Pods at once.
const MANY: usize = 100;
/// Those of them with an exec probe, once in ten seconds each.
const PROBED: usize = 50;
/// Pods of the rollout.
const REPLICAS: u32 = 50;

/// Measures all figures, one step after another.
#[must_use]
pub fn run(hub: &Machine, layout: &Layout) -> Figures {
    let mut figures = Figures::default();
    let api = Api::start(hub, layout);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    api.call("POST", "/api/v1/namespaces", Some(&namespace));
    let account = "/api/v1/namespaces/bench/serviceaccounts";
    let made = blocking(with_long_timeout(PODS_MAX), || {
        let list = api.call("GET", account, None);
        let any = list["items"].as_array().is_some_and(|items| !items.is_empty());
        if any { Ok(()) } else { Err("there is no service account".to_owned()) }
    });
    made.map_err(std::io::Error::other).or_fail("get a service account");
    let watch = Watch::start(&api, PODS);
    one_by_one(&api, &watch, &mut figures);
    many(&api, &watch, &mut figures);
    probed(&api, &watch, &mut figures);
    let took = rollout(hub, layout);
    figures.add(&format!("rollout of {REPLICAS} pods"), "s", [took.as_secs_f64()]);
    api.call("DELETE", "/api/v1/namespaces/bench", None);
    figures
}

fn milliseconds(spans: Vec<Duration>) -> impl Iterator<Item = f64> {
    spans.into_iter().map(|span| span.as_secs_f64() * 1000.0)
}

fn one_by_one(api: &Api, watch: &Watch, figures: &mut Figures) {
    say("pods one by one");
    let (mut ready, mut gone) = (Vec::new(), Vec::new());
    // The first pod pulls the image.
    for number in 0..=20 {
        let name = [format!("one-{number}")];
        let began = post(api, &name[0], &pause());
        let took = watch.times(&name, |seen| &seen.ready)[0] - began;
        let began = delete(api, &name[0]);
        let went = watch.times(&name, |seen| &seen.gone)[0] - began;
        if number > 0 {
            ready.push(took);
            gone.push(went);
        }
    }
    figures.add("one pod, POST to Ready", "ms", milliseconds(ready));
    figures.add("one pod, DELETE to gone", "ms", milliseconds(gone));
}

fn many(api: &Api, watch: &Watch, figures: &mut Figures) {
    say(&format!("{MANY} pods at once"));
    let names: Vec<String> = (0..MANY).map(|number| format!("many-{number}")).collect();
    let began: Vec<Instant> = names.iter().map(|name| post(api, name, &pause())).collect();
    let ready = watch.times(&names, |seen| &seen.ready);
    figures.add(
        &format!("{MANY} pods at once, POST to Ready"),
        "ms",
        milliseconds(spans(&ready, &began)),
    );
    idle("idle", figures);
    memory(figures);
    let began: Vec<Instant> = names.iter().map(|name| delete(api, name)).collect();
    let gone = watch.times(&names, |seen| &seen.gone);
    figures.add(
        &format!("{MANY} pods at once, DELETE to gone"),
        "ms",
        milliseconds(spans(&gone, &began)),
    );
}

fn probed(api: &Api, watch: &Watch, figures: &mut Figures) {
    say(&format!("{MANY} pods, {PROBED} of them with exec probes"));
    let names: Vec<String> = (0..MANY).map(|number| format!("probed-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        post(api, name, &if number < PROBED { with_probe() } else { pause() });
    }
    let _ready = watch.times(&names, |seen| &seen.ready);
    idle(&format!("{PROBED} exec probes per 10 s"), figures);
    for name in &names {
        delete(api, name);
    }
    let _gone = watch.times(&names, |seen| &seen.gone);
}

fn spans(ends: &[Instant], begins: &[Instant]) -> Vec<Duration> {
    ends.iter().zip(begins).map(|(end, begin)| *end - *begin).collect()
}

fn pause() -> Value {
    let image = "registry.k8s.io/pause:3.10.2";
    json!({"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"})
}

fn with_probe() -> Value {
    json!({
        "name": "c", "image": "registry.k8s.io/e2e-test-images/busybox:1.37.0-2",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"],
        "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 10, "timeoutSeconds": 5},
    })
}

/// The time of the request, which is made before this returns.
fn post(api: &Api, name: &str, container: &Value) -> Instant {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE}, "terminationGracePeriodSeconds": 5,
            "containers": [container],
        },
    });
    let began = Instant::now();
    api.call("POST", PODS, Some(&pod));
    began
}

fn delete(api: &Api, name: &str) -> Instant {
    let began = Instant::now();
    api.call("DELETE", &format!("{PODS}/{name}"), None);
    began
}

/// A Deployment, and its change of image to Ready pods.
fn rollout(hub: &Machine, layout: &Layout) -> Duration {
    say(&format!("rollout of {REPLICAS} pods over all nodes"));
    let image = |tag: &str| format!("registry.k8s.io/pause:{tag}");
    let kubectl = |arguments: &[&str]| layout::kubectl(hub, layout, arguments).good();
    let wait =
        || kubectl(&["-n", "bench", "rollout", "status", "deployment/web", "--timeout=300s"]);
    let replicas = format!("--replicas={REPLICAS}");
    let first = image("3.10.2");
    let create = ["-n", "bench", "create", "deployment", "web", "--image", &first, &replicas];
    let _output = kubectl(&create);
    let _output = wait();
    let second = format!("pause={}", image("3.10.1"));
    let began = Instant::now();
    let _output = kubectl(&["-n", "bench", "set", "image", "deployment/web", &second]);
    let _output = wait();
    began.elapsed()
}

/// Processor time of the node's parts in a time without requests of the API.
fn idle(name: &str, figures: &mut Figures) {
    say(&format!("{name}: {} s", IDLE.as_secs()));
    let parts = [("runtime", RUNTIME), ("kubelet, kube-proxy", SYSTEM), ("pods", "kubepods")];
    let before = parts.map(|(_, group)| processor_time(group));
    let until = Instant::now() + IDLE;
    let passed = || if Instant::now() < until { Err::<(), _>(String::new()) } else { Ok(()) };
    drop(blocking(IDLE, passed));
    for ((part, group), before) in parts.into_iter().zip(before) {
        let spent = processor_time(group).saturating_sub(before);
        let of_one = spent.as_secs_f64() * 100.0 / IDLE.as_secs_f64();
        figures.add(&format!("{MANY} pods, {name}: processor, {part}"), "% of one", [of_one]);
    }
}

/// Processor time of a group of the node, with all below it: cpuacct.usage of version 1, cpu.stat of version 2.
fn processor_time(group: &str) -> Duration {
    let (_, machine) = layout::machine(NODE);
    let read = host::hierarchies().into_iter().find_map(|hierarchy| {
        let dir = hierarchy.join(&machine).join(group);
        if let Ok(text) = fs::read_to_string(dir.join("cpuacct.usage")) {
            return text.trim().parse().ok().map(Duration::from_nanos);
        }
        let text = fs::read_to_string(dir.join("cpu.stat")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        line?.trim().parse().ok().map(Duration::from_micros)
    });
    read.or_fail(format!("read the processor time of {group}"))
}

/// Memory of the container runtime: its daemon, and the helpers that stay with pods.
fn memory(figures: &mut Figures) {
    let (daemon, helpers): (Vec<_>, Vec<_>) =
        processes().into_iter().partition(|(_, name)| name == "hull" || name == "containerd");
    let sum = |of: &[(i32, String)]| -> f64 {
        let bytes: u64 = of.iter().map(|(pid, _)| Process(*pid).memory().pss).sum();
        bytes as f64 / f64::from(1 << 20)
    };
    let of = |what: &str| format!("{MANY} pods: memory, {what}");
    figures.add(&of("daemon"), "MiB PSS", [sum(&daemon)]);
    figures.add(&of("helpers"), "MiB PSS", [sum(&helpers)]);
    figures.add(&of("number of helpers"), "", [helpers.len() as f64]);
}

/// The processes of the node's container runtime, by the program that they run.
fn processes() -> Vec<(i32, String)> {
    let (_, machine) = layout::machine(NODE);
    let mut found = Vec::new();
    for hierarchy in host::hierarchies() {
        let file = hierarchy.join(&machine).join(RUNTIME).join("cgroup.procs");
        let text = fs::read_to_string(file).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    let named = found.into_iter().map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (pid, name.trim().to_owned())
    });
    // `nsenter` starts the daemon on its machine.
    named.filter(|(_, name)| !["sh", "nsenter"].contains(&name.as_str())).collect()
}
