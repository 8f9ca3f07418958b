// SPDX-License-Identifier: Apache-2.0
//! The fixture of tests through a real kubelet: one machine with Hull and a kubelet without an API server, which runs
//! the static pods in a directory.
//!
//! Static pods cannot refer to objects of the API (Secrets, ConfigMaps, service accounts). Everything else of a pod
//! reaches the runtime as in a cluster. Images are those of [`crate::fixture`], under the names that they have there.

use super::forward::Forward;
use super::kubelet::{self, READ_ONLY_PORT};
use super::machine::{self, Description, Lifetime, Machine};
use super::service::Service;
use super::{hull, programs};
use crate::cri::{Cri, LogLine, read_log};
use crate::eventually::eventually_within;
use crate::expect::ExpectExt;
use crate::{fixture, paths, shell};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::Duration;

/// Machines of tests are numbered from here.
const NUMBERS: std::ops::Range<u8> = 1..250;
/// The node's name: static pods are called `<name>-node`.
const NODE: &str = "node";
/// Its address, which only it can see.
const ADDRESS: &str = "192.168.213.2";
/// Longest wait for a pod: the kubelet looks at its pods once a second, and pulls their images.
const POD_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the end of a pod, and for the kubelet's next removal of those that have ended.
const DELETED_MAX: Duration = Duration::from_secs(150);

/// Changes to the defaults.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// TOML that is merged into Hull's configuration.
    pub hull: String,
    /// Merged into the kubelet's configuration: `json!({"featureGates": {"EventedPLEG": true}})`.
    pub kubelet: Value,
}

/// A machine with Hull and a kubelet. All of it goes when this is dropped, or when the test ends in any other way.
#[derive(Debug)]
pub struct Standalone {
    _forward: Forward,
    machine: Machine,
    hull: Option<Service>,
    kubelet: Option<Service>,
    configuration: Value,
    /// Holds the number as long as this lives.
    _claim: UnixListener,
}

impl Standalone {
    /// Starts Hull and a kubelet.
    pub async fn start() -> Self {
        Self::start_with(Settings { kubelet: json!({}), ..Settings::default() }).await
    }

    /// Starts Hull and a kubelet with other settings.
    pub async fn start_with(settings: Settings) -> Self {
        let programs = programs::built(&["kubelet"]);
        let (number, claim) = claim();
        let dir = PathBuf::from(format!("/var/tmp/hkt{number}"));
        let description = Description {
            host_name: NODE,
            dir: &dir,
            cgroup: &format!("hull-kubelet-{number}"),
            programs: &programs,
            hull: &paths::hull(),
        };
        let machine = Machine::boot(description, Lifetime::Process);
        give_address(&machine);
        let forward = Forward::start(&machine, &fixture::registry().host);
        hull::configure(&machine, &settings.hull);
        let mut configuration = kubelet::configuration(&machine);
        let own =
            json!({"podCIDR": "10.217.0.0/24", "syncFrequency": "1s", "fileCheckFrequency": "1s"});
        kubelet::merge(&mut configuration, &own);
        if settings.kubelet.is_object() {
            kubelet::merge(&mut configuration, &settings.kubelet);
        }
        let mut node = Self {
            _forward: forward,
            machine,
            hull: None,
            kubelet: None,
            configuration,
            _claim: claim,
        };
        node.start_hull().await;
        node.start_kubelet().await;
        node
    }

    /// The machine, for commands on it and paths of it.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A client of its Hull.
    #[must_use]
    pub fn cri(&self) -> Cri {
        hull::client(&self.machine)
    }

    /// Starts Hull, which must not run.
    pub async fn start_hull(&mut self) {
        assert!(self.hull.is_none(), "Hull runs already");
        self.hull = Some(hull::start(&self.machine).await);
    }

    /// Ends Hull by `signal` and waits for it.
    pub fn end_hull(&mut self, signal: Signal) {
        self.hull.take().or_fail("find Hull").end(signal);
    }

    /// Merges more settings into the kubelet's configuration, for its next start.
    pub fn configure_kubelet(&mut self, more: &Value) {
        kubelet::merge(&mut self.configuration, more);
    }

    /// Starts the kubelet, which must not run, and waits until it answers.
    pub async fn start_kubelet(&mut self) {
        assert!(self.kubelet.is_none(), "the kubelet runs already");
        let arguments = [
            format!("--hostname-override={NODE}"),
            format!("--node-ip={ADDRESS}"),
            format!(
                "--runtime-cgroups={}/{}",
                self.machine.cgroups().root(),
                super::cgroups::RUNTIME
            ),
        ];
        let mut kubelet = kubelet::start(&self.machine, &self.configuration, &arguments);
        eventually_within(POD_MAX, "the kubelet answers", || {
            kubelet.assert_running();
            async { self.get("/pods").map(drop) }
        })
        .await;
        self.kubelet = Some(kubelet);
    }

    /// Ends the kubelet by `signal` and waits for it. Its pods run on.
    pub fn end_kubelet(&mut self, signal: Signal) {
        self.kubelet.take().or_fail("find the kubelet").end(signal);
    }

    /// The kubelet's log so far.
    #[must_use]
    pub fn kubelet_log(&self) -> String {
        fs::read_to_string(self.machine.dir().join("kubelet.log")).unwrap_or_default()
    }

    /// Hull's log so far.
    #[must_use]
    pub fn hull_log(&self) -> String {
        fs::read_to_string(self.machine.dir().join("hull.log")).unwrap_or_default()
    }

    /// Has the kubelet run a pod: `spec` is the pod's `spec`. The same name again replaces the pod.
    pub fn apply(&self, name: &str, spec: &Value) {
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.apply_pod(&pod);
    }

    /// Has the kubelet run a pod, with labels and annotations as `pod` has them.
    pub fn apply_pod(&self, pod: &Value) {
        let mut manifest =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default"}});
        kubelet::merge(&mut manifest, pod);
        let name = manifest["metadata"]["name"].as_str().or_fail("read the pod's name").to_owned();
        let file = self.manifest(&name);
        // The kubelet reads no file that begins with a dot, so it never reads half a manifest.
        let scratch = file.with_file_name(format!(".{name}"));
        fs::write(&scratch, manifest.to_string()).or_fail(format!("write the manifest of {name}"));
        fs::rename(&scratch, &file).or_fail(format!("rename the manifest of {name}"));
    }

    /// Has the kubelet end a pod, and waits until it has stopped.
    pub async fn stop(&self, name: &str) {
        fs::remove_file(self.manifest(name)).or_fail(format!("remove the manifest of {name}"));
        self.sandboxes_until(name, "has stopped", |sandboxes| {
            let not_ready = hull_proto::cri::PodSandboxState::SandboxNotready;
            sandboxes.iter().all(|of| of.state() == not_ready)
        })
        .await;
    }

    /// Has the kubelet end a pod, and waits until Hull has nothing of it any more. The kubelet removes pods that have
    /// stopped once a minute.
    pub async fn delete(&self, name: &str) {
        self.stop(name).await;
        self.sandboxes_until(name, "is gone", <[_]>::is_empty).await;
    }

    async fn sandboxes_until(
        &self,
        name: &str,
        state: &str,
        check: impl Fn(&[hull_proto::cri::PodSandbox]) -> bool,
    ) {
        let (cri, full) = (self.cri(), format!("{name}-{NODE}"));
        eventually_within(DELETED_MAX, format!("the pod {name} {state}"), || async {
            let mut pods = cri.pods().await;
            pods.retain(|pod| pod.metadata.as_ref().is_some_and(|of| of.name == full));
            if check(&pods) { Ok(()) } else { Err(format!("{pods:?}")) }
        })
        .await;
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.machine.dir().join("manifests").join(format!("{name}.json"))
    }

    /// The pod as the kubelet shows it, with its `status`; unset until the kubelet has read the manifest.
    #[must_use]
    pub fn pod(&self, name: &str) -> Option<Value> {
        let text =
            self.get("/pods").map_err(std::io::Error::other).or_fail("list the kubelet's pods");
        let pods: Value = serde_json::from_str(&text).or_fail("read the kubelet's pods");
        let full = format!("{name}-{NODE}");
        let mut items = pods["items"].as_array().into_iter().flatten();
        items.find(|pod| pod["metadata"]["name"] == full).cloned()
    }

    /// Waits until `check` gives a value for the pod.
    pub async fn pod_until<T>(
        &self,
        name: &str,
        state: &str,
        mut check: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        eventually_within(POD_MAX, format!("the pod {name} {state}"), || {
            let pod = self.pod(name).ok_or_else(|| "the kubelet has no such pod".to_owned());
            let found = pod.and_then(|pod| check(&pod).ok_or_else(|| pod["status"].to_string()));
            std::future::ready(found)
        })
        .await
    }

    /// Waits until the pod has this phase (`Running`, `Succeeded`, `Failed`), and returns it.
    pub async fn pod_in(&self, name: &str, phase: &str) -> Value {
        self.pod_until(name, &format!("is {phase}"), |pod| {
            (pod["status"]["phase"] == phase).then(|| pod.clone())
        })
        .await
    }

    /// Lines that a container of the pod has written, those of earlier attempts first.
    #[must_use]
    pub fn logs(&self, name: &str, container: &str) -> Vec<LogLine> {
        let pods = self.machine.dir().join("log/pods");
        let prefix = format!("default_{name}-{NODE}_");
        let dirs = shell::names(&pods).into_iter().filter(|dir| dir.starts_with(&prefix));
        let dirs: Vec<PathBuf> = dirs.map(|dir| pods.join(dir).join(container)).collect();
        let files =
            dirs.iter().flat_map(|dir| shell::names(dir).into_iter().map(|file| dir.join(file)));
        files.flat_map(|file| read_log(&file)).collect()
    }

    /// The body of a GET of the kubelet's plain HTTP server.
    ///
    /// # Errors
    /// No answer, or one that is not 200; with its text.
    pub fn get(&self, path: &str) -> Result<String, String> {
        let read = self.machine.in_network(|| get(READ_ONLY_PORT, path));
        let text = read.map_err(|err| format!("GET {path}: {err}"))?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let good = head.split(' ').nth(1) == Some("200");
        if good { Ok(body.to_owned()) } else { Err(format!("GET {path}: {text}")) }
    }

    /// The figures of /stats/summary.
    #[must_use]
    pub fn summary(&self) -> Value {
        let text = self.get("/stats/summary").map_err(std::io::Error::other);
        serde_json::from_str(&text.or_fail("get the kubelet's stats")).or_fail("read the stats")
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let test = std::thread::current().name().unwrap_or("main").replace("::", "-");
            for name in ["kubelet", "hull"] {
                let kept = paths::logs().join(format!("{test}-{name}.log"));
                let copied = fs::copy(self.machine.dir().join(format!("{name}.log")), &kept);
                if copied.is_ok() {
                    shell::say(&format!("the log of {name}: {}", kept.display()));
                }
            }
        }
        self.machine.stop();
        machine::remove(self.machine.dir());
    }
}

/// A kubelet wants a default route, to find the node's address by.
fn give_address(machine: &Machine) {
    let script = format!(
        "ip link add eth0 type veth peer name uplink && ip addr add {ADDRESS}/24 dev eth0 && \
         ip link set eth0 up && ip link set uplink up && ip route add default via 192.168.213.1"
    );
    let mut command = machine.command(super::cgroups::SYSTEM, "sh");
    let _output = shell::finish(command.args(["-c", &script])).good();
}

/// A number that no other running test has.
fn claim() -> (u8, UnixListener) {
    for number in NUMBERS {
        let name = SocketAddr::from_abstract_name(format!("hull-tests-kubelet-{number}"))
            .or_fail("make a name");
        // The kernel frees the name when the process ends, however it ends.
        if let Ok(listener) = UnixListener::bind_addr(&name) {
            return (number, listener);
        }
    }
    panic!("all numbers for machines are taken: {NUMBERS:?}")
}

/// HTTP/1.0, so the response ends where the connection does.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
