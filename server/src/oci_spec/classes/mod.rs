// SPDX-License-Identifier: Apache-2.0
//! Classes of resources that a pod chooses by annotations, as containerd and CRI-O have them: of block I/O, by a file
//! of the node, and of Intel RDT, by groups of resctrl.
//!
//! The rule: a class is resolved when the container is created, and recorded. Its starts use the record, whatever has
//! become of the file; only the group of resctrl is opened at each start, because it is the kernel's.

mod annotations;
mod blockio;
mod disks;
mod error;
mod rdt;

pub(crate) use error::Error;

use ::oci_spec::runtime::{LinuxBlockIo, LinuxIntelRdt, LinuxResources, Spec};
use annotations::{BLOCK_IO, RDT};
use hull_plan::{FurtherLimits, take_further_limits};
use hull_proto::cri;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The classes of a container, as they were when it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Classes {
    /// The parameters of its class of block I/O.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block_io: Option<LinuxBlockIo>,
    /// The name of its RDT class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rdt: Option<String>,
}

/// The names of classes that plugins choose for a container, in place of its annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) block_io: Option<String>,
    pub(crate) rdt: Option<String>,
}

impl Classes {
    /// The classes that a container asks for, and remarks on parts that have no effect on this node.
    ///
    /// # Errors
    /// A class that this node does not have.
    pub(crate) fn resolve(
        pod: &cri::PodSandboxConfig,
        config: &cri::ContainerConfig,
        file: Option<&Path>,
        chosen: &Chosen,
    ) -> Result<(Self, Vec<String>), Error> {
        let mut classes = Self::default();
        let mut remarks = Vec::new();
        if let Some(class) = chosen.block_io.as_deref().or_else(|| BLOCK_IO.class(pod, config)) {
            let (block_io, without_effect) = blockio::class(file, class)?;
            classes.block_io = Some(block_io);
            remarks = without_effect;
        }
        if let Some(class) = chosen.rdt.as_deref().or_else(|| RDT.class(pod, config)) {
            rdt::tasks(class)?;
            classes.rdt = Some(class.to_owned());
        }
        Ok((classes, remarks))
    }

    /// Whether the container has no class.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the classes to a spec, as runc reads them.
    pub(super) fn add_to(&self, spec: &mut Value) {
        if let Some(block_io) = &self.block_io {
            spec["linux"]["resources"]["blockIO"] = json!(block_io);
        }
        if let Some(class) = &self.rdt {
            spec["linux"]["intelRdt"] = json!({"closID": class});
        }
    }

    /// The limits that a plan has no room for.
    ///
    /// # Errors
    /// A device whose numbers are negative, which only a changed record has.
    pub(crate) fn further_limits(&self) -> Result<FurtherLimits, hull_plan::Error> {
        let mut resources = LinuxResources::default();
        resources.set_block_io(self.block_io.clone());
        take_further_limits(&mut resources)
    }

    /// The file by which a process enters the group of its RDT class, if it has one.
    ///
    /// # Errors
    /// The group is not there any more.
    pub(crate) fn open_resctrl(&self) -> Result<Option<OwnedFd>, Error> {
        self.rdt.as_deref().map(rdt::tasks).transpose()
    }
}

/// Takes the parts of classes out of a spec that a plan has no room for.
pub(crate) fn take_from(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    linux.set_intel_rdt(None::<LinuxIntelRdt>);
    let Some(io) = linux.resources_mut().as_mut().and_then(|of| of.block_io_mut().as_mut()) else {
        return;
    };
    io.set_weight_device(None);
    io.set_throttle_read_bps_device(None).set_throttle_write_bps_device(None);
    io.set_throttle_read_iops_device(None).set_throttle_write_iops_device(None);
}

/// Reads the file of classes of block I/O, and returns their names.
///
/// # Errors
/// The file cannot be used.
pub(crate) fn check_file(path: &Path) -> Result<Vec<String>, Error> {
    blockio::names(path)
}

/// Remarks on classes begin so.
pub(crate) const OF_CLASS: &str = blockio::OF_CLASS;

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> cri::PodSandboxConfig {
        let pairs = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        cri::PodSandboxConfig { annotations: pairs.collect(), ..Default::default() }
    }

    fn named(name: &str) -> cri::ContainerConfig {
        let metadata = cri::ContainerMetadata { name: name.into(), attempt: 0 };
        cri::ContainerConfig { metadata: Some(metadata), ..Default::default() }
    }

    #[test]
    fn without_a_file_a_class_is_refused_and_a_pod_without_classes_is_not() {
        let asks = pod(&[("blockio.resources.beta.kubernetes.io/pod", "slow")]);
        let nobody = Chosen::default();
        let refused = Classes::resolve(&asks, &named("web"), None, &nobody).unwrap_err();
        assert!(refused.to_string().contains("`slow`"), "{refused}");
        assert!(refused.hint().unwrap().contains("runtime.blockio_config_file"));
        let (classes, remarks) = Classes::resolve(&pod(&[]), &named("web"), None, &nobody).unwrap();
        assert!(classes.is_none() && remarks.is_empty());
        let plugin = Chosen { block_io: Some("theirs".into()), rdt: None };
        let refused = Classes::resolve(&asks, &named("web"), None, &plugin).unwrap_err();
        assert!(refused.to_string().contains("`theirs`"), "{refused}");
    }

    #[test]
    fn the_spec_has_all_of_a_class_and_the_plan_what_it_has_room_for() {
        let block_io = json!({
            "weight": 80,
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 50}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
        });
        let block_io = serde_json::from_value(block_io).unwrap();
        let classes = Classes { block_io: Some(block_io), rdt: Some("gold".into()) };
        let text = serde_json::to_string(&classes).unwrap();
        assert_eq!(serde_json::from_str::<Classes>(&text).unwrap(), classes, "{text}");
        let mut spec = json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"},
            "process": {"args": ["/x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": "/c", "resources": {}},
        });
        classes.add_to(&mut spec);
        assert_eq!(spec["linux"]["intelRdt"]["closID"], "gold");
        let mut spec: Spec = serde_json::from_value(spec).unwrap();
        take_from(&mut spec);
        let options = hull_plan::Options {
            root: hull_plan::Root::Bundle("/b".into()),
            sources: Vec::new(),
            host: hull_plan::HostFacts::default(),
            further_phases: Vec::new(),
        };
        let plan = hull_plan::plan(&spec, &options).unwrap();
        assert_eq!(plan.cgroup.limits.io_weight, Some(80));
        assert_eq!(classes.further_limits().unwrap().io_devices.len(), 2);
    }
}
