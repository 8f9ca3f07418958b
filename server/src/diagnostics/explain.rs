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
        hull_image::read_inside(self.view.as_fd(), path, PROGRAM_BYTES_MAX).ok().flatten()
    }
}

/// Reason and message of an exit, for ContainerStatus.
pub(crate) fn end(record: &ContainerRecord, how: &ExitReason) -> (&'static str, String) {
    match how {
        ExitReason::Code { code: 0, details } if details.oom_kills == 0 => ("Completed", String::new()),
        ExitReason::Code { details, .. } | ExitReason::Signal { details, .. } if details.oom_kills > 0 => {
            ("OOMKilled", out_of_memory(record, details))
        }
        ExitReason::Code { code, details } => ("Error", noted(details, format!("exited with code {code}"))),
        ExitReason::Signal { signal, details } => {
            let by = if details.stop_requested { ", sent because it was asked to stop" } else { "" };
            ("Error", noted(details, format!("killed by signal {signal}{by}")))
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

/// How it ended, and what was seen before that might be why.
fn noted(details: &ExitDetails, mut text: String) -> String {
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
