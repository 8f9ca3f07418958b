// SPDX-License-Identifier: Apache-2.0
//! Values of a config.json that runc refuses, and so does `hull oci`: without this the kernel would refuse some of them by
//! a number only, take others for something else, or pass over them. Specs of pods are checked where they are made.

use crate::Error;
use crate::schedule::{self, cpu_mask};
use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxIdMapping, LinuxMemory, LinuxNamespaceType, LinuxResources,
    LinuxSchedulerPolicy, Process, Spec,
};
use std::fmt::Display;

/// I/O weights, as the runtime spec has them.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

fn bad(field: &'static str, value: impl Display, why: &'static str) -> Error {
    Error::Bad { field, value: value.to_string().chars().take(200).collect(), why }
}

/// Checks the values of a container.
///
/// # Errors
/// The first one that is refused.
pub fn check_values(spec: &Spec) -> Result<(), Error> {
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    id_maps(linux)?;
    for device in linux.devices().iter().flatten() {
        if device.typ() == LinuxDeviceType::A {
            return Err(bad("linux.devices.type", "a", "a device is one of b, c, u and p"));
        }
    }
    if let Some(policy) = linux.memory_policy() {
        schedule::check_memory_policy(policy)?;
    }
    let Some(resources) = linux.resources() else { return Ok(()) };
    check_resources(resources)?;
    device_rules(resources)?;
    resources.memory().as_ref().map_or(Ok(()), with_swap)
}

/// Checks the values of a process: of a container, or of an exec.
///
/// # Errors
/// The first one that is refused.
pub fn check_process(process: &Process) -> Result<(), Error> {
    if let Some(affinity) = process.exec_cpu_affinity() {
        let lists = [affinity.initial(), affinity.cpu_affinity_final()];
        for list in lists.into_iter().flatten().filter(|list| !list.is_empty()) {
            cpu_mask(list)?;
        }
    }
    let Some(scheduler) = process.scheduler() else { return Ok(()) };
    let policy = scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    let has_nice =
        matches!(policy, LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch);
    if has_nice && !(-20..=19).contains(&nice) {
        return Err(bad("process.scheduler.nice", nice, "nice values are -20 to 19"));
    }
    let priority = scheduler.priority().unwrap_or(0);
    let is_realtime =
        matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    if priority != 0 && !is_realtime {
        let why = "only SCHED_FIFO and SCHED_RR have priorities";
        return Err(bad("process.scheduler.priority", priority, why));
    }
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()];
    let time = times.into_iter().flatten().find(|time| **time != 0);
    let has_times = matches!(policy, LinuxSchedulerPolicy::SchedDeadline);
    match time.filter(|_| !has_times) {
        Some(time) => {
            let why = "only SCHED_DEADLINE has a runtime, a deadline and a period";
            Err(bad("process.scheduler.runtime", time, why))
        }
        None => Ok(()),
    }
}

/// Checks limits: of a container, or of the document of an update.
///
/// # Errors
/// The first one that is refused.
pub fn check_resources(resources: &LinuxResources) -> Result<(), Error> {
    if let Some(memory) = resources.memory() {
        for (field, bytes) in [
            ("linux.resources.memory.limit", memory.limit()),
            ("linux.resources.memory.swap", memory.swap()),
            ("linux.resources.memory.reservation", memory.reservation()),
        ] {
            if let Some(bytes) = bytes.filter(|bytes| *bytes < -1) {
                return Err(bad(field, bytes, "it is a number of bytes, or -1 for no limit"));
            }
        }
        if let Some(value) = swappiness(memory).filter(|value| *value > 100) {
            return Err(bad("linux.resources.memory.swappiness", value, "it is 0 to 100"));
        }
    }
    if let Some(io) = resources.block_io() {
        let of_devices = io.weight_device().iter().flatten();
        let of_devices = of_devices.flat_map(|of| [of.weight(), of.leaf_weight()]);
        let mut weights = [io.weight(), io.leaf_weight()].into_iter().chain(of_devices).flatten();
        // Docker sends 0 for none.
        if let Some(weight) = weights.find(|of| *of != 0 && !WEIGHTS.contains(of)) {
            return Err(bad("linux.resources.blockIO.weight", weight, "weights are 10 to 1000"));
        }
    }
    Ok(())
}

/// Checks rules for devices, which an update passes over.
fn device_rules(resources: &LinuxResources) -> Result<(), Error> {
    for rule in resources.devices().iter().flatten() {
        if rule.access().as_ref().is_none_or(String::is_empty) {
            let why = "it names the accesses: letters are r, w and m";
            return Err(bad("linux.resources.devices.access", "", why));
        }
        if rule.typ() == Some(LinuxDeviceType::U) {
            let why = "rules are for devices of the types a, b and c";
            return Err(bad("linux.resources.devices.type", "u", why));
        }
    }
    Ok(())
}

/// The swappiness that is asked for: none if it is -1, which some callers send for none, as an unsigned number.
pub(crate) fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|value| *value != u64::MAX)
}

/// Checks the limit of memory and swap together, which both versions of cgroups only have beside one of memory.
fn with_swap(memory: &LinuxMemory) -> Result<(), Error> {
    const FIELD: &str = "linux.resources.memory.swap";
    let Some(both) = memory.swap().filter(|both| *both > 0) else { return Ok(()) };
    match memory.limit().unwrap_or(0) {
        0 => Err(bad(FIELD, both, "it is memory and swap together, and needs memory.limit")),
        limit if limit > both => {
            Err(bad(FIELD, both, "it is memory and swap together, and below memory.limit"))
        }
        _ => Ok(()),
    }
}

/// A new user namespace maps a root in both maps: the owner of its files.
fn id_maps(linux: &Linux) -> Result<(), Error> {
    let is_new = |of: &oci_spec::runtime::LinuxNamespace| {
        let path = of.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        of.typ() == LinuxNamespaceType::User && path.is_none()
    };
    if !linux.namespaces().iter().flatten().any(is_new) {
        return Ok(());
    }
    let has_root = |maps: &Option<Vec<LinuxIdMapping>>| {
        maps.iter().flatten().any(|map| map.container_id() == 0 && map.size() > 0)
    };
    for (field, maps) in
        [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())]
    {
        if maps.iter().flatten().next().is_none() {
            return Err(Error::Missing { field });
        }
        if !has_root(maps) {
            return Err(bad(field, "0", "the root of a user namespace must be mapped"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The part of a refused document that the error names; `None` if it is taken.
    fn refused(at: &str, value: &Value) -> Option<String> {
        let mut spec = json!({
            "ociVersion": "1.3.0", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}], "resources": {}},
        });
        let mut place = &mut spec;
        for part in at.split('/') {
            place = &mut place[part];
        }
        *place = value.clone();
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let error = check_values(&spec).err()?;
        let (Error::Bad { field, .. } | Error::Missing { field }) = error else {
            panic!("{error}")
        };
        Some(field.to_owned())
    }

    /// The answers of runc 1.5 to values, by its `specconv`, `configs/validate` and `cgroups`: a part of a config.json, its
    /// value, and the field that is refused.
    const OF_RUNC: &str = r#"
process/scheduler | {"policy": "SCHED_OTHER", "nice": 19} | taken
process/scheduler | {"policy": "SCHED_OTHER", "nice": 20} | process.scheduler.nice
process/scheduler | {"policy": "SCHED_BATCH", "nice": -21} | process.scheduler.nice
process/scheduler | {"policy": "SCHED_FIFO", "nice": 20, "priority": 1} | taken
process/scheduler | {"policy": "SCHED_BATCH", "priority": 1} | process.scheduler.priority
process/scheduler | {"policy": "SCHED_RR", "period": 1} | process.scheduler.runtime
process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3} | taken
process/execCPUAffinity | {"initial": "0-1"} | taken
process/execCPUAffinity | {"initial": "8192"} | process.execCPUAffinity
process/execCPUAffinity | {"final": "3-1"} | process.execCPUAffinity
linux/memoryPolicy | {"mode": "MPOL_PREFERRED"} | taken
linux/memoryPolicy | {"mode": "MPOL_BIND", "nodes": "0"} | taken
linux/memoryPolicy | {"mode": "MPOL_BIND"} | linux.memoryPolicy.nodes
linux/memoryPolicy | {"mode": "MPOL_INTERLEAVE"} | linux.memoryPolicy.nodes
linux/memoryPolicy | {"mode": "MPOL_LOCAL", "nodes": "0"} | linux.memoryPolicy.nodes
linux/resources/memory | {"limit": -1, "swap": -1, "reservation": -1} | taken
linux/resources/memory | {"limit": -2} | linux.resources.memory.limit
linux/resources/memory | {"limit": 5, "swap": -2} | linux.resources.memory.swap
linux/resources/memory | {"reservation": -7} | linux.resources.memory.reservation
linux/resources/memory | {"limit": 5, "swap": 5} | taken
linux/resources/memory | {"limit": -1, "swap": 5} | taken
linux/resources/memory | {"limit": 5, "swap": 4} | linux.resources.memory.swap
linux/resources/memory | {"swap": 4} | linux.resources.memory.swap
linux/resources/memory | {"limit": 0, "swap": 4} | linux.resources.memory.swap
linux/resources/memory | {"swappiness": 100} | taken
linux/resources/memory | {"swappiness": 18446744073709551615} | taken
linux/resources/memory | {"swappiness": 101} | linux.resources.memory.swappiness
linux/resources/blockIO | {"weight": 0, "leafWeight": 1000} | taken
linux/resources/blockIO | {"weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 0}]} | taken
linux/resources/blockIO | {"weight": 9} | linux.resources.blockIO.weight
linux/resources/blockIO | {"leafWeight": 1001} | linux.resources.blockIO.weight
linux/resources/blockIO | {"weightDevice": [{"major": 8, "minor": 0, "weight": 1}]} | linux.resources.blockIO.weight
linux/resources/devices | [{"allow": true, "access": "rwm"}] | taken
linux/resources/devices | [{"allow": true}] | linux.resources.devices.access
linux/resources/devices | [{"allow": true, "access": ""}] | linux.resources.devices.access
linux/resources/devices | [{"allow": true, "access": "r", "type": "u"}] | linux.resources.devices.type
linux/devices | [{"path": "/dev/x", "type": "u", "major": 1, "minor": 3}] | taken
linux/devices | [{"path": "/dev/x", "type": "p", "major": 1, "minor": 3}] | taken
linux/devices | [{"path": "/dev/x", "type": "a", "major": 1, "minor": 3}] | linux.devices.type
linux | {"namespaces": [{"type": "user"}]} | linux.uidMappings
linux | {"namespaces": [{"type": "user"}], "uidMappings": [#0]} | linux.gidMappings
linux | {"namespaces": [{"type": "user"}], "uidMappings": [#1], "gidMappings": [#0]} | linux.uidMappings
linux | {"namespaces": [{"type": "user"}], "uidMappings": [#0], "gidMappings": [#1, #0]} | taken
linux | {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]} | taken
"#;

    #[test]
    fn values_are_refused_as_by_runc() {
        let root = r#"{"containerID": 0, "hostID": 100000, "size": 1}"#;
        let other = r#"{"containerID": 1, "hostID": 200000, "size": 5}"#;
        let table = OF_RUNC.replace("#0", root).replace("#1", other);
        let mut rows = 0;
        for line in table.lines().filter(|line| !line.is_empty()) {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [at, value, want] = parts[..] else { panic!("{line}") };
            let want = Some(want).filter(|want| *want != "taken");
            assert_eq!(
                refused(at, &serde_json::from_str(value).unwrap()).as_deref(),
                want,
                "{line}"
            );
            rows += 1;
        }
        assert_eq!(rows, 44);
    }
}
