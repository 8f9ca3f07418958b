// SPDX-License-Identifier: Apache-2.0
//! Everything that all pods of the node share, and the paths of each pod: every name follows from an id.
//!
//! ```text
//! <state_dir>/pods, containers      records
//! <state_dir>/plans                 what was resolved for each container when it was made
//! <state_dir>/bundles               hooks of containers that have some, and what these read
//! <state_dir>/run/<pod-id>/         monitor.sock
//! <data_dir>/pods/<pod-id>/         hosts, hostname, resolv.conf: containers may write to them
//! <state_dir>/rootfs                empty; where every container's root is mounted in its own
//!                                   mount namespace, so that the host has no such mount
//! <state_dir>/network               addresses given out
//! <state_dir>/metrics.sock          the daemon's own metrics
//! <state_dir>/history               timelines of what is there, and of what is gone
//! <data_dir>/checkpoints            checkpoints that are being made
//! <data_dir>/                       images, layers, writable layers
//! ```

mod clock;
mod ids;
pub(crate) mod reload;
mod reloads;

pub(crate) use clock::now_ns;
pub(crate) use ids::{new_container_id, new_pod_id};

use self::reloads::Reloads;
use crate::apparmor::AppArmor;
use crate::config::{Config, LiveConfig, Source};
use crate::container::exec::ExecSlots;
use crate::container::hooks::Bundles;
use crate::container::plans::Plans;
use crate::diagnostics::denials::Denials;
use crate::history::History;
use crate::limits::call_memory::Budget;
use crate::metrics::Metrics;
use crate::monitors::Monitors;
use crate::observe::events::Events;
use crate::observe::log_level::LogLevel;
use crate::observe::stats::{Layers, Rates};
use crate::pod::driver::Driver;
use crate::pod::registry::Registry;
use crate::records::Store;
use crate::tracer::Tracer;
use hull_proto::id::PodId;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The state that all parts of the daemon share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: LiveConfig,
    /// Where the configuration was read.
    pub(crate) config_source: Source,
    /// Held while the configuration is read again: the settings that wait for a restart.
    pub(crate) reloads: Reloads,
    /// The configuration was replaced.
    pub(crate) reconfigured: tokio::sync::Notify,
    pub(crate) log_level: Arc<LogLevel>,
    pub(crate) images: Arc<hull_image::Store>,
    pub(crate) network: hull_network::Network,
    pub(crate) cgroups: hull_cgroup::CgroupFs,
    pub(crate) driver: Driver,
    pub(crate) host: hull_plan::HostFacts,
    pub(crate) apparmor: AppArmor,
    pub(crate) denials: Denials,
    pub(crate) monitors: Monitors,
    pub(crate) pods: Store,
    pub(crate) containers: Store,
    /// The hooks of containers.
    pub(crate) bundles: Bundles,
    /// The plan of each container, as resolved at its creation.
    pub(crate) plans: Plans,
    /// Settings that the kubelet sends for the whole node: see [`PodCidr`].
    pub(crate) settings: Store,
    /// Timelines of pods, containers and images, for people who ask.
    pub(crate) history: Arc<History>,
    /// The counts of this daemon.
    pub(crate) metrics: Arc<Metrics>,
    /// Traces of calls and stages, if they are recorded.
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) plugins: hull_nri::Plugins,
    /// The time limits of plugins.
    pub(crate) plugin_timeouts: hull_nri::LiveTimeouts,
    /// Pods can have user namespaces; or why not.
    pub(crate) user_namespaces: Result<(), String>,
    pub(crate) registry: Registry,
    pub(crate) rates: Rates,
    pub(crate) layers: Layers,
    pub(crate) events: Events,
    /// File systems that are not the node's own.
    pub(crate) storage: crate::storage::Storage,
    /// The memory budget of all calls together.
    pub(crate) call_memory: Arc<Budget>,
    /// One permit: `hull doctor` runs for one caller at a time.
    pub(crate) doctor: tokio::sync::Semaphore,
    /// How many commands of ExecSync run at a time.
    pub(crate) exec_slots: Arc<ExecSlots>,
    execs: AtomicU64,
}

/// The parameters of [`Node::new`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) config_source: Source,
    pub(crate) log_level: Arc<LogLevel>,
    pub(crate) images: Arc<hull_image::Store>,
    pub(crate) network: hull_network::Network,
    pub(crate) cgroups: hull_cgroup::CgroupFs,
    pub(crate) driver: Driver,
    pub(crate) host: hull_plan::HostFacts,
    pub(crate) apparmor: AppArmor,
    pub(crate) monitors: Monitors,
    pub(crate) pods: Store,
    pub(crate) containers: Store,
    pub(crate) plans: Plans,
    pub(crate) bundles: Bundles,
    pub(crate) settings: Store,
    pub(crate) history: History,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Arc<Tracer>,
    pub(crate) plugins: hull_nri::Plugins,
    pub(crate) user_namespaces: Result<(), String>,
}

/// The kubelet's subnets for pods, kept for the next daemon: it tells them once, and pods have
/// addresses of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodCidr {
    pub(crate) subnets: Vec<ipnet::IpNet>,
}

impl PodCidr {
    /// The record's name in [`Node::settings`].
    pub(crate) const NAME: &str = "pod-cidr";
}

impl Node {
    pub(crate) fn new(shared: Shared) -> Self {
        let Shared {
            config,
            config_source,
            log_level,
            images,
            network,
            cgroups,
            driver,
            host,
            apparmor,
            monitors,
            pods,
            containers,
            plans,
            bundles,
            settings,
            history,
            metrics,
            tracer,
            plugins,
            user_namespaces,
        } = shared;
        // Numbers of execs must not meet those that an earlier daemon gave to processes that still
        // run: it starts from the clock.
        let first = u64::try_from(now_ns()).unwrap_or(1);
        Self {
            storage: crate::storage::Storage::default(),
            call_memory: Budget::new(config.runtime.call_memory_bytes_max),
            doctor: tokio::sync::Semaphore::new(1),
            exec_slots: ExecSlots::new(config.runtime.exec_syncs_max),
            plugin_timeouts: hull_nri::LiveTimeouts::new(config.plugin_timeouts()),
            config: LiveConfig::new(config),
            config_source,
            reloads: Reloads::default(),
            reconfigured: tokio::sync::Notify::new(),
            log_level,
            images,
            network,
            cgroups,
            driver,
            host,
            denials: listen(),
            apparmor,
            monitors,
            pods,
            containers,
            plans,
            bundles,
            settings,
            history: Arc::new(history),
            metrics,
            tracer,
            plugins,
            user_namespaces,
            registry: Registry::default(),
            rates: Rates::default(),
            layers: Layers::default(),
            events: Events::default(),
            execs: AtomicU64::new(first),
        }
    }

    /// How long the launch of a process may take, from the request to its `execve`, by a monitor that answers:
    /// mounts of the container may be on storage that is slow. Then it is killed.
    pub(crate) fn launch_max(&self) -> Duration {
        Duration::from_secs(self.config.current().runtime.launch_timeout_s)
    }

    /// The pod's own directory.
    pub(crate) fn pod_dir(&self, pod: &PodId) -> PathBuf {
        self.run_dir().join(pod.as_str())
    }

    /// Where the pods' directories are.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.config.current().state_dir.join("run")
    }

    /// Where the files are that the pod's containers have in /etc. Containers write to them as much as they like: they
    /// are where their layers are, and not where the node's records have to fit.
    pub(crate) fn pod_files(&self, pod: &PodId) -> PathBuf {
        self.pod_files_dir().join(pod.as_str())
    }

    /// Where all pods' files are.
    pub(crate) fn pod_files_dir(&self) -> PathBuf {
        self.config.current().data_dir.join("pods")
    }

    /// Where checkpoints are made.
    pub(crate) fn checkpoints_dir(&self) -> PathBuf {
        self.config.current().data_dir.join("checkpoints")
    }

    /// Where the pod's monitor listens.
    pub(crate) fn monitor_socket(&self, pod: &PodId) -> PathBuf {
        self.pod_dir(pod).join("monitor.sock")
    }

    /// The empty directory where roots are mounted.
    pub(crate) fn rootfs_dir(&self) -> PathBuf {
        self.config.current().state_dir.join("rootfs")
    }

    /// A number that no exec has had.
    pub(crate) fn next_exec(&self) -> u64 {
        self.execs.fetch_add(1, Ordering::Relaxed)
    }
}

/// Starts to read the denials of AppArmor and seccomp.
fn listen() -> Denials {
    Denials::listen().unwrap_or_else(|err| {
        tracing::warn!(error = %err, "the kernel's log cannot be read: denials by AppArmor and seccomp will not be reported");
        Denials::default()
    })
}
