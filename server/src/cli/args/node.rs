// SPDX-License-Identifier: Apache-2.0
//! The options of the commands for the node and its configuration, beside those of [`images`](super::images).

use super::super::format::{ListArgs, OutputArgs};
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
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigWhat {
    /// Print every setting with its default and a description, as a configuration file
    Default,
    /// Print the merged configuration, and where each value comes from
    Show {
        /// Print the configuration of the running daemon instead of the files
        #[arg(long)]
        daemon: bool,
    },
    /// List the settings that differ between the files and the running daemon, and which of them need a restart
    Diff {
        #[command(flatten)]
        list: ListArgs,
    },
}

/// Options of `hull reload`.
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// Arguments of `hull log-level`.
#[derive(Debug, Args)]
pub(crate) struct LogLevel {
    /// Level: off, error, warn, info, debug or trace; or levels of modules, as in hull_image=debug,hull::pod=trace
    #[arg(value_name = "LEVEL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) filter: Option<String>,
    /// Go back to the configured level after this time, as in 10m [default: when the daemon ends]
    #[arg(long = "for", value_name = "DURATION", requires = "filter")]
    pub(crate) time: Option<String>,
    /// Go back to the configured level
    #[arg(long, conflicts_with = "filter")]
    pub(crate) reset: bool,
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
