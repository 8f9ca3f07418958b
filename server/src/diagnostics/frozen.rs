// SPDX-License-Identifier: Apache-2.0
//! Containers and pods whose processes are frozen: they run, and do nothing.

use crate::container::freezer;
use crate::error::thaw_hint;
use crate::node::Node;
use crate::pod::PodRecord;
use hull_plan::{Certainty, Diagnosis, Layer};
use hull_sys::text::shown;

/// The finding about a pod whose cgroup, or one above it, is frozen. Reads files of the kernel.
pub(crate) fn pod(node: &Node, pod: &PodRecord) -> Option<Diagnosis> {
    let frozen = pod.state.is_ready().then(|| freezer::frozen(node, &pod.cgroup)).flatten()?;
    Some(of_pod(frozen.above.as_deref().unwrap_or(&pod.cgroup)))
}

/// The finding about a running container that is frozen by its own cgroup. Reads files of the kernel.
pub(crate) fn container(node: &Node, cgroup: &str, name: &str) -> Option<Diagnosis> {
    freezer::frozen(node, cgroup)?.above.is_none().then(|| of_container(name))
}

/// Of a pod that the freezer of `cgroup` holds: its own, or one above it.
pub(super) fn of_pod(cgroup: &str) -> Diagnosis {
    let hint = thaw_hint("", Some(&shown(cgroup, 512)));
    diagnosis(
        "the pod is frozen: none of its processes runs".into(),
        format!("{hint}; and see which tool on the node froze it"),
    )
}

pub(super) fn of_container(name: &str) -> Diagnosis {
    diagnosis(
        "paused: its processes are frozen, so it does nothing and answers nothing".into(),
        thaw_hint(name, None),
    )
}

fn diagnosis(what: String, fix: String) -> Diagnosis {
    Diagnosis {
        kind: "paused".into(),
        layer: Layer::Cgroup,
        what,
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_says_what_thaws_it() {
        let container = of_container("ns/web/app");
        assert!(container.what.starts_with("paused: "));
        assert_eq!(container.fix.as_deref(), Some("`hull unpause ns/web/app`"));
        let pod = of_pod("/kubepods/pod1");
        assert!(pod.what.contains("the pod is frozen"));
        assert!(pod.fix.unwrap().contains("cgroup /kubepods/pod1"));
    }
}
