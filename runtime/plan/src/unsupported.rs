// SPDX-License-Identifier: Apache-2.0
//! Fields of a runtime spec that Hull does not support: refused by name, so that no requested field is ignored.

use crate::{Error, seccomp};
use hull_init::plan::{Namespace, Namespaces};
use oci_spec::runtime::{Linux, LinuxResources, Process, Spec};

fn refuse_set(asked: &[(bool, &'static str, &'static str)]) -> Result<(), Error> {
    match asked.iter().find(|(asked, ..)| *asked) {
        Some((_, what, field)) => Err(Error::Unsupported { what, value: (*field).into() }),
        None => Ok(()),
    }
}

/// Refuses unsupported fields of a container.
pub(crate) fn refuse(spec: &Spec, linux: &Linux, process: &Process) -> Result<(), Error> {
    let seccomp = linux.seccomp().as_ref();
    refuse_set(&[
        (spec.vm().is_some(), "virtual machines", "vm"),
        (linux.net_devices().is_some(), "moving network devices", "linux.netDevices"),
        (linux.intel_rdt().is_some(), "resource director technology", "linux.intelRdt"),
        (linux.memory_policy().is_some(), "memory policies", "linux.memoryPolicy"),
        (
            linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
            "SELinux labels of mounts",
            "linux.mountLabel",
        ),
        (seccomp.is_some_and(seccomp::notifies), "seccomp notification", "SCMP_ACT_NOTIFY"),
        (process.exec_cpu_affinity().is_some(), "CPU affinity of execs", "process.execCPUAffinity"),
    ])
}

/// Refuses settings of namespaces that the container does not have: they would be ignored, or change the host's.
pub(crate) fn refuse_without_namespace(
    spec: &Spec,
    linux: &Linux,
    namespaces: &Namespaces,
) -> Result<(), Error> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let (user, uts) = (&namespaces.user, &namespaces.uts);
    for (field, is_given, namespace, kind) in [
        ("linux.uidMappings", linux.uid_mappings().iter().flatten().count() > 0, user, "user"),
        ("linux.gidMappings", linux.gid_mappings().iter().flatten().count() > 0, user, "user"),
        ("hostname", given(spec.hostname()), uts, "uts"),
        ("domainname", given(spec.domainname()), uts, "uts"),
    ] {
        if is_given && *namespace == Namespace::Inherit {
            return Err(Error::NoNamespace { field, kind });
        }
    }
    // The offsets of a clock cannot be changed any more once a process is in the namespace, time_namespaces(7).
    if !namespaces.time_offsets.is_empty() && namespaces.time != Namespace::New {
        return Err(Error::NoNamespace { field: "linux.timeOffsets", kind: "time" });
    }
    Ok(())
}

/// Refuses unsupported limits of a cgroup.
pub(crate) fn refuse_limits(resources: &LinuxResources) -> Result<(), Error> {
    let some = |list: Option<usize>| list.is_some_and(|length| length > 0);
    if let Some(io) = resources.block_io() {
        let throttled = [
            io.throttle_read_bps_device(),
            io.throttle_write_bps_device(),
            io.throttle_read_iops_device(),
            io.throttle_write_iops_device(),
        ];
        refuse_set(&[
            (
                io.leaf_weight().is_some_and(|of| of != 0),
                "block I/O limits",
                "resources.blockIO.leafWeight",
            ),
            (
                some(io.weight_device().as_ref().map(Vec::len)),
                "block I/O limits of a device",
                "resources.blockIO.weightDevice",
            ),
            (
                throttled.iter().any(|list| some(list.as_ref().map(Vec::len))),
                "block I/O limits of a device",
                "resources.blockIO.throttle…Device",
            ),
        ])?;
    }
    if let Some(network) = resources.network() {
        refuse_set(&[
            (
                network.class_id().is_some_and(|of| of != 0),
                "network classes",
                "resources.network.classID",
            ),
            (
                some(network.priorities().as_ref().map(Vec::len)),
                "network priorities",
                "resources.network.priorities",
            ),
        ])?;
    }
    let cpu = resources.cpu().as_ref();
    let memory = resources.memory().as_ref();
    refuse_set(&[
        (
            cpu.is_some_and(|cpu| cpu.realtime_runtime().is_some_and(|of| of != 0)),
            "real-time CPU limits",
            "resources.cpu.realtimeRuntime",
        ),
        (
            memory.is_some_and(|memory| memory.swappiness().is_some()),
            "swappiness of a container",
            "resources.memory.swappiness",
        ),
        (some(resources.rdma().as_ref().map(|of| of.len())), "RDMA limits", "resources.rdma"),
    ])
}
