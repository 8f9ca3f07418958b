// SPDX-License-Identifier: Apache-2.0
//! Explanations of failures: one sentence, and a hint.
//!
//! `hull-plan` knows what each step of a start means; what needs a look into the image (is the
//! program there, what kind of file is it, is its interpreter there?) is added here.

use crate::container::ContainerRecord;
use crate::container::state::{ExitDetails, ExitReason, OutOfMemory};
use crate::node::Node;
use hull_image::Image;
use hull_plan::{Failure, Plan, Process, elf};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

/// Most bytes of a program that are looked at.
const PROGRAM_BYTES_MAX: usize = 64 << 10;

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
    let failure = hull_plan::diagnose_process(process, &error);
    match node.images.find(&record.image_id) {
        Some(image) if hull_plan::is_exec(&error) => {
            program(node, record, &image, process, failure)
        }
        _ => failure,
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
    // The writable layer may hold it too: looked at as the topmost, read-only layer.
    let rootfs = node.images.rootfs(&record.id, image);
    let layers: Vec<PathBuf> = std::iter::once(rootfs.upper).chain(rootfs.lower).collect();
    let Ok(view) = hull_image::view(&layers) else { return failure };
    let inside = Inside { view };
    if let Some(found) = elf::explain(process, &inside) {
        failure.what = found.what;
        failure.hint = found.hint.or(failure.hint);
        failure.evidence.extend(found.evidence);
    }
    failure
}

/// The container's files, for `elf`.
struct Inside {
    view: OwnedFd,
}

impl elf::Files for Inside {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        hull_image::read_start_inside(self.view.as_fd(), path, PROGRAM_BYTES_MAX).ok().flatten()
    }
}

/// Reason and message of an exit, for ContainerStatus. The message is empty where the reason and the exit code say
/// everything: the program ended by itself, or because it was asked to stop.
pub(crate) fn end(record: &ContainerRecord, how: &ExitReason) -> (&'static str, String) {
    match how {
        ExitReason::Code { code: 0, details } if details.oom_kills == 0 => ("Completed", String::new()),
        ExitReason::Code { details, .. } | ExitReason::Signal { details, .. } if details.oom_kills > 0 => {
            ("OOMKilled", out_of_memory(record, details))
        }
        ExitReason::Code { code, details } => {
            ("Error", noted(details, format!("exited with code {code}"), true))
        }
        ExitReason::Signal { signal, details } => {
            let by = if details.stop_requested { ", sent because it was asked to stop" } else { "" };
            let text = format!("killed by signal {signal}{by}");
            ("Error", noted(details, text, details.stop_requested))
        }
        ExitReason::StartFailed { why } => ("StartError", why.clone()),
        ExitReason::Lost => (
            "Unknown",
            "its monitor was lost, so nobody saw how it ended; it was killed with the rest of its pod"
                .into(),
        ),
    }
}

fn out_of_memory(record: &ContainerRecord, details: &ExitDetails) -> String {
    let limit = record.resources().map_or(0, |resources| resources.memory_limit_in_bytes);
    let peak =
        details.memory_peak_bytes.map_or(String::new(), |peak| format!(", peak {}", mib(peak)));
    let more = "give the pod more memory, or find out what grew in it";
    match &details.out_of_memory {
        Some(OutOfMemory::Pod) => {
            return format!("out of memory: the pod reached its limit{peak} (hint: {more})");
        }
        Some(OutOfMemory::Above { cgroup }) => {
            return format!(
                "out of memory: cgroup {cgroup}, above the pod, reached its limit{peak} (hint: see what else runs in it)"
            );
        }
        Some(OutOfMemory::Node) => {
            return format!(
                "out of memory: the node had no more{peak} (hint: request as much memory as the pod needs, so that it runs where there is enough)"
            );
        }
        Some(OutOfMemory::Container) | None => {}
    }
    if limit > 0 {
        let limit = u64::try_from(limit).unwrap_or(0);
        return format!(
            "out of memory: container limit {}{peak} (hint: raise the container's memory limit, or find out what grew)",
            mib(limit)
        );
    }
    format!(
        "out of memory: the container has no limit of its own, so the pod or the node ran out{peak}"
    )
}

/// How it ended, with the events before that may explain it. Empty if there were none and the end is `ordinary`.
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

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(how: &ExitReason) -> (&'static str, String) {
        let record = serde_json::json!({
            "id": "c", "pod": "p", "config": {}, "image_id": "i", "image_ref": "i", "created_ns": 0,
            "cgroup": "/c", "log_path": "", "user": null, "stop_signal": 15, "state": "Created",
        });
        end(&serde_json::from_value(record).unwrap(), how)
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
        let denied = ExitDetails { denials: vec!["seccomp denied x".into()], ..details() };
        let (_, message) = text(&ExitReason::Code { code: 1, details: denied.clone() });
        assert_eq!(message, "exited with code 1; seccomp denied x");
        let asked = ExitDetails { stop_requested: true, ..denied };
        let (_, message) = text(&ExitReason::Signal { signal: 9, details: asked });
        assert!(message.contains("asked to stop; seccomp denied x"), "{message}");
        let refused = ExitDetails { pids_refused: 3, ..details() };
        let (_, message) = text(&ExitReason::Code { code: 2, details: refused });
        assert!(message.starts_with("exited with code 2; its pids limit"), "{message}");
        let out = ExitDetails { oom_kills: 1, ..details() };
        let (reason, message) = text(&ExitReason::Code { code: 0, details: out });
        assert_eq!(reason, "OOMKilled");
        assert!(message.starts_with("out of memory"), "{message}");
    }
}
