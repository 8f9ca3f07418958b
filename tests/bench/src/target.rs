// SPDX-License-Identifier: Apache-2.0
//! One runtime under test: its socket, and the pods that the benchmark has there.
//!
//! Pods and containers are what a kubelet asks for of an ordinary pod: namespaces of their own, the
//! default seccomp profile, limits of CPU and memory, masked and read-only paths. All of them lie in the
//! Kubernetes namespace `cri-bench`, by which they are found and removed, also what an earlier run left.

use crate::cpu::Meter;
use crate::error::verb;
use crate::samples::{Sink, Unit};
use crate::{Error, Result};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hull_proto::cri::{self as api, ContainerConfig, NamespaceMode, PodSandboxConfig};
use hull_tests::Cri;
use hull_tests::cri::{container, pod_namespaces, pod_security, resources, security};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The Kubernetes namespace of all pods here.
const NAMESPACE: &str = "cri-bench";
/// Requests under way at once where pods are many.
pub const AT_ONCE: usize = 8;

/// Paths that a kubelet requests to be masked in containers that are not privileged.
pub const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/firmware",
];
/// Paths that it requests to be read-only there.
pub const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Limit of memory of each container.
pub const MEMORY_BYTES: i64 = 256 << 20;
/// Limit of CPU time of each container, in microseconds of each tenth of a second.
pub const CPU_QUOTA_US: i64 = 200_000;
const CPU_PERIOD_US: i64 = 100_000;
const CPU_SHARES: i64 = 512;

/// Which network a pod has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The pod's own network namespace.
    Pod,
    /// The node's network namespace.
    Host,
}

/// How a target is reached, from the command line.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name in the report; empty for the name that Version returns.
    pub label: String,
    /// Its CRI socket.
    pub socket: PathBuf,
    /// Cgroups that hold the runtime and its containers; without them no CPU time is reported.
    pub cgroups: Vec<String>,
    /// The parent cgroup that is asked for; empty leaves it to the runtime.
    pub cgroup_parent: String,
    /// The command that restarts its daemon.
    pub restart: Option<String>,
}

/// A pod with one container that runs.
#[derive(Debug, Clone)]
pub struct RunningPod {
    /// The pod's id.
    pub pod: String,
    /// The container's id.
    pub container: String,
}

/// A runtime under test.
#[derive(Debug)]
pub struct Target {
    /// How it is reached.
    pub endpoint: Endpoint,
    /// The client of its socket.
    pub cri: Cri,
    /// Name and version as Version returns them.
    pub version: String,
    image: String,
    meter: Option<Meter>,
    number: AtomicU32,
}

impl Target {
    /// Connects, gets the runtime's version, pulls the image, and removes the pods of an earlier run.
    ///
    /// # Errors
    /// When the runtime does not do one of these.
    pub async fn open(mut endpoint: Endpoint, logs: &Path, image: &str) -> Result<Self> {
        let cri = Cri::at(&endpoint.socket, logs);
        let request = api::VersionRequest::default();
        let said =
            cri.runtime.clone().version(request).await.map_err(verb("Version"))?.into_inner();
        if endpoint.label.is_empty() {
            endpoint.label.clone_from(&said.runtime_name);
        }
        if cri.image_status(image).await.map_err(verb("ImageStatus"))?.is_none() {
            let _id = cri.pull(image).await.map_err(verb("PullImage"))?;
        }
        let paths: Vec<&str> = endpoint.cgroups.iter().map(String::as_str).collect();
        let meter = if paths.is_empty() { None } else { Some(Meter::of(&paths)?) };
        let target = Self {
            endpoint,
            cri,
            version: format!("{} {}", said.runtime_name, said.runtime_version),
            image: image.to_owned(),
            meter,
            number: AtomicU32::new(0),
        };
        target.clear().await?;
        Ok(target)
    }

    /// CPU time used so far by all of the runtime; none where no cgroup was named.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn cpu(&self) -> Result<Option<Duration>> {
        self.meter.as_ref().map(Meter::read).transpose()
    }

    /// The config of a pod as a kubelet sends it.
    #[must_use]
    pub fn pod_config(&self, network: Network) -> PodSandboxConfig {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let mut config = self.cri.pod_config(&format!("p{number}"));
        if let Some(metadata) = &mut config.metadata {
            metadata.namespace = NAMESPACE.into();
        }
        config.dns_config = Some(api::DnsConfig {
            servers: vec!["192.0.2.53".into()],
            searches: vec!["cri-bench.svc.cluster.local".into(), "cluster.local".into()],
            options: vec!["ndots:5".into()],
        });
        config.linux.get_or_insert_default().cgroup_parent.clone_from(&self.endpoint.cgroup_parent);
        pod_security(&mut config).seccomp = Some(runtime_default());
        if network == Network::Host {
            config.hostname = String::new();
            pod_namespaces(&mut config).network = NamespaceMode::Node.into();
        }
        config
    }

    /// The config of a container that runs `command`, as a kubelet sends it.
    #[must_use]
    pub fn container_config(
        &self,
        name: &str,
        command: &[&str],
        network: Network,
    ) -> ContainerConfig {
        let mut config = container(name, &self.image, command);
        config.envs =
            [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")]
                .map(|(key, value)| api::KeyValue { key: key.into(), value: value.into() })
                .into();
        *resources(&mut config) = api::LinuxContainerResources {
            cpu_period: CPU_PERIOD_US,
            cpu_quota: CPU_QUOTA_US,
            cpu_shares: CPU_SHARES,
            memory_limit_in_bytes: MEMORY_BYTES,
            oom_score_adj: 900,
            ..Default::default()
        };
        let security = security(&mut config);
        security.seccomp = Some(runtime_default());
        security.masked_paths = MASKED.map(String::from).into();
        security.readonly_paths = READ_ONLY.map(String::from).into();
        if network == Network::Host {
            security.namespace_options.get_or_insert_default().network = NamespaceMode::Node.into();
        }
        config
    }

    /// The workload: a process that waits and uses nothing.
    #[must_use]
    pub fn idle(&self, name: &str, network: Network) -> ContainerConfig {
        self.container_config(name, &["sleep", "1000000"], network)
    }

    /// Runs a pod with one container, as a kubelet does.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn up(&self, network: Network) -> Result<RunningPod> {
        let pod = self.run_pod(network).await?;
        let container = self.create(&pod, self.idle("main", network)).await?;
        self.start(&container).await?;
        Ok(RunningPod { pod, container })
    }

    /// Takes it down, as a kubelet does when a pod was deleted and did not end by itself.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn down(&self, up: &RunningPod) -> Result<()> {
        self.cri.stop(&up.container, 0).await.map_err(verb("StopContainer"))?;
        self.cri.remove(&up.container).await.map_err(verb("RemoveContainer"))?;
        self.cri.stop_pod(&up.pod).await.map_err(verb("StopPodSandbox"))?;
        self.cri.remove_pod(&up.pod).await.map_err(verb("RemovePodSandbox"))
    }

    /// Runs a pod without containers.
    ///
    /// # Errors
    /// As the runtime answers.
    pub async fn run_pod(&self, network: Network) -> Result<String> {
        self.cri.run_pod_with(self.pod_config(network)).await.map_err(verb("RunPodSandbox"))
    }

    /// Creates a container.
    ///
    /// # Errors
    /// As the runtime answers.
    pub async fn create(&self, pod: &str, config: ContainerConfig) -> Result<String> {
        self.cri.create(pod, config).await.map_err(verb("CreateContainer"))
    }

    /// Starts a container.
    ///
    /// # Errors
    /// As the runtime answers.
    pub async fn start(&self, container: &str) -> Result<()> {
        self.cri.start(container).await.map_err(verb("StartContainer"))
    }

    /// Runs a command in a container; it must succeed.
    ///
    /// # Errors
    /// As the runtime answers, or when the command fails.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<()> {
        let ran = self.cri.exec(container, command).await.map_err(verb("ExecSync"))?;
        if ran.code == 0 {
            return Ok(());
        }
        Err(Error::Command { command: command.join(" "), code: ran.code, said: ran.stderr })
    }

    /// Runs pods until `wanted` are up, several at once.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn fill(&self, pods: &mut Vec<RunningPod>, wanted: usize) -> Result<()> {
        let missing = wanted.saturating_sub(pods.len());
        let starts = stream::iter(0..missing).map(|_| self.up(Network::Pod));
        pods.extend(starts.buffer_unordered(AT_ONCE).try_collect::<Vec<RunningPod>>().await?);
        Ok(())
    }

    /// All pods of the benchmark.
    ///
    /// # Errors
    /// As the runtime answers.
    pub async fn pods(&self) -> Result<Vec<api::PodSandbox>> {
        let request = api::ListPodSandboxRequest::default();
        let listed = self.cri.runtime.clone().list_pod_sandbox(request).await;
        let mut pods = listed.map_err(verb("ListPodSandbox"))?.into_inner().items;
        pods.retain(|pod| {
            pod.metadata.as_ref().is_some_and(|metadata| metadata.namespace == NAMESPACE)
        });
        Ok(pods)
    }

    /// Removes all pods of the benchmark, several at once.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn clear(&self) -> Result<()> {
        let pods = self.pods().await?;
        let gone = stream::iter(pods).map(|pod| self.remove(pod.id));
        gone.buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Removes a pod; its containers are killed first, as they would sit out a grace period.
    async fn remove(&self, pod: String) -> Result<()> {
        for container in self.containers(&pod).await? {
            self.cri.stop(&container, 0).await.map_err(verb("StopContainer"))?;
        }
        self.cri.stop_pod(&pod).await.map_err(verb("StopPodSandbox"))?;
        self.cri.remove_pod(&pod).await.map_err(verb("RemovePodSandbox"))
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// As the runtime answers.
    pub async fn containers(&self, pod: &str) -> Result<Vec<String>> {
        let filter = api::ContainerFilter { pod_sandbox_id: pod.to_owned(), ..Default::default() };
        let request = api::ListContainersRequest { filter: Some(filter) };
        let listed = self.cri.runtime.clone().list_containers(request).await;
        let listed = listed.map_err(verb("ListContainers"))?.into_inner().containers;
        Ok(listed.into_iter().map(|container| container.id).collect())
    }
}

fn runtime_default() -> api::SecurityProfile {
    let kind = api::security_profile::ProfileType::RuntimeDefault;
    api::SecurityProfile { profile_type: kind.into(), ..Default::default() }
}

/// Does `work` and adds the time it took.
///
/// # Errors
/// Those of the work, which then adds nothing.
pub async fn timed<T>(
    sink: &mut Sink<'_>,
    name: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = Instant::now();
    let done = work.await?;
    sink.add(name, Unit::Ms, began.elapsed().as_secs_f64() * 1e3);
    Ok(done)
}
