// SPDX-License-Identifier: Apache-2.0
//! The options that say where a name is looked for.

use clap::Args;

/// The namespace in which names are looked for.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct Place {
    /// Look for names only in pods of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// The container of a pod.
#[derive(Debug, Default, Clone, Args)]
pub(crate) struct InPod {
    /// Container of the pod that is named, as kubectl has it
    #[arg(short, long, value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
}

/// The value of `hull logs -n`: a number of lines as docker has it, or a namespace as kubectl has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinesOrNamespace {
    Lines(usize),
    Namespace(String),
}

impl LinesOrNamespace {
    /// Parses it. No error: what is not a number of lines is a name.
    pub(crate) fn parse(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(super::super::parse::lines(text)
            .map_or_else(|_| Self::Namespace(text.to_owned()), Self::Lines))
    }
}
