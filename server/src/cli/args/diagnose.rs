// SPDX-License-Identifier: Apache-2.0
//! The commands that look for causes.

use super::super::format::{Format, OutputArgs, docker_format};
use super::place::{InPod, Place};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Commands that look for causes.
#[derive(Debug, Subcommand)]
pub(crate) enum Diagnose {
    /// Explain what is wrong with a pod, container or image, and what helps
    #[command(after_help = "\
Examples:
  hull explain web
  hull explain kube-system/coredns-x7k2p
  hull explain registry.example/app:1        the last pull of this image
  hull explain -o json web | jq .findings

Prints the state, what is wrong with its layer, cause, evidence and fix, and the timeline. What is inferred, and not
known for certain, begins with `likely:`. The exit code is 0 if nothing is wrong, and 1 otherwise. Pods and containers
that are gone are known, too: the last 1000.")]
    Explain(Explain),
    /// Show the start of a pod as a waterfall: its stages, and how long each took
    #[command(
        after_help = "Examples:\n  hull trace web\n  hull trace -o svg web > web.svg\n  hull trace -o json web | jq '.stages[] | select(.tookUs > 10000)'"
    )]
    Trace(Trace),
    /// Compare what was recorded with what is on the host, and remove leaks with --fix
    #[command(after_help = "\
Examples:
  hull doctor
  hull doctor --fix
  hull doctor --bundle report.tar        for a bug report: without secrets, and without output of containers

A leak is on the host and has no record; --fix removes it. A mismatch is recorded and not so on the host. The exit code
is 0 if nothing is left, and 1 otherwise.")]
    Doctor(Doctor),
}

/// Options of `hull explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Pod, container or image: id, prefix of the id, name, NAMESPACE/POD, NAMESPACE/POD/CONTAINER, or image
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// Options of `hull doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Remove the leaks that are found
    #[arg(long)]
    pub(crate) fix: bool,
    /// Write an archive for a bug report to this file, which must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
}

/// Options of `hull trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) in_pod: InPod,
    /// Form of the waterfall: text (lines with bars, as wide as the terminal), svg (a picture for browsers), or a document:
    /// json, jsonl, yaml, name, or go-template=TEMPLATE
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Waterfall,
    /// Print the document by a template, as in '{{.name}} {{.tookUs}}'; or `json` for one line
    #[arg(long, value_name = "TEMPLATE", value_parser = docker_format, conflicts_with = "output")]
    pub(crate) format: Option<Format>,
    /// Show the stages of the end, too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Pod or container: id, prefix of the id, name, NAMESPACE/POD or NAMESPACE/POD/CONTAINER
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// The forms of a waterfall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waterfall {
    /// Lines with bars, as wide as the terminal.
    Text,
    /// A picture for browsers.
    Svg,
    /// One document, as other commands print theirs.
    Document(Format),
}

impl std::str::FromStr for Waterfall {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" | "table" | "wide" => Ok(Self::Text),
            "svg" => Ok(Self::Svg),
            other => other.parse().map(Self::Document).map_err(|why: String| {
                // A wrong template has a sentence of its own.
                if other.contains('=') { why } else { why.replace("table, wide", "text, svg") }
            }),
        }
    }
}
