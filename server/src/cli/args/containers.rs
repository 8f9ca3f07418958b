// SPDX-License-Identifier: Apache-2.0
//! The commands for containers, beside those of [`Command`](super::Command).

use super::super::format::ListArgs;
use super::super::parse::number;
use super::place::{InPod, Place};
use super::run::Run;
use super::run_parts::Limits;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Commands for containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Containers {
    /// Create a pod with one container as `hull run` does, and do not start it
    #[command(
        after_help = "Example:\n  hull create --name web docker.io/library/nginx && hull start web"
    )]
    Create(Box<Run>),
    /// Start created containers, or exited ones again
    #[command(after_help = "\
Example:
  hull start web

A container that has exited keeps its id, its files and its log, and `hull logs --previous` prints what it wrote before.
Containers of a kubelet are refused: it starts them itself, as new ones.")]
    Start(Names),
    /// Stop containers and start them again
    #[command(
        after_help = "Example:\n  hull restart -t 2 web\n\nA container keeps its id, its files and its log."
    )]
    Restart(Restart),
    /// Send a signal to the first process of running containers
    #[command(
        after_help = "Examples:\n  hull kill web                SIGKILL\n  hull kill -s HUP web         reload"
    )]
    Kill(Kill),
    /// Freeze all processes of running containers, or of all containers of a pod
    #[command(after_help = "\
Examples:
  hull pause web
  hull pause shop              all running containers of the pod

CRI has no such state: for the kubelet the container runs on, and its probes will fail. Stopping or removing it thaws
it.")]
    Pause(Names),
    /// Thaw the processes of paused containers, or of all containers of a pod
    Unpause(Names),
    /// Wait until containers have exited, and print their exit codes
    #[command(after_help = "Example:\n  hull wait web")]
    Wait(Names),
    /// Copy files between a container and the host
    #[command(after_help = COPY_HELP)]
    Cp(Copy),
    /// Show a live view of all running containers, or list the processes of some
    #[command(after_help = "\
Examples:
  hull top                        live: CPU, throttling, memory, pressure, OOM kills, restarts, execs, pulls; q ends it
  hull top --once -o json         one reading of the same
  hull top web                    processes of a container
  hull top -o wide web")]
    Top(Top),
    /// List the published ports of pods
    #[command(after_help = "Examples:\n  hull port web\n  hull port web 80/tcp")]
    Port(Port),
    /// Print events of containers and pods as they happen
    #[command(
        after_help = "Examples:\n  hull events\n  hull events -o jsonl --filter type=stopped\n  hull events --since 10m --until 0s      what happened in the last ten minutes\n\nThe daemon keeps the last 2048 events since it was started. With --since, events that are not kept any more are\nreported on stderr."
    )]
    Events(Events),
    /// Change limits of running containers
    #[command(after_help = "Example:\n  hull update --memory 256m --cpus 1.5 web")]
    Update(Update),
    /// Create a container in a pod from files with the messages of CRI, as `crictl create` does
    #[command(after_help = "Example:\n  hull create-container POD container.yaml pod.yaml")]
    CreateContainer(CreateContainer),
    /// Write the memory and files of a running container to an archive, by CRIU; it runs on
    Checkpoint(Checkpoint),
}

/// Examples of `hull cp`, and its limits.
const COPY_HELP: &str = "\
Examples:
  hull cp web:/etc/nginx/nginx.conf .
  hull cp ./site web:/usr/share/nginx/html
  hull cp web:/var/log - | tar -t
  tar -c site | hull cp - web:/usr/share/nginx/html

Run it as root on the node. On the host, a DST that is a link to a directory is followed only if it ends with `/`: an
earlier copy may have brought the link out of a container. Paths of the container are resolved in its root: no link in
it leads to a file of the host. Files, directories and links are copied; devices, sockets and FIFOs are skipped with a
message. Copied files belong to root in the container, or with -a to the owner that they have. The volumes of a
container are there only while it runs.";

/// Names of containers.
#[derive(Debug, Args)]
pub(crate) struct Names {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Containers, by id, prefix of the id, name, POD/NAME or NAMESPACE/POD/NAME
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Print one reading of the live view, and exit
    #[arg(long, conflicts_with = "names")]
    pub(crate) once: bool,
    /// Time between readings of the live view, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = number("seconds", 1..=3600_u64))]
    pub(crate) interval: u64,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    /// Containers whose processes are listed, by id, prefix of the id, name, POD/NAME or NAMESPACE/POD/NAME
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull restart`.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Grace period in seconds, until SIGKILL [default: --stop-timeout of `hull run`, else 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = number("seconds", 0..=u32::MAX))]
    pub(crate) time: Option<u32>,
    #[command(flatten)]
    pub(crate) of: Names,
}

/// Options of `hull kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = super::super::parse::signal)]
    pub(crate) signal: i32,
    #[command(flatten)]
    pub(crate) of: Names,
}

/// Options of `hull cp`.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Keep owners of files
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Follow a symbolic link that is SRC itself
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// CONTAINER:PATH, a path of the host, or `-` for a tar archive on stdin
    pub(crate) src: String,
    /// A path of the host, CONTAINER:PATH, or `-` for a tar archive to stdout
    pub(crate) dst: String,
}

/// Options of `hull port`.
#[derive(Debug, Args)]
pub(crate) struct Port {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Pod or container, by id, prefix of the id, or name
    pub(crate) name: String,
    /// Print only the host ports of this port of the container, as in 80 or 80/udp
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}

/// Options of `hull events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// End after this many events [default: never]
    #[arg(long, value_name = "COUNT", value_parser = number("events", 1..=u64::MAX))]
    pub(crate) count: Option<u64>,
    /// Print events since a time, RFC 3339 or in seconds since 1970, or since so long ago, as in 10m [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// End at a time, RFC 3339 or in seconds since 1970, or at so long ago; alone, also print the kept events before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Print only events of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// Options of `hull update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) of: Names,
}

/// Arguments of `hull create-container`.
#[derive(Debug, Args)]
pub(crate) struct CreateContainer {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Pod, by id, prefix of the id, or name
    pub(crate) pod: String,
    /// ContainerConfig of CRI, in YAML or JSON
    pub(crate) container_config: PathBuf,
    /// PodSandboxConfig of CRI, in YAML or JSON
    pub(crate) pod_config: PathBuf,
}

/// Options of `hull checkpoint`.
#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    pub(crate) place: Place,
    /// File to write, which must not be there; only root can read it
    #[arg(long, value_name = "FILE")]
    pub(crate) export: PathBuf,
    /// Container, by id, prefix of the id, name, POD/NAME or NAMESPACE/POD/NAME
    pub(crate) name: String,
}
