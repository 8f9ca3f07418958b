// SPDX-License-Identifier: Apache-2.0
//! How something ended, for its timeline. Pure.

use super::{ends, explain};
use crate::container::ContainerRecord;
use crate::container::state::ExitReason;
use crate::error::{Chain, Error};
use crate::history::End;
use crate::pod;
use hull_plan::{Certainty, Diagnosis, LastLines, Layer};

/// The exit of a container.
pub(crate) fn of_exit(record: &ContainerRecord, how: &ExitReason, at_ns: i64) -> End {
    let (reason, message) = explain::end(record, how);
    let (exit_code, signal, details) = match how {
        ExitReason::Code { code, details } => (Some(*code), None, Some(details)),
        ExitReason::Signal { signal, details } => (None, Some(*signal), Some(details)),
        ExitReason::StartFailed { .. } | ExitReason::Lost => (None, None, None),
    };
    let known = details.and_then(|of| of.diagnosis.as_deref().cloned());
    let is_by_request = known
        .as_ref()
        .is_some_and(|of| of.kind == ends::BY_REQUEST && of.certainty == Certainty::Certain);
    let is_asked = is_by_request || details.is_some_and(|of| of.stop_requested);
    End {
        at_ns,
        reason: reason.to_owned(),
        diagnosis: known.or_else(|| of_sentence(&message)),
        output: details.map_or_else(LastLines::default, |of| of.output.clone()),
        exit_code,
        signal,
        ordinary: reason != "OOMKilled" && (exit_code == Some(0) || is_asked),
    }
}

/// A verb that failed: the start of a container or of a pod.
pub(crate) fn of_error(error: &Error, reason: &str, at_ns: i64) -> End {
    let diagnosis = if let Error::Failed { failure, .. } = error {
        Diagnosis::from((**failure).clone())
    } else {
        Diagnosis {
            kind: reason.to_owned(),
            layer: layer(error),
            what: format!("cannot {}", Chain(error)),
            cause: None,
            certainty: Certainty::Certain,
            evidence: Vec::new(),
            fix: error.hint(),
        }
    };
    End { at_ns, reason: reason.to_owned(), diagnosis: Some(diagnosis), ..End::default() }
}

/// A pull that failed.
pub(crate) fn of_pull(error: &hull_image::Error, at_ns: i64) -> End {
    let diagnosis = Diagnosis {
        kind: "pull".into(),
        layer: Layer::Image,
        what: format!("cannot {}", Chain(error)),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: error.hint(),
    };
    End { at_ns, reason: "PullError".into(), diagnosis: Some(diagnosis), ..End::default() }
}

/// The end of a pod whose pause process or monitor ended by itself.
pub(crate) fn of_lost_sandbox(at_ns: i64) -> End {
    let diagnosis = Diagnosis {
        kind: "sandbox-lost".into(),
        layer: Layer::Process,
        what: "the pause process or the monitor of the pod ended by itself".into(),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(
            "find out who killed it (`journalctl -k` has kills by the kernel, `journalctl -u hull` the rest); \
             the kubelet makes the pod again"
                .into(),
        ),
    };
    End { at_ns, reason: "SandboxLost".into(), diagnosis: Some(diagnosis), ..End::default() }
}

/// A sentence that may end in ` (hint: …)`.
fn of_sentence(sentence: &str) -> Option<Diagnosis> {
    if sentence.is_empty() {
        return None;
    }
    let parts = sentence.strip_suffix(')').and_then(|text| text.rsplit_once(" (hint: "));
    let (what, fix) = parts.map_or((sentence, None), |(what, fix)| (what, Some(fix.to_owned())));
    let is_memory = what.starts_with("out of memory");
    Some(Diagnosis {
        kind: "exit".into(),
        layer: if is_memory { Layer::Cgroup } else { Layer::Process },
        what: what.to_owned(),
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix,
    })
}

/// The part of the system that an error belongs to.
fn layer(error: &Error) -> Layer {
    if let Error::Failed { failure, .. } = error {
        return failure.layer;
    }
    if let Error::AskedBy { source, .. } = error {
        return layer(source);
    }
    if let Error::Parts { source, .. } = error {
        return layer_of_part(source);
    }
    if matches!(error, Error::NoImage { .. } | Error::Image { .. } | Error::SubPath { .. }) {
        Layer::Image
    } else if matches!(
        error,
        Error::SetLimits { .. }
            | Error::Freezer { .. }
            | Error::Stats { .. }
            | Error::ForeignLimits { .. }
    ) {
        Layer::Cgroup
    } else if matches!(error, Error::ProfileLost { .. }) {
        Layer::Security
    } else if matches!(
        error,
        Error::Rootfs { .. }
            | Error::NoQuotas { .. }
            | Error::VolumeSource { .. }
            | Error::Log { .. }
            | Error::LogFile { .. }
            | Error::Storage { .. }
            | Error::Store { .. }
    ) {
        Layer::Filesystem
    } else {
        Layer::Process
    }
}

fn layer_of_part(error: &pod::Error) -> Layer {
    if let pod::Error::Pause { failure } = error {
        return failure.layer;
    }
    if matches!(
        error,
        pod::Error::Attach { .. }
            | pod::Error::Detach { .. }
            | pod::Error::HostPort { .. }
            | pod::Error::Netns { .. }
            | pod::Error::OpenNetns { .. }
    ) {
        Layer::Namespace
    } else if matches!(error, pod::Error::Cgroup { .. } | pod::Error::ClearCgroup { .. }) {
        Layer::Cgroup
    } else {
        Layer::Filesystem
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::ExitDetails;

    fn record() -> ContainerRecord {
        let record = serde_json::json!({
            "id": "c", "pod": "p", "config": {}, "image_id": "i", "image_ref": "i", "created_ns": 0,
            "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15, "state": "Created",
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn an_end_that_was_asked_for_is_ordinary() {
        let exit = |code, stop_requested| {
            let details = ExitDetails { stop_requested, ..ExitDetails::default() };
            of_exit(&record(), &ExitReason::Code { code, details }, 1)
        };
        assert!(exit(0, false).ordinary && exit(143, true).ordinary);
        let failed = exit(1, false);
        assert!(!failed.ordinary && failed.diagnosis.is_none());
        assert_eq!((failed.exit_code, failed.signal), (Some(1), None));
    }

    #[test]
    fn an_end_that_only_may_have_been_asked_for_is_not_ordinary() {
        for (certainty, wanted) in [(Certainty::Certain, true), (Certainty::Likely, false)] {
            let diagnosis = Diagnosis {
                kind: ends::BY_REQUEST.into(),
                layer: Layer::Process,
                what: "killed by signal 9 (SIGKILL)".into(),
                cause: None,
                certainty,
                evidence: Vec::new(),
                fix: None,
            };
            let diagnosis = Some(Box::new(diagnosis));
            let details = ExitDetails { diagnosis, ..ExitDetails::default() };
            let end = of_exit(&record(), &ExitReason::Signal { signal: 9, details }, 1);
            assert_eq!(end.ordinary, wanted, "{certainty:?}");
        }
    }

    #[test]
    fn the_hint_of_a_sentence_is_the_fix() {
        let details = ExitDetails { oom_kills: 1, stop_requested: true, ..ExitDetails::default() };
        let end = of_exit(&record(), &ExitReason::Signal { signal: 9, details }, 1);
        assert!(!end.ordinary, "also while it was being stopped");
        let diagnosis = end.diagnosis.unwrap();
        assert_eq!(diagnosis.layer, Layer::Cgroup);
        let whole = of_sentence("it (x) failed (hint: do (this))").unwrap();
        assert_eq!((&*whole.what, whole.fix.as_deref()), ("it (x) failed", Some("do (this)")));
        assert_eq!(of_sentence(""), None);
    }

    #[test]
    fn an_error_becomes_its_sentence_and_its_hint() {
        let error = Error::NoImage { image: "app:1".into() };
        let end = of_error(&error, "CreateError", 5);
        let diagnosis = end.diagnosis.unwrap();
        assert!(diagnosis.what.contains("app:1") && diagnosis.fix.unwrap().contains("hull pull"));
        assert_eq!((diagnosis.layer, end.at_ns, end.ordinary), (Layer::Image, 5, false));
    }
}
