// SPDX-License-Identifier: Apache-2.0
//! Containers and pods whose processes are frozen: they run, and do nothing.

use crate::node::Node;
use crate::pod::PodRecord;
use hull_cgroup::Cgroup;
use hull_plan::{Certainty, Diagnosis, Layer};
use hull_sys::text::shown;

/// The finding about a pod whose cgroup is frozen as a whole. Reads a file of the kernel.
pub(crate) fn pod(node: &Node, pod: &PodRecord) -> Option<Diagnosis> {
    (pod.state.is_ready() && is_frozen(node, &pod.cgroup)).then(|| of_pod(&pod.cgroup))
}

/// The finding about a running container that is frozen, alone. Reads files of the kernel.
pub(crate) fn container(
    node: &Node,
    pod: &PodRecord,
    cgroup: &str,
    name: &str,
) -> Option<Diagnosis> {
    let is_paused = is_frozen(node, cgroup) && !is_frozen(node, &pod.cgroup);
    is_paused.then(|| of_container(name))
}

/// Not if that cannot be read, as of one that has ended.
fn is_frozen(node: &Node, cgroup: &str) -> bool {
    Cgroup::at(&node.cgroups, cgroup).and_then(|cgroup| cgroup.is_frozen()).unwrap_or(false)
}

fn of_pod(cgroup: &str) -> Diagnosis {
    let cgroup = shown(cgroup, 512);
    diagnosis(
        "the pod is frozen: none of its processes does anything".into(),
        format!(
            "thaw its cgroup {cgroup} (write 0 to `cgroup.freeze`, or THAWED to `freezer.state` with cgroup v1), and see \
             which tool on the node froze it"
        ),
    )
}

fn of_container(name: &str) -> Diagnosis {
    diagnosis(
        "paused: its processes are frozen, so it does nothing and answers nothing".into(),
        format!("`hull unpause {name}`"),
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
