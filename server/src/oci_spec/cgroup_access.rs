// SPDX-License-Identifier: Apache-2.0
//! Whether a container without a user namespace may write to its own cgroup, by the node's setting and an annotation.
//!
//! What keeps it from its own limits is the kernel: in a cgroup namespace, the files of the namespace's root that are
//! not delegated cannot be written, if the hierarchy is mounted with `nsdelegate` (`cgroups(7)`). So it needs both, and
//! on a node without them nothing becomes writable.

use super::Error;
use crate::config::CgroupWritable;
use hull_proto::cri;
use serde_json::{Value, json};

/// The annotation of pods and containers.
pub(crate) const ANNOTATION: &str = "hull.run/cgroup-writable";
/// The setting of the node.
const SETTING: &str = "runtime.cgroup_writable";

/// The setting, and whether this node can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CgroupAccess {
    pub(crate) setting: CgroupWritable,
    /// Containers get a cgroup namespace, which they do on cgroup v2 alone.
    pub(crate) has_namespaces: bool,
    /// The hierarchy is mounted with `nsdelegate`.
    pub(crate) delegates: bool,
}

/// The party that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    ByNobody,
    ByNode,
    ByPod,
}

impl CgroupAccess {
    /// The reason and the hint, if this node cannot do it.
    pub(crate) fn missing(self) -> Option<(&'static str, &'static str)> {
        if !self.has_namespaces {
            return Some((
                "this node has no cgroup v2 alone, so that containers have no cgroup namespace",
                "boot the node with systemd.unified_cgroup_hierarchy=1, or do not ask for writable cgroups",
            ));
        }
        (!self.delegates).then_some((
            "cgroup2 is mounted without nsdelegate on this node, so that the container could lift its limits",
            "mount -o remount,nsdelegate /sys/fs/cgroup on the node, and restart hull",
        ))
    }

    /// Whether a container's own cgroup is to be writable for it.
    ///
    /// # Errors
    /// Its pod asks for it, and the setting or the node does not allow it.
    pub(super) fn is_writable(
        self,
        pod: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> Result<bool, Error> {
        let refused = |(why, hint)| Error::CgroupWritable { why, hint };
        match (self.wanted(pod, config)?, self.missing()) {
            (Wanted::ByNobody, _) | (Wanted::ByNode, Some(_)) => Ok(false),
            (Wanted::ByPod, _) if self.setting == CgroupWritable::Never => Err(refused((
                "this node does not allow it",
                "set `runtime.cgroup_writable = \"annotated\"`, or remove the annotation `hull.run/cgroup-writable`",
            ))),
            (Wanted::ByPod, Some(missing)) => Err(refused(missing)),
            (Wanted::ByNode | Wanted::ByPod, None) => Ok(true),
        }
    }

    fn wanted(
        self,
        pod: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> Result<Wanted, Error> {
        let found = config.annotations.get(ANNOTATION).or(pod.annotations.get(ANNOTATION));
        match (found.map(String::as_str), self.setting) {
            (Some("true"), _) => Ok(Wanted::ByPod),
            (Some("false"), _) => Ok(Wanted::ByNobody),
            (Some(other), _) => Err(Error::Bad {
                field: "annotation `hull.run/cgroup-writable`",
                value: other.chars().take(80).collect(),
                why: "it is neither true nor false",
            }),
            (None, CgroupWritable::Always) => Ok(Wanted::ByNode),
            (None, CgroupWritable::Never | CgroupWritable::Annotated) => Ok(Wanted::ByNobody),
        }
    }

    /// A remark for a container that the setting is for, on a node that cannot do it.
    pub(crate) fn remark(
        self,
        pod: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
    ) -> Option<String> {
        let is_of_node = self.wanted(pod, config).is_ok_and(|of| of == Wanted::ByNode);
        let (why, _) = self.missing().filter(|_| is_of_node)?;
        Some(format!("{OF_CGROUP} is read-only for it, though `{SETTING}` is \"always\": {why}"))
    }
}

/// Remarks begin so.
pub(crate) const OF_CGROUP: &str = "its cgroup";

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

    const FULL: CgroupAccess =
        CgroupAccess { setting: CgroupWritable::Annotated, has_namespaces: true, delegates: true };

    fn pod(value: Option<&str>) -> cri::PodSandboxConfig {
        let pairs = value.map(|value| (ANNOTATION.to_owned(), value.to_owned()));
        cri::PodSandboxConfig { annotations: pairs.into_iter().collect(), ..Default::default() }
    }

    #[test]
    fn a_pod_gets_it_only_where_setting_and_kernel_allow_it() {
        let config = cri::ContainerConfig::default();
        let (asks, silent, declines) = (pod(Some("true")), pod(None), pod(Some("false")));
        let is = |access: CgroupAccess, pod| access.is_writable(pod, &config);
        assert!(is(FULL, &asks).unwrap() && !is(FULL, &silent).unwrap());
        let always = CgroupAccess { setting: CgroupWritable::Always, ..FULL };
        assert!(is(always, &silent).unwrap() && !is(always, &declines).unwrap());
        for (access, said) in [
            (CgroupAccess { setting: CgroupWritable::Never, ..FULL }, "does not allow"),
            (CgroupAccess { delegates: false, ..FULL }, "nsdelegate"),
            (CgroupAccess { has_namespaces: false, delegates: false, ..FULL }, "no cgroup v2"),
        ] {
            let refused = is(access, &asks).unwrap_err();
            assert!(refused.to_string().contains(said), "{refused}");
            assert!(refused.hint().is_some(), "{refused}");
            assert!(!is(access, &silent).unwrap() && !is(access, &declines).unwrap());
        }
        is(FULL, &pod(Some("yes"))).unwrap_err();
    }

    #[test]
    fn a_node_that_cannot_do_what_it_is_set_to_says_so_in_a_remark() {
        let config = cri::ContainerConfig::default();
        let always = CgroupAccess { setting: CgroupWritable::Always, delegates: false, ..FULL };
        assert!(!always.is_writable(&pod(None), &config).unwrap());
        let remark = always.remark(&pod(None), &config).unwrap();
        assert!(remark.starts_with(OF_CGROUP) && remark.contains("nsdelegate"), "{remark}");
        assert_eq!(always.remark(&pod(Some("false")), &config), None);
        assert_eq!(FULL.remark(&pod(None), &config), None);
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
