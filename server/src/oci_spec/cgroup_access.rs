// SPDX-License-Identifier: Apache-2.0
//! Whether a container may write to its own cgroup.
//!
//! The rule: only in a user namespace, where its limits are files of nobody inside. The mount option `nsdelegate` is not a
//! substitute: it keeps the limits of a cgroup namespace's root only from processes in that very namespace
//! (`cgroups(7)`), and the host's root in a container can make another namespace below it, and write from there.

use super::Error;
use hull_proto::cri;
use serde_json::{Value, json};

/// The annotation of pods and containers.
pub(crate) const ANNOTATION: &str = "hull.run/cgroup-writable";

/// The facts that decide on it beside the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CgroupAccess {
    /// The setting of the pod's handler.
    pub(crate) by_handler: Option<bool>,
    /// Containers get a cgroup namespace, which they do on cgroup v2 alone.
    pub(crate) has_namespaces: bool,
}

impl CgroupAccess {
    /// Whether a container's own cgroup is writable for it. `is_mapped` says that its pod has a user namespace.
    ///
    /// # Errors
    /// Its pod asks for it, and cannot have it.
    pub(super) fn is_writable(
        self,
        pod: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
        is_mapped: bool,
    ) -> Result<bool, Error> {
        let refused = |why, hint| Err(Error::CgroupWritable { why, hint });
        match asked(pod, config)? {
            Some(true) if self.by_handler == Some(false) => refused(
                "its runtime handler does not allow it",
                "use another RuntimeClass, or remove the annotation `hull.run/cgroup-writable`",
            ),
            Some(true) if !is_mapped => refused(
                "its pod has no user namespace, so the container could lift its limits",
                "set `hostUsers: false` in the pod's spec, or `runtime.userns` on the node",
            ),
            Some(true) if !self.has_namespaces => refused(
                "this node has no cgroup v2 alone, so containers have no cgroup namespace",
                "boot the node with systemd.unified_cgroup_hierarchy=1, or remove the annotation `hull.run/cgroup-writable`",
            ),
            Some(false) => Ok(false),
            Some(true) | None => {
                Ok(self.by_handler != Some(false) && self.has_namespaces && is_mapped)
            }
        }
    }
}

fn asked(
    pod: &cri::PodSandboxConfig,
    config: &cri::ContainerConfig,
) -> Result<Option<bool>, Error> {
    let found = config.annotations.get(ANNOTATION).or(pod.annotations.get(ANNOTATION));
    match found.map(String::as_str) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(Error::Bad {
            field: "annotation `hull.run/cgroup-writable`",
            value: other.chars().take(80).collect(),
            why: "it is neither true nor false",
        }),
    }
}

/// Limits the cgroups that the container may make in its own; those that the client has set stay.
pub(super) fn limit_descendants(resources: &mut Value) {
    for (file, most) in [
        ("cgroup.max.descendants", hull_cgroup::DESCENDANTS_MAX),
        ("cgroup.max.depth", hull_cgroup::DEPTH_MAX),
    ] {
        let at = &mut resources["unified"][file];
        if at.is_null() {
            *at = json!(most.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: CgroupAccess = CgroupAccess { by_handler: None, has_namespaces: true };

    fn pod(value: Option<&str>) -> cri::PodSandboxConfig {
        let pairs = value.map(|value| (ANNOTATION.to_owned(), value.to_owned()));
        cri::PodSandboxConfig { annotations: pairs.into_iter().collect(), ..Default::default() }
    }

    #[test]
    fn a_container_gets_it_only_where_its_limits_are_out_of_reach() {
        let config = cri::ContainerConfig::default();
        let (asks, silent, declines) = (pod(Some("true")), pod(None), pod(Some("false")));
        let is = |access: CgroupAccess, pod, mapped| access.is_writable(pod, &config, mapped);
        assert!(is(FULL, &asks, true).unwrap() && is(FULL, &silent, true).unwrap());
        assert!(!is(FULL, &declines, true).unwrap() && !is(FULL, &silent, false).unwrap());
        let v1 = CgroupAccess { has_namespaces: false, ..FULL };
        let never = CgroupAccess { by_handler: Some(false), ..FULL };
        for (access, mapped, said) in [
            (FULL, false, "no user namespace"),
            (v1, true, "no cgroup v2"),
            (never, true, "runtime handler"),
        ] {
            let refused = is(access, &asks, mapped).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
            assert!(refused.hint().is_some(), "{refused}");
            assert!(!is(access, &silent, mapped).unwrap(), "{access:?}");
        }
        is(FULL, &pod(Some("yes")), true).unwrap_err();
    }

    #[test]
    fn the_number_of_cgroups_is_limited_unless_the_client_has_done_so() {
        let mut resources = json!({"unified": {"cgroup.max.depth": "2", "memory.high": "1"}});
        limit_descendants(&mut resources);
        let unified = &resources["unified"];
        assert_eq!(
            (&unified["cgroup.max.depth"], &unified["memory.high"]),
            (&json!("2"), &json!("1"))
        );
        assert_eq!(unified["cgroup.max.descendants"], "1024");
    }
}
