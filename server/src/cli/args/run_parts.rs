// SPDX-License-Identifier: Apache-2.0
//! The less frequent options of `hull run` and `hull create`, by subject.

use super::super::parse::number;
use crate::pod::run_pods::RestartPolicy;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Heading of the options for the network.
const NETWORK: &str = "Network";
/// Heading of the options for volumes and devices.
const VOLUMES: &str = "Volumes and devices";
/// Heading of the options for isolation.
const ISOLATION: &str = "Isolation";

/// Limits of a container's resources, for `hull run` and `hull update`.
#[derive(Debug, Args, Default, Clone)]
pub(crate) struct Limits {
    /// Memory limit, in bytes or with a unit of 1024, as in 64m or 1.5g; at least 512k [default: none]
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Limit of memory and swap together, not less than --memory; -1 leaves swap unlimited
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// CPU limit, in CPUs, as in 0.5 [default: none]
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpus: Option<String>,
    /// Relative weight of CPU time, 2 to 262144 [default: 1024]
    #[arg(short = 'c', long, value_name = "SHARES", value_parser = number("shares", 2..=262_144_i64))]
    pub(crate) cpu_shares: Option<i64>,
    /// Length of a period of the CPU limit, in microseconds
    #[arg(long, value_name = "US", value_parser = number("microseconds", 1_000..=1_000_000_i64), conflicts_with = "cpus")]
    pub(crate) cpu_period: Option<i64>,
    /// CPU time per period, in microseconds
    #[arg(long, value_name = "US", value_parser = number("microseconds", 1_000..=i64::MAX), conflicts_with = "cpus")]
    pub(crate) cpu_quota: Option<i64>,
    /// CPUs that may be used, as in 0-2,4
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used, as in 0,1
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 leaves them unlimited
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, value_parser = number("processes", -1..=i64::MAX))]
    pub(crate) pids_limit: Option<i64>,
}

/// The network of a pod.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = NETWORK)]
pub(crate) struct Networking {
    /// Network of the pod: as the configuration of the node says, of the host, none, or of the CNI configuration NAME
    #[arg(
        long,
        visible_alias = "net",
        value_name = "pod|host|none|NAME",
        default_value = "pod",
        hide_default_value = true
    )]
    pub(crate) network: String,
    /// Publish all ports that the image exposes on free ports of the host
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Add a line to /etc/hosts; may be repeated
    #[arg(long, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<String>,
    /// DNS server instead of those of the host; may be repeated
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<std::net::IpAddr>,
    /// Domain in which names are searched; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of resolv.conf, as in ndots:2; may be repeated
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
}

/// Volumes and devices of a container.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = VOLUMES)]
pub(crate) struct Storage {
    /// Mount a host path, a named volume, an image or a tmpfs, as in type=bind,src=/a,dst=/b,ro; may be repeated
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) mount: Vec<String>,
    /// Mount a tmpfs, as in /run:size=64m,mode=1777; may be repeated
    #[arg(long, value_name = "DST[:OPTION,…]")]
    pub(crate) tmpfs: Vec<String>,
    /// Size of /dev/shm [default: `runtime.shm_bytes` of the configuration]
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Limit the writable layer, as in size=1g, on a node with project quotas; `hull check` says whether it has them
    #[arg(long, value_name = "size=SIZE")]
    pub(crate) storage_opt: Vec<String>,
    /// Add a device of the host, or one of a CDI vendor, as in nvidia.com/gpu=0; may be repeated
    #[arg(long, value_name = "SRC[:DST[:rwm]]|CDI")]
    pub(crate) device: Vec<String>,
    /// Add GPUs by CDI: `all`, or their numbers or names at the vendor nvidia.com
    #[arg(long, value_name = "all|DEVICE,…")]
    pub(crate) gpus: Option<String>,
}

/// The isolation of a container.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = ISOLATION)]
pub(crate) struct Isolation {
    /// no-new-privileges, seccomp=unconfined|FILE, apparmor=unconfined|PROFILE, label=TYPE:VALUE; may be repeated
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// User namespace: `auto` (free ids of /etc/subuid; `auto:size=N`), `host`, or the first of 65536 ids of the host, a multiple of 65536
    #[arg(long, value_name = "auto|host|ID")]
    pub(crate) userns: Option<String>,
    /// Process ids: of the container, of the pod (pause reaps orphans), or of the host
    #[arg(long, value_enum)]
    pub(crate) pid: Option<Pid>,
    /// Shared memory and semaphores: of the pod, or of the host
    #[arg(long, value_enum)]
    pub(crate) ipc: Option<Ipc>,
    /// An init as the first process: it forwards signals to the command and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
    /// Add a supplemental group, by number, or by name in the image's /etc/group; may be repeated
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Limit of a resource of getrlimit(2), as in nofile=1024:2048; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
    /// Kernel setting of the pod's namespaces, as in net.core.somaxconn=1024; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
}

/// Identity, image and life of a container.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Identity and life")]
pub(crate) struct Life {
    /// Label of pod and container; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,
    /// Annotation of pod and container; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// File with environment variables, KEY=VALUE or KEY per line; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// When to pull the image [default: missing]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) pull: Option<PullWhen>,
    /// Platform of the image; another than that of this machine is an error
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub(crate) platform: Option<String>,
    /// Runtime handler, as a RuntimeClass names it
    #[arg(long, value_name = "HANDLER")]
    pub(crate) runtime: Option<String>,
    /// Write the id of the container into a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Remove a pod of `hull run` that has the name first
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// When the daemon restarts it: no, on-failure[:MAX], always or unless-stopped; not after a reboot
    #[arg(long, value_name = "POLICY", value_parser = RestartPolicy::parse)]
    pub(crate) restart: Option<RestartPolicy>,
    /// Signal that stops the container [default: that of the image]
    #[arg(long, value_name = "SIGNAL", value_parser = super::super::parse::signal)]
    pub(crate) stop_signal: Option<i32>,
    /// Grace period of `hull stop` and of interrupts, in seconds [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) stop_timeout: Option<u32>,
}

/// The pid namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pid {
    Container,
    Pod,
    Host,
}

/// The ipc namespace of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ipc {
    Pod,
    Host,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullWhen {
    Always,
    Missing,
    Never,
}
