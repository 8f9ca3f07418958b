// SPDX-License-Identifier: Apache-2.0
//! One finding of an account.

use crate::history::FailedExec;
use hull_plan::{Diagnosis, LastLines};
use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Weight {
    /// It does not do what was asked for.
    Failure,
    /// It runs, and something is wrong.
    Warning,
    /// Nothing is wrong; people who look for a cause want to know it.
    #[default]
    Note,
}

/// Something that explains the object's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Finding {
    /// The full name of what it is about.
    pub(crate) about: String,
    pub(crate) weight: Weight,
    pub(crate) at_ns: i64,
    pub(crate) diagnosis: Diagnosis,
    /// The last lines that the container wrote.
    #[serde(default, skip_serializing_if = "LastLines::is_empty")]
    pub(crate) output: LastLines,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed_exec: Option<FailedExec>,
}
