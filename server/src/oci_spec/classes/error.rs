// SPDX-License-Identifier: Apache-2.0
//! Classes of resources that a container cannot have. Texts read after "cannot".

use super::annotations::{BLOCK_IO, RDT};

/// A class of resources that a container cannot have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("put the container into class `{class}` of block I/O: this node has no such classes")]
    NoFile { class: String },
    #[error("read the classes of block I/O in {path}: {why}")]
    File { path: String, why: String },
    #[error("put the container into class `{class}` of block I/O: {path} has only {known}")]
    Unknown { class: String, path: String, known: String },
    #[error("put the container into RDT class `{class}`: {why}")]
    NoResctrl { class: String, why: &'static str, hint: &'static str },
    #[error("put the container into RDT class `{class}`: the node has only {known}")]
    UnknownRdt { class: String, known: String },
    #[error("open the group of RDT class `{class}`")]
    Group { class: String, source: std::io::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoFile { .. } => {
                "set `runtime.blockio_config_file` to a file of classes, or remove the annotation"
                    .into()
            }
            Self::File { .. } => {
                "correct the file (`hull check` reads it again), or `runtime.blockio_config_file`"
                    .into()
            }
            Self::Unknown { path, .. } => format!(
                "correct the annotation `{}` or `{}NAME`, or add the class to {path}",
                BLOCK_IO.of_pod, BLOCK_IO.of_named
            ),
            Self::NoResctrl { hint, .. } => (*hint).into(),
            Self::UnknownRdt { .. } => format!(
                "correct the annotation `{}` or `{}NAME`, or make the group (mkdir /sys/fs/resctrl/NAME, then write its schemata)",
                RDT.of_pod, RDT.of_named
            ),
            Self::Group { .. } => return None,
        })
    }
}
