// SPDX-License-Identifier: Apache-2.0
//! Figures of a cluster: the time of pods from POST to Ready and from DELETE to gone, a rollout, and the cost of an
//! idle node.
//!
//! Requests go through `kubectl proxy` on a socket. The times are those at which a watch delivers the pod.

use super::layout::{self, Layout};
use super::machine::Machine;
use crate::eventually::{blocking, with_long_timeout};
use crate::expect::ExpectExt;
use crate::process::Process;
use crate::shell::say;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for all pods of a step.
const PODS_MAX: Duration = Duration::from_secs(300);
/// How long an idle node is watched.
const IDLE: Duration = Duration::from_secs(30);
/// The path of the pods that are measured.
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// The node that they run on.
const NODE: &str = "n1";

/// When a pod reached a state, by the pod's name.
#[derive(Debug, Default)]
struct Seen {
    ready: HashMap<String, Instant>,
    gone: HashMap<String, Instant>,
}

/// The API server, through a proxy.
#[derive(Debug)]
struct Api {
    socket: PathBuf,
    proxy: Child,
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.proxy.kill());
        drop(self.proxy.wait());
    }
}

impl Api {
    fn start(hub: &Machine, layout: &Layout) -> Self {
        let socket = layout::root().join("proxy.sock");
        drop(fs::remove_file(&socket));
        let mut command = layout::kubectl_command(hub, layout);
        command.arg("proxy").arg(format!("--unix-socket={}", socket.display()));
        command.stdout(std::process::Stdio::null());
        let proxy = command.spawn().or_fail("start kubectl proxy");
        let up = blocking(with_long_timeout(Duration::from_secs(30)), || {
            UnixStream::connect(&socket).map(drop).map_err(|err| err.to_string())
        });
        up.map_err(std::io::Error::other).or_fail("connect to kubectl proxy");
        Self { socket, proxy }
    }

    /// One request; HTTP/1.0, so that the response ends where the connection does.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut stream = send(&self.socket, method, path, body);
        let mut text = String::new();
        stream.read_to_string(&mut text).or_fail(format!("read the response to {method} {path}"));
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        assert!(good, "{method} {path}: {text}");
        serde_json::from_str(body).or_fail(format!("understand the response to {method} {path}"))
    }
}

fn send(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> UnixStream {
    let mut stream = UnixStream::connect(socket).or_fail("connect to kubectl proxy");
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).or_fail("send a request");
    stream.write_all(body.as_bytes()).or_fail("send a request");
    stream
}

/// The states of pods as a watch shows them.
#[derive(Debug, Clone)]
struct Watch(Arc<(Mutex<Seen>, Condvar)>);

impl Watch {
    fn start(api: &Api) -> Self {
        let list = api.call("GET", PODS, None);
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let path = format!("{PODS}?watch=1&resourceVersion={version}");
        let stream = send(&api.socket, "GET", &path, None);
        let watch = Self(Arc::default());
        let into = watch.clone();
        std::thread::spawn(move || into.follow(stream));
        watch
    }

    /// Reads events until the connection ends.
    fn follow(&self, stream: UnixStream) {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let at = Instant::now();
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let pod = &event["object"];
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let is_ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
            let (seen, changed) = &*self.0;
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if event["type"] == "DELETED" {
                seen.gone.entry(name).or_insert(at);
            } else if is_ready {
                seen.ready.entry(name).or_insert(at);
            }
            changed.notify_all();
        }
    }

    /// Waits until `state` has a time for each of `names`, and returns those times in their order.
    fn times(
        &self,
        names: &[String],
        state: fn(&Seen) -> &HashMap<String, Instant>,
    ) -> Vec<Instant> {
        let (seen, changed) = &*self.0;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = |seen: &mut Seen| !names.iter().all(|name| state(seen).contains_key(name));
        let waited = changed.wait_timeout_while(seen, PODS_MAX, all);
        let (seen, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let time =
            |name: &String| state(&seen).get(name).copied().or_fail(format!("see {name} in time"));
        names.iter().map(time).collect()
    }
}

/// Measures everything and prints it.
pub fn run(hub: &Machine, layout: &Layout) {
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
    let watch = Watch::start(&api);
    one_by_one(&api, &watch, 20);
    many(&api, &watch, 100);
    rollout(hub, layout, 50);
    api.call("DELETE", "/api/v1/namespaces/bench", None);
}

fn one_by_one(api: &Api, watch: &Watch, count: usize) {
    let (mut ready, mut gone) = (Vec::new(), Vec::new());
    // The first pod pulls the image.
    for number in 0..=count {
        let name = [format!("one-{number}")];
        let began = post(api, &name[0]);
        let took = watch.times(&name, |seen| &seen.ready)[0] - began;
        let began = delete(api, &name[0]);
        let went = watch.times(&name, |seen| &seen.gone)[0] - began;
        if number > 0 {
            ready.push(took);
            gone.push(went);
        }
    }
    print("one pod after another, POST to Ready", ready);
    print("one pod after another, DELETE to gone", gone);
}

fn many(api: &Api, watch: &Watch, count: usize) {
    let names: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
    let began: Vec<Instant> = names.iter().map(|name| post(api, name)).collect();
    let ready = watch.times(&names, |seen| &seen.ready);
    print(&format!("{count} pods at once, POST to Ready"), spans(&ready, &began));
    idle(count);
    let began: Vec<Instant> = names.iter().map(|name| delete(api, name)).collect();
    let gone = watch.times(&names, |seen| &seen.gone);
    print(&format!("{count} pods at once, DELETE to gone"), spans(&gone, &began));
}

fn spans(ends: &[Instant], begins: &[Instant]) -> Vec<Duration> {
    ends.iter().zip(begins).map(|(end, begin)| *end - *begin).collect()
}

/// The time of the request, which is made before this returns.
fn post(api: &Api, name: &str) -> Instant {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": NODE}, "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10.2", "imagePullPolicy": "IfNotPresent"}],
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
fn rollout(hub: &Machine, layout: &Layout, replicas: u32) {
    let image = |tag: &str| format!("registry.k8s.io/pause:{tag}");
    let kubectl = |arguments: &[&str]| layout::kubectl(hub, layout, arguments).good();
    let wait =
        || kubectl(&["-n", "bench", "rollout", "status", "deployment/web", "--timeout=300s"]);
    let replicas_argument = format!("--replicas={replicas}");
    let _output = kubectl(&[
        "-n",
        "bench",
        "create",
        "deployment",
        "web",
        "--image",
        &image("3.10.2"),
        &replicas_argument,
    ]);
    let _output = wait();
    let began = Instant::now();
    let _output = kubectl(&[
        "-n",
        "bench",
        "set",
        "image",
        "deployment/web",
        &format!("pause={}", image("3.10.1")),
    ]);
    let _output = wait();
    say(&format!(
        "rollout of {replicas} pods over all nodes: {:.2} s",
        began.elapsed().as_secs_f64()
    ));
}

/// Processor time and memory of the node's programs while its pods idle.
fn idle(pods: usize) {
    let groups = ["hull", "system"];
    let before = processes(&groups);
    let times = |of: &BTreeMap<i32, String>| -> BTreeMap<i32, Duration> {
        of.keys().map(|pid| (*pid, Process(*pid).processor_time())).collect()
    };
    let began = times(&before);
    let until = Instant::now() + IDLE;
    drop(blocking(
        IDLE,
        || if Instant::now() < until { Err::<(), _>(String::new()) } else { Ok(()) },
    ));
    let ended = times(&before);
    let mut sums: BTreeMap<&str, (usize, Duration, u64)> = BTreeMap::new();
    for (pid, name) in &before {
        let sum = sums.entry(name.as_str()).or_default();
        sum.0 += 1;
        sum.1 += ended[pid].saturating_sub(began[pid]);
        sum.2 += Process(*pid).memory().pss;
    }
    say(&format!("{pods} idle pods on {NODE}, {} s:", IDLE.as_secs()));
    for (name, (count, time, pss)) in sums {
        let (time, mib) = (time.as_secs_f64(), pss as f64 / f64::from(1 << 20));
        say(&format!("  {count:4} {name:16} {time:6.2} s of processor time, PSS {mib:.1} MiB"));
    }
}

/// The processes in these groups of the node, by what they run.
fn processes(groups: &[&str]) -> BTreeMap<i32, String> {
    let (_, cgroup) = layout::machine(NODE);
    let mut found = BTreeMap::new();
    for hierarchy in crate::host::hierarchies() {
        for group in groups {
            let file = hierarchy.join(&cgroup).join(group).join("cgroup.procs");
            let text = fs::read_to_string(file).unwrap_or_default();
            for pid in text.lines().filter_map(|line| line.parse().ok()) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                found.insert(pid, name.trim().to_owned());
            }
        }
    }
    let others = ["bash", "nsenter", "unshare"];
    found.retain(|_, name| !others.contains(&name.as_str()));
    found
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_millis();
    say(&format!("{name}: p50 {} ms, p90 {} ms, longest {} ms", at(50), at(90), at(100)));
}
