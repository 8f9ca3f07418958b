// SPDX-License-Identifier: Apache-2.0
//! The options of `hull logs`.

use super::place::{InPod, LinesOrNamespace};
use clap::Args;

/// Options of `hull logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Follow the output until the container exits
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only the last lines [default: all]
    #[arg(long, value_name = "LINES", value_parser = super::super::parse::lines)]
    pub(crate) tail: Option<usize>,
    /// Look for names only in pods of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The same as --tail for a number, as docker has it, else the same as --namespace, as kubectl has it
    #[arg(short = 'n', value_name = "LINES|NAMESPACE", value_parser = LinesOrNamespace::parse)]
    pub(crate) lines_or_namespace: Vec<LinesOrNamespace>,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    /// Print the time of each line before it, RFC 3339 in UTC
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print only lines since a time, RFC 3339, or since so long ago, as in 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Print only lines until a time, RFC 3339, or until so long ago, as in 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Print what the container wrote before it was started last
    #[arg(short, long, conflicts_with = "follow")]
    pub(crate) previous: bool,
    /// Print the logs of all containers of a pod
    #[arg(long)]
    pub(crate) all_containers: bool,
    /// Containers, by id, prefix of the id, name, POD/NAME or NAMESPACE/POD/NAME; several have their names before lines
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}
