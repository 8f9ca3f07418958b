// SPDX-License-Identifier: Apache-2.0
//! The commands for images, registries and the node, beside those of [`Command`](super::Command).

use super::super::format::ListArgs;
use super::inspect::{Document, Inspect};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Commands for images, registries and the node.
#[derive(Debug, Subcommand)]
pub(crate) enum Stored {
    /// Give an image another name
    #[command(after_help = "Example:\n  hull tag app:1 registry.example/app:1")]
    Tag(Tag),
    /// List the steps by which an image was made
    #[command(
        after_help = "Examples:\n  hull history app:1\n  hull history --no-trunc -o json app:1"
    )]
    History(History),
    /// Show the full state of images
    Inspecti(Inspect),
    /// Remove what is not used: stopped containers, pods without containers, images
    #[command(after_help = "\
Examples:
  hull prune                    ask, then remove exited containers and empty pods of `hull run`
  hull prune --images           images without a tag that no container uses
  hull prune --images --all     all images that no container uses
  hull prune --all -y           containers, pods and all images that no container uses, without asking

Pods of a kubelet are left alone, and so are pinned images.")]
    Prune(Prune),
    /// Show how much disk space images and writable layers use
    Df(Listed),
    /// Show the file systems of images, as `crictl imagefsinfo` does
    Imagefsinfo(Document),
    /// Store credentials for a registry in docker's configuration file
    #[command(after_help = "\
Examples:
  hull login registry.example
  hull login -u me --password-stdin registry.example < password

The file is $DOCKER_CONFIG/config.json or ~/.docker/config.json; credential helpers named there keep the password.
`hull pull` and `hull run` read the same file. The kubelet does not: its credentials come with its pods.")]
    Login(Login),
    /// Remove the credentials for a registry from docker's configuration file
    Logout(Logout),
    /// Show the state and configuration of the node
    #[command(after_help = "Examples:\n  hull info\n  hull info -o json | jq .cgroup")]
    Info(Document),
    /// Print the daemon's own metrics, as a Prometheus server gets them
    #[command(after_help = "\
Examples:
  hull metrics
  hull metrics | grep ^hull_operation_oldest_seconds      what hangs, and how long it has
  hull metrics | promtool check metrics

The format is OpenMetrics text. docs/metrics.md lists the metrics; docs/operate.md says how a Prometheus server gets
them. Metrics of pods are in `hull metricsp`.")]
    Metrics,
    /// Write man pages for all commands into a directory
    #[command(hide = true)]
    Man(Man),
}

/// Arguments of `hull tag`.
#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// Image, by name or id; a new name that another image has moves to this one
    pub(crate) image: String,
    /// New names, each with an optional tag
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of `hull history`.
#[derive(Debug, Args)]
pub(crate) struct History {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Image, by name or id
    pub(crate) image: String,
}

/// Options of `hull prune`.
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove unused images without a tag, instead of containers and pods
    #[arg(long)]
    pub(crate) images: bool,
    /// Remove all unused images; without --images also containers and pods
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(short = 'y', long, visible_short_alias = 'f', visible_alias = "force")]
    pub(crate) yes: bool,
}

/// Options of a command that lists one kind of objects.
#[derive(Debug, Args)]
pub(crate) struct Listed {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// Options of `hull login`.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// User name [default: ask]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password; other users see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Registry, as HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

/// Arguments of `hull logout`.
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Registry, as HOST or HOST:PORT
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

/// Arguments of `hull man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory, which must exist
    pub(crate) directory: PathBuf,
}
