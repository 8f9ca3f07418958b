// SPDX-License-Identifier: Apache-2.0
//! The options of the commands that print documents.

use super::super::format::OutputArgs;
use super::place::Place;
use clap::Args;

/// Options of `hull inspect` and of its forms for one kind of objects.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Containers, pods or images, by id, prefix of the id, or name
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

/// Options of a command that prints one document.
#[derive(Debug, Args)]
pub(crate) struct Document {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
