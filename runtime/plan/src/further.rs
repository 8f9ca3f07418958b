// SPDX-License-Identifier: Apache-2.0
//! Resources of an OCI spec that a plan has no room for.

use crate::Error;
use crate::values::swappiness;
use hull_cgroup::{DeviceLimit, DeviceLimitKind, FurtherLimits, RdmaLimit};
use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

/// Takes these resources out of the spec, which can be planned then.
///
/// # Errors
/// A device whose numbers are negative.
pub fn take_further_limits(resources: &mut LinuxResources) -> Result<FurtherLimits, Error> {
    let mut limits = FurtherLimits::default();
    if let Some(io) = resources.block_io_mut() {
        limits.io_leaf_weight = io.leaf_weight();
        limits.io_devices = of_devices(io)?;
        io.set_leaf_weight(None).set_weight_device(None);
        io.set_throttle_read_bps_device(None).set_throttle_write_bps_device(None);
        io.set_throttle_read_iops_device(None).set_throttle_write_iops_device(None);
    }
    if let Some(memory) = resources.memory_mut() {
        limits.swappiness = swappiness(memory);
        memory.set_swappiness(None);
    }
    if let Some(cpu) = resources.cpu_mut() {
        limits.realtime_runtime_us = cpu.realtime_runtime();
        limits.realtime_period_us = cpu.realtime_period();
        cpu.set_realtime_runtime(None).set_realtime_period(None);
    }
    if let Some(network) = resources.network() {
        limits.net_class = network.class_id();
        let priorities = network.priorities().iter().flatten();
        limits.net_priorities = priorities.map(|of| (of.name().clone(), of.priority())).collect();
    }
    resources.set_network(None);
    for (device, of) in resources.rdma().iter().flatten() {
        limits.rdma.push(RdmaLimit {
            device: device.clone(),
            handles: of.hca_handles(),
            objects: of.hca_objects(),
        });
    }
    limits.rdma.sort_by(|one, other| one.device.cmp(&other.device));
    resources.set_rdma(None);
    Ok(limits)
}

fn of_devices(io: &LinuxBlockIo) -> Result<Vec<DeviceLimit>, Error> {
    let mut limits = Vec::new();
    for of in io.weight_device().iter().flatten() {
        let (major, minor) = (number(of.major())?, number(of.minor())?);
        let weights = [
            (DeviceLimitKind::Weight, of.weight()),
            (DeviceLimitKind::LeafWeight, of.leaf_weight()),
        ];
        for (kind, weight) in weights {
            if let Some(weight) = weight.filter(|weight| *weight != 0) {
                limits.push(DeviceLimit { major, minor, kind, value: weight.into() });
            }
        }
    }
    let rates: [(DeviceLimitKind, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        (DeviceLimitKind::ReadBytes, io.throttle_read_bps_device()),
        (DeviceLimitKind::WriteBytes, io.throttle_write_bps_device()),
        (DeviceLimitKind::Reads, io.throttle_read_iops_device()),
        (DeviceLimitKind::Writes, io.throttle_write_iops_device()),
    ];
    for (kind, devices) in rates {
        for of in devices.iter().flatten() {
            let (major, minor) = (number(of.major())?, number(of.minor())?);
            limits.push(DeviceLimit { major, minor, kind, value: of.rate() });
        }
    }
    Ok(limits)
}

fn number(of: i64) -> Result<u32, Error> {
    u32::try_from(of).map_err(|_| Error::Bad {
        field: "linux.resources.blockIO",
        value: of.to_string(),
        why: "it is not a device number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;
    use serde_json::json;

    #[test]
    fn what_a_plan_has_no_room_for_is_taken_out() {
        let of = json!({
            "blockIO": {
                "weight": 100, "leafWeight": 0,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 444}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}],
            },
            "memory": {"swappiness": 10, "limit": 5},
            "cpu": {"realtimeRuntime": 900, "realtimePeriod": 1000, "shares": 3},
            "network": {"classID": 5, "priorities": [{"name": "lo", "priority": 2}]},
            "rdma": {"mlx": {"hcaHandles": 1}},
        });
        let mut resources = serde_json::from_value(of).unwrap();
        let further = take_further_limits(&mut resources).unwrap();
        assert_eq!((further.swappiness, further.net_class), (Some(10), Some(5)));
        assert_eq!((further.io_devices.len(), further.rdma.len()), (2, 1));
        assert_eq!(further.realtime_runtime_us, Some(900));
        let planned = limits(&resources).unwrap();
        assert_eq!((planned.memory_bytes, planned.cpu_shares), (Some(5), Some(3)));
        assert_eq!(planned.io_weight, Some(100));
        assert!(take_further_limits(&mut resources).unwrap().io_devices.is_empty());
    }
}
