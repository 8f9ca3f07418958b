// SPDX-License-Identifier: Apache-2.0
//! Parts of a container's config that have no effect on this node, where other runtimes ignore them too. Each is a
//! sentence in the container's record, and a line in the daemon's log.

use super::{ContainerRecord, start};
use crate::node::Node;
use crate::oci_spec;
use ::oci_spec::runtime::Spec;
use hull_plan::{Plan, capabilities, seccomp};
use std::fs;

/// The remarks of a container that is being created.
pub(crate) fn of(node: &Node, record: &ContainerRecord, spec: &Spec, plan: &Plan) -> Vec<String> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let profile = profile.filter(|_| oci_spec::has_localhost_filter(&record.config));
    let unknown = profile.map(seccomp::unknown_calls).unwrap_or_default();
    let mut remarks = oci_spec::remarks(&record.config);
    remarks.extend(unknown.iter().map(unknown_call));
    let score = start::oom_score(record).or(plan.process.oom_score_adj);
    if let Some(score) = score.filter(|score| *score < 0 && !may_lower_scores(node)) {
        remarks.extend(own_score().and_then(|own| lower_score(score, own)));
    }
    remarks
}

fn unknown_call(call: &seccomp::UnknownCall) -> String {
    let meant = call.meant.map_or(String::new(), |meant| format!(" (did you mean `{meant}`?)"));
    format!(
        "its seccomp profile names `{}`, which is not a system call{meant}: rules for it have no effect",
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
            "its oom_score_adj {wanted} cannot be set, it stays {own}: this node lacks CAP_SYS_RESOURCE, so the \
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
        let text = lower_score(-997, 0).unwrap();
        assert!(text.contains("oom_score_adj -997 cannot be set, it stays 0"), "{text}");
        assert_eq!(lower_score(-5, -5), None);
    }
}
