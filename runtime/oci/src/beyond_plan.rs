// SPDX-License-Identifier: Apache-2.0
//! Parts of a spec that plans have no room for, because monitors of earlier releases read plans: taken out of the spec
//! before it is planned, and carried out beside the plan.

use crate::error::{Error, Result};
use crate::listener;
use crate::record::ListenerPlace;
use hull_init::Scheduling;
use hull_init::plan::Op;
use hull_netlink::devices::Device;
use hull_plan::FurtherLimits;
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxNetDevice, LinuxSeccomp, Process, Spec};

/// Parts that were taken out of a spec.
#[derive(Debug)]
pub(crate) struct BeyondPlan {
    pub(crate) scheduling: Scheduling,
    pub(crate) further_limits: FurtherLimits,
    /// The memory policy, for execs.
    pub(crate) memory_policy: Option<LinuxMemoryPolicy>,
    /// Compiled where its compiled form is kept.
    pub(crate) seccomp: Option<LinuxSeccomp>,
    pub(crate) listener: Option<ListenerPlace>,
    /// The SELinux label of its file systems.
    pub(crate) mount_label: Option<String>,
    /// Devices of the host that move into its network namespace, in the order of their names.
    pub(crate) net_devices: Vec<Device>,
}

impl BeyondPlan {
    /// Takes it out of `spec`.
    pub(crate) fn take(spec: &mut Spec) -> Result<Self> {
        let planned = |source| Error::PlanProcess { source };
        let linux = spec.linux_mut().as_mut();
        let memory_policy = linux.and_then(|linux| linux.memory_policy_mut().take());
        let linux = spec.linux_mut().as_mut();
        let seccomp = linux.and_then(|linux| linux.seccomp_mut().take());
        let label = spec.linux_mut().as_mut().and_then(|linux| linux.mount_label_mut().take());
        let mount_label = label.filter(|label| !label.is_empty());
        let resources = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut());
        let further_limits =
            resources.map(hull_plan::take_further_limits).transpose().map_err(planned)?;
        let scheduling = match spec.process_mut() {
            Some(process) => {
                // Of execs only.
                process.set_exec_cpu_affinity(None);
                take_scheduling(process, memory_policy.as_ref())?
            }
            None => Scheduling::default(),
        };
        let listener = seccomp.as_ref().map(listener::place).transpose()?.flatten();
        let devices = spec.linux_mut().as_mut().and_then(|linux| linux.net_devices_mut().take());
        let mut net_devices: Vec<Device> = devices.into_iter().flatten().map(device).collect();
        net_devices.sort();
        let further_limits = further_limits.unwrap_or_default();
        Ok(Self {
            scheduling,
            further_limits,
            memory_policy,
            seccomp,
            listener,
            mount_label,
            net_devices,
        })
    }
}

/// A device that gets no other name keeps its own.
fn device((name, asked): (String, LinuxNetDevice)) -> Device {
    let inside = asked.name().clone().filter(|inside| !inside.is_empty());
    Device { inside: inside.unwrap_or_else(|| name.clone()), name }
}

/// Gives the label to all new file systems that take one, `mount(8)`, `context=`.
pub(crate) fn label_mounts(ops: &mut [Op], label: &str) {
    for op in ops {
        if let Op::Mount { fstype, options, .. } | Op::MountWith { fstype, options, .. } = op
            && !matches!(fstype.as_str(), "proc" | "sysfs" | "mqueue")
            && options.iter().all(|(key, _)| key != "context")
        {
            options.push(("context".to_owned(), Some(label.to_owned())));
        }
    }
}

/// Takes all scheduling out of a process.
pub(crate) fn take_scheduling(
    process: &mut Process,
    policy: Option<&LinuxMemoryPolicy>,
) -> Result<Scheduling> {
    let scheduling =
        hull_plan::scheduling(process, policy).map_err(|source| Error::PlanProcess { source })?;
    process.set_scheduler(None);
    process.set_exec_cpu_affinity(None);
    Ok(scheduling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_init::plan::Attrs;

    #[test]
    fn a_label_is_for_new_file_systems_that_take_one() {
        let mount = |fstype: &str, options: &[(&str, &str)]| Op::Mount {
            fstype: fstype.into(),
            source: fstype.into(),
            target: "/x".into(),
            attrs: Attrs::default(),
            options: options.iter().map(|(key, of)| ((*key).into(), Some((*of).into()))).collect(),
            copy_up: false,
        };
        let mut ops = vec![
            mount("tmpfs", &[("size", "5k")]),
            mount("tmpfs", &[("context", "own")]),
            mount("proc", &[]),
            Op::Pivot,
        ];
        label_mounts(&mut ops, "system_u:object_r:container_file_t:s0:c1,c2");
        let label = ("context", "system_u:object_r:container_file_t:s0:c1,c2");
        let want = [
            mount("tmpfs", &[("size", "5k"), label]),
            mount("tmpfs", &[("context", "own")]),
            mount("proc", &[]),
            Op::Pivot,
        ];
        assert_eq!(ops, want);
    }

    #[test]
    fn what_plans_have_no_room_for_is_taken_out() {
        let text = r#"{"ociVersion": "1.2.0", "process": {"cwd": "/", "args": ["x"], "user": {"uid": 0, "gid": 0},
            "scheduler": {"policy": "SCHED_DEADLINE"}, "execCPUAffinity": {"final": "0"}},
            "linux": {"netDevices": {"eth1": {"name": "eth0"}, "dummy0": {}}, "mountLabel": "a:b:c", "memoryPolicy": {"mode": "MPOL_DEFAULT"},
            "resources": {"memory": {"swappiness": 5}}, "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}"#;
        let mut spec: Spec = serde_json::from_str(text).unwrap();
        let beyond = BeyondPlan::take(&mut spec).unwrap();
        assert_eq!(beyond.mount_label.as_deref(), Some("a:b:c"));
        assert!(beyond.scheduling.not_inherited().is_some() && beyond.scheduling.cpus.is_none());
        assert_eq!(beyond.further_limits.swappiness, Some(5));
        assert!(beyond.seccomp.is_some() && beyond.memory_policy.is_some());
        let device = |name: &str, inside: &str| Device { name: name.into(), inside: inside.into() };
        assert_eq!(beyond.net_devices, [device("dummy0", "dummy0"), device("eth1", "eth0")]);
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.net_devices().is_none());
        assert!(linux.mount_label().is_none() && linux.seccomp().is_none());
        assert!(spec.process().as_ref().unwrap().scheduler().is_none());
    }
}
