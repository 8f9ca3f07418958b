// SPDX-License-Identifier: Apache-2.0
//! Explanations of failures: one sentence, and a hint.
//!
//! `hull-plan` knows what each step of a start means; what needs a look into the image (is the
//! program there, what kind of file is it, is its interpreter there?) is added here.

use crate::container::state::{ExitDetails, ExitReason};
use crate::container::{ContainerRecord, exit_details};
use crate::diagnostics::ends;
use crate::diagnostics::paths::{self, Inside};
use crate::diagnostics::running;
use crate::node::Node;
use hull_cgroup::ReachedLimit;
use hull_image::Image;
use hull_plan::{Failure, Plan, Process, elf};
use std::os::fd::AsFd as _;

/// No further process is allowed: errno(3).
const EAGAIN: i32 = 11;

/// A failed step of a container's start. `step` is what the monitor sent.
pub(crate) fn step(
    node: &Node,
    record: &ContainerRecord,
    image: &Image,
    plan: &Plan,
    step: &[u8],
) -> Failure {
    let Some(error) = hull_plan::decode_step(step) else { return unreadable() };
    let failure = hull_plan::diagnose(plan, &error);
    if hull_plan::is_exec(&error) {
        program(node, record, image, &plan.process, failure)
    } else {
        failure
    }
}

/// A failed step of an exec.
pub(crate) fn exec(
    node: &Node,
    record: &ContainerRecord,
    process: &Process,
    step: &[u8],
) -> Failure {
    let Some(error) = hull_plan::decode_step(step) else { return unreadable() };
    let mut failure = hull_plan::diagnose_process(process, &error);
    if hull_plan::is_memory(&error) {
        failure.evidence.extend(exit_details::reached(node, record, 1).map(whose_memory(record)));
    }
    // A limit of processes was reached; zombies count too.
    if error.errno == EAGAIN
        && let Some(zombies) = running::zombies(record)
    {
        failure.evidence.push(zombies.what);
        failure.hint = zombies.fix;
    }
    match node.images.find(&record.image_id) {
        Some(image) if hull_plan::is_exec(&error) => {
            program(node, record, &image, process, failure)
        }
        _ => failure,
    }
}

/// Says whose memory limit was reached; `None` stands for the node.
fn whose_memory(record: &ContainerRecord) -> impl Fn(Option<ReachedLimit>) -> String {
    move |reached| {
        let Some(reached) = reached else { return "the node had no memory left".to_owned() };
        let limit = reached.limit_bytes.map(|bytes| format!(" of {}", ends::memory::size(bytes)));
        let limit = limit.unwrap_or_default();
        if reached.cgroup == record.cgroup {
            format!("its container reached its memory limit{limit}")
        } else {
            format!("cgroup {} above its container reached its memory limit{limit}", reached.cgroup)
        }
    }
}

fn unreadable() -> Failure {
    Failure {
        layer: hull_plan::Layer::Process,
        stage: "start".into(),
        what: "the pod's monitor sent an error that this daemon cannot read".into(),
        evidence: Vec::new(),
        hint: Some("restart the pod, so that it gets a monitor of this daemon's version".into()),
    }
}

/// Looks at the program that could not be executed.
fn program(
    node: &Node,
    record: &ContainerRecord,
    image: &Image,
    process: &Process,
    mut failure: Failure,
) -> Failure {
    let Some(view) = paths::view(node, record, image) else { return failure };
    if let Some(found) = elf::explain(process, &Inside::new(view.as_fd())) {
        failure.what = found.what;
        failure.hint = found.hint.or(failure.hint);
        failure.evidence.extend(found.evidence);
    }
    failure
}

/// Reason and message of an exit, for ContainerStatus. The message is empty where the reason and the exit code say
/// everything: the program ended by itself, or because it was asked to stop. It contains lines of its output only if the
/// node's settings or the pod allow that.
pub(crate) fn end(record: &ContainerRecord, how: &ExitReason) -> (&'static str, String) {
    match how {
        ExitReason::Code { details, .. } | ExitReason::Signal { details, .. } if details.oom_kills > 0 => {
            let limit = record.resources().map_or(0, |resources| resources.memory_limit_in_bytes);
            let limit = u64::try_from(limit).unwrap_or(0);
            ("OOMKilled", ends::memory::diagnosis(details, limit, true).to_string())
        }
        ExitReason::Code { code, details } => {
            let reason = if *code == 0 { "Completed" } else { "Error" };
            // Whatever was denied before, it ended as it wanted to; records of earlier versions say otherwise.
            if *code == 0 {
                return (reason, String::new());
            }
            let text = format!("exited with code {code}");
            (reason, known(details).unwrap_or_else(|| noted(details, text, true)))
        }
        ExitReason::Signal { signal, details } => {
            let by = if details.stop_requested { ", sent because it was asked to stop" } else { "" };
            let text = format!("killed by signal {signal}{by}");
            let noted = || noted(details, text, details.stop_requested);
            ("Error", known(details).unwrap_or_else(noted))
        }
        ExitReason::StartFailed { why } => ("StartError", why.clone()),
        ExitReason::Lost => (
            "Unknown",
            "its monitor was lost, so nobody saw how it ended; it was killed with the rest of its pod"
                .into(),
        ),
    }
}

fn known(details: &ExitDetails) -> Option<String> {
    details.diagnosis.as_ref().map(ToString::to_string)
}

/// How it ended, by a record without a diagnosis: with the events before that may explain it. Empty if there were none and the end is `ordinary`.
fn noted(details: &ExitDetails, mut text: String, ordinary: bool) -> String {
    if ordinary && details.pids_refused == 0 && details.denials.is_empty() {
        return String::new();
    }
    if details.pids_refused > 0 {
        let refused =
            format!("; its pids limit refused {} new processes before", details.pids_refused);
        text.push_str(&refused);
    }
    for denial in &details.denials {
        text.push_str("; ");
        text.push_str(denial);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_plan::Diagnosis;

    fn record() -> ContainerRecord {
        let record = serde_json::json!({
            "id": "c", "pod": "p", "config": {}, "image_id": "i", "image_ref": "i", "created_ns": 0,
            "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15, "state": "Created",
        });
        serde_json::from_value(record).unwrap()
    }

    fn text(how: &ExitReason) -> (&'static str, String) {
        end(&record(), how)
    }

    #[test]
    fn memory_that_an_exec_lacks_is_that_of_whose_limit_was_reached() {
        let record = record();
        let reached = |cgroup: &str, limit_bytes| {
            let reached = ReachedLimit { cgroup: cgroup.into(), limit_bytes, peak_bytes: None };
            whose_memory(&record)(Some(reached))
        };
        let own = "its container reached its memory limit of 16 MiB";
        assert_eq!(reached("/c", Some(16 << 20)), own);
        assert_eq!(reached("/", None), "cgroup / above its container reached its memory limit");
        assert_eq!(whose_memory(&record)(None), "the node had no memory left");
    }

    #[test]
    fn an_ordinary_end_has_no_message() {
        let details = ExitDetails::default;
        for code in [0, 1, 143] {
            let (reason, message) = text(&ExitReason::Code { code, details: details() });
            assert_eq!((reason, &*message), (if code == 0 { "Completed" } else { "Error" }, ""));
        }
        let asked = ExitDetails { stop_requested: true, ..details() };
        assert_eq!(text(&ExitReason::Signal { signal: 9, details: asked }), ("Error", "".into()));
    }

    #[test]
    fn what_the_exit_code_does_not_say_is_in_the_message() {
        let details = ExitDetails::default;
        let (_, message) = text(&ExitReason::Signal { signal: 11, details: details() });
        assert_eq!(message, "killed by signal 11");
        let denied = ExitDetails { denials: ["seccomp denied x".into()].into(), ..details() };
        let (_, message) = text(&ExitReason::Code { code: 1, details: denied.clone() });
        assert_eq!(message, "exited with code 1; seccomp denied x");
        let asked = ExitDetails { stop_requested: true, ..denied };
        let (_, message) = text(&ExitReason::Signal { signal: 9, details: asked });
        assert!(message.contains("asked to stop; seccomp denied x"), "{message}");
        let refused = ExitDetails { pids_refused: 3, ..details() };
        let known = Diagnosis::from(unreadable());
        let known = ExitDetails { diagnosis: Some(Box::new(known)), ..details() };
        let denied = ExitDetails { denials: ["seccomp denied x".into()].into(), ..details() };
        for details in [refused.clone(), denied, known] {
            assert_eq!(text(&ExitReason::Code { code: 0, details }), ("Completed", "".into()));
        }
        let (_, message) = text(&ExitReason::Code { code: 2, details: refused });
        assert!(message.starts_with("exited with code 2; its pids limit"), "{message}");
        let out = ExitDetails { oom_kills: 1, ..details() };
        let (reason, message) = text(&ExitReason::Code { code: 0, details: out });
        assert_eq!(reason, "OOMKilled");
        assert!(message.starts_with("out of memory"), "{message}");
    }
}
