// SPDX-License-Identifier: Apache-2.0
//! The answer to "why": the common form of all explanations, of failed starts and of ends.
//!
//! The daemon creates one for each end that it can explain and keeps it in the container's record (`diagnosis` of the
//! exit's details), so statuses, verbose info, logs and commands all show the same. A failed start becomes one by
//! `Diagnosis::from(failure)`. A monitor creates none: it sends what it observed (exit, counters, the last lines of
//! output; `hull_proto::monitor`), and links neither this crate nor serde.
//!
//! What was observed and what follows from it are separate: [`Diagnosis::what`] is certain, [`Diagnosis::cause`] is
//! as certain as [`Diagnosis::certainty`] says. Neither contains output of the container: a reader of a pod's status
//! may not be allowed to read its log. Lines of output are in [`LastLines`], for readers on the node.

use crate::{Failure, Layer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How sure a cause is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Certainty {
    /// The kernel or Hull itself reported it.
    #[default]
    Certain,
    /// Inferred from what the container's spec and the evidence have in common; shown after "likely:".
    Likely,
}

/// Why something failed, in the form that all readers share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// A stable word for programs: `oom-pod`, `capability-missing`, `port-taken`; for a failed start the stage.
    pub kind: String,
    /// The part of the system in which the cause is.
    pub layer: Layer,
    /// The observation, in one clause. Certain.
    pub what: String,
    /// Why it happened, in one clause, if more is known than `what` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How sure the cause is.
    #[serde(default)]
    pub certainty: Certainty,
    /// Observations that support it; output of the container only where the node's settings or the pod say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// The change that fixes it, if one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The last lines that a container wrote, escaped and shortened. Never part of a status or a log message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLines {
    /// Lines of standard output, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stdout: Vec<String>,
    /// Lines of standard error, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
}

impl LastLines {
    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }
}

impl Layer {
    /// Its name for people and in JSON: `process`, `filesystem`, `namespace`, `cgroup`, `security`, `image`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Filesystem => "filesystem",
            Self::Namespace => "namespace",
            Self::Cgroup => "cgroup",
            Self::Security => "security",
            Self::Image => "image",
        }
    }
}

impl From<Failure> for Diagnosis {
    /// A failed start: all of it is certain.
    fn from(failure: Failure) -> Self {
        Self {
            kind: failure.stage,
            layer: failure.layer,
            what: failure.what,
            cause: None,
            certainty: Certainty::Certain,
            evidence: failure.evidence,
            fix: failure.hint,
        }
    }
}

/// One sentence: `exited with code 1: permission denied; likely: uid 1000 may not write to `/data` (hint: …)`.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for seen in &self.evidence {
            write!(f, "; {seen}")?;
        }
        match (&self.cause, self.certainty) {
            (Some(cause), Certainty::Certain) => write!(f, "; {cause}")?,
            (Some(cause), Certainty::Likely) => write!(f, "; likely: {cause}")?,
            (None, _) => {}
        }
        match &self.fix {
            Some(fix) => write!(f, " (hint: {fix})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_separates_what_is_certain_from_what_is_inferred() {
        let mut diagnosis = Diagnosis {
            kind: "volume-permission".into(),
            layer: Layer::Filesystem,
            what: "exited with code 1".into(),
            cause: Some("uid 1000 may not write to `/data`".into()),
            certainty: Certainty::Likely,
            evidence: vec!["permission denied".into()],
            fix: Some("set fsGroup".into()),
        };
        let wanted = "exited with code 1; permission denied; likely: uid 1000 may not write to `/data` (hint: set fsGroup)";
        assert_eq!(diagnosis.to_string(), wanted);
        diagnosis.certainty = Certainty::Certain;
        diagnosis.evidence.clear();
        diagnosis.fix = None;
        assert_eq!(diagnosis.to_string(), "exited with code 1; uid 1000 may not write to `/data`");
    }

    #[test]
    fn records_of_other_releases_are_read() {
        let least = r#"{"kind":"signal","layer":"Process","what":"killed by SIGSEGV"}"#;
        let read: Diagnosis = serde_json::from_str(least).unwrap();
        assert_eq!((read.certainty, read.fix), (Certainty::Certain, None));
        assert!(serde_json::from_str::<LastLines>("{}").unwrap().is_empty());
    }
}
