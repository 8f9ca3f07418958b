// SPDX-License-Identifier: Apache-2.0
//! Parts of a container's config that have no effect on this node, where other runtimes ignore them too. Each is a
//! sentence in the container's record, and a line in the daemon's log.

use super::{ContainerRecord, start};
use crate::node::Node;
use crate::oci_spec::{self, classes::OF_CLASS};
use crate::pod::PodRecord;
use ::oci_spec::runtime::Spec;
use hull_plan::{Layer, Plan, capabilities, seccomp};
use std::fs;

/// The remarks of a container that is being created.
pub(crate) fn of(
    node: &Node,
    pod: &PodRecord,
    record: &ContainerRecord,
    spec: &Spec,
    plan: &Plan,
) -> Vec<String> {
    let of_handler = pod.handler_settings.as_ref().is_some_and(|of| of.seccomp_profile.is_some());
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    // Hull's own profile needs no check.
    let profile = profile.filter(|_| of_handler || oci_spec::has_localhost_filter(&record.config));
    let unknown = profile.map(seccomp::unknown_calls).unwrap_or_default();
    let mut remarks = oci_spec::remarks(&record.config);
    remarks.extend(unknown.iter().map(unknown_call));
    let score = start::oom_score(record).or(plan.process.oom_score_adj);
    if let Some(score) = score.filter(|score| *score < 0 && !may_lower_scores(node)) {
        remarks.extend(own_score().and_then(|own| lower_score(score, own)));
    }
    remarks
}

/// How remarks on a seccomp profile and on a score begin.
const OF_PROFILE: &str = "its seccomp profile";
const OF_SCORE: &str = "its oom_score_adj";

/// The layer of a remark, by its beginning: a record keeps sentences.
pub(crate) fn layer(remark: &str) -> Layer {
    if remark.starts_with(OF_PROFILE) {
        Layer::Security
    } else if remark.starts_with(OF_SCORE) {
        Layer::Process
    } else if remark.starts_with(OF_CLASS) {
        Layer::Cgroup
    } else {
        Layer::Filesystem
    }
}

fn unknown_call(call: &seccomp::UnknownCall) -> String {
    let meant = call.meant.map_or(String::new(), |meant| format!(" (did you mean `{meant}`?)"));
    format!(
        "{OF_PROFILE} names `{}`, which is not a system call{meant}: rules for it have no effect",
        call.name
    )
}

/// Whether the daemon may give a process a lower score than its own.
fn may_lower_scores(node: &Node) -> bool {
    let number = capabilities::number("SYS_RESOURCE").unwrap_or(0);
    node.host.bounding_capabilities >> number & 1 == 1
}

/// The daemon's own score.
fn own_score() -> Option<i32> {
    fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}

fn lower_score(wanted: i32, own: i32) -> Option<String> {
    (wanted < own).then(|| {
        format!(
            "{OF_SCORE} {wanted} cannot be set, it stays {own}: this node lacks CAP_SYS_RESOURCE, so the \
             out-of-memory killer may choose this container earlier than its QoS class says"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remark_says_what_has_no_effect() {
        let call = seccomp::UnknownCall { name: "mkdri".into(), meant: Some("mkdir") };
        let text = unknown_call(&call);
        assert!(text.contains("`mkdri`") && text.contains("did you mean `mkdir`"), "{text}");
        assert_eq!(layer(&text), Layer::Security);
        let text = lower_score(-997, 0).unwrap();
        assert!(text.contains("oom_score_adj -997 cannot be set, it stays 0"), "{text}");
        assert_eq!(layer(&text), Layer::Process);
        assert_eq!(layer(&format!("{OF_CLASS} `slow`")), Layer::Cgroup);
        assert_eq!(layer("two volumes are mounted at `/x`"), Layer::Filesystem);
        assert_eq!(lower_score(-5, -5), None);
    }
}
