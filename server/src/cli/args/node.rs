// SPDX-License-Identifier: Apache-2.0
//! The options of the commands for the node and its configuration, beside those of [`images`](super::images).

use super::super::format::OutputArgs;
use clap::{Args, Subcommand};

/// Options of `hull check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Print only warnings and what is missing
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Arguments of `hull config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) what: ConfigWhat,
}

/// Commands of `hull config`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum ConfigWhat {
    /// Print every setting with its default and a description, as a configuration file
    Default,
    /// Print the merged configuration, and where each value comes from
    Show {
        /// Print the configuration of the running daemon instead of the files
        #[arg(long)]
        daemon: bool,
    },
}

/// Arguments of `hull completion`.
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// Shell to complete for
    pub(crate) shell: clap_complete::Shell,
}

/// Arguments of `hull schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Command, as in `ps` or `"play kube"` [default: all]
    pub(crate) command: Option<String>,
}
