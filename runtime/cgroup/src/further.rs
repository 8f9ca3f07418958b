// SPDX-License-Identifier: Apache-2.0
//! Limits of OCI specs and of classes of block I/O, beyond [`Limits`](crate::Limits), which monitors of earlier releases
//! read.
//!
//! `Documentation/admin-guide/cgroup-v1/{blkio-controller,memory,net_cls,net_prio,rdma}.rst`, `cgroup-v2.rst`.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::{write_if_there, write_in_any_order};
use borsh::{BorshDeserialize, BorshSerialize};

/// Limits of one cgroup. `None` and empty mean: leave as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct FurtherLimits {
    /// How readily the kernel swaps, 0..=100. On v1 only.
    pub swappiness: Option<u64>,
    /// I/O weight against the cgroups below, 10..=1000. On kernels before 5.0 only.
    pub io_leaf_weight: Option<u16>,
    /// Limits of block devices.
    pub io_devices: Vec<DeviceLimit>,
    /// Class of its packets. On v1 only.
    pub net_class: Option<u32>,
    /// Priorities of its packets, by interface. On v1 only.
    pub net_priorities: Vec<(String, u32)>,
    /// Limits of RDMA devices.
    pub rdma: Vec<RdmaLimit>,
    /// Microseconds per period for real-time processes. On v1 only.
    pub realtime_runtime_us: Option<i64>,
    /// That period in microseconds. On v1 only.
    pub realtime_period_us: Option<u64>,
}

impl FurtherLimits {
    /// Whether there is no limit in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeviceLimit {
    /// Major number of the device.
    pub major: u32,
    /// Minor number of the device.
    pub minor: u32,
    /// Meaning of `value`.
    pub kind: DeviceLimitKind,
    /// The limit; of a rate, 0 lifts it.
    pub value: u64,
}

/// The kinds of limits of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum DeviceLimitKind {
    /// I/O weight, 10..=1000.
    Weight,
    /// The same against the cgroups below.
    LeafWeight,
    /// Bytes read per second.
    ReadBytes,
    /// Bytes written per second.
    WriteBytes,
    /// Reads per second.
    Reads,
    /// Writes per second.
    Writes,
}

/// A limit of one RDMA device.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RdmaLimit {
    /// Name of the device.
    pub device: String,
    /// Most handles; `None` is without limit.
    pub handles: Option<u32>,
    /// Most objects; `None` is without limit.
    pub objects: Option<u32>,
}

/// One limit: the controller, its possible files (the first that exists is written), and the value.
struct Setting {
    controller: &'static str,
    files: &'static [&'static str],
    value: String,
}

impl Cgroup {
    /// Sets limits beyond [`Cgroup::apply`].
    ///
    /// # Errors
    /// A limit that this host's version or kernel does not have, and one that the kernel rejects.
    pub fn apply_further(&self, limits: &FurtherLimits) -> Result<(), Error> {
        let is_v2 = self.version() == Version::V2;
        if !is_v2 {
            self.realtime(limits)?;
        }
        for Setting { controller, files, value } in settings(limits, is_v2) {
            let dir = if is_v2 { self.unified() } else { self.v1(controller) };
            let missing = || Error::NoController {
                what: format!("{} to {value}", files.first().unwrap_or(&controller)),
                controller,
            };
            let dir = dir.ok_or_else(missing)?;
            let mut is_written = false;
            for file in files {
                is_written = is_written || write_if_there(&dir, file, &value)?;
            }
            // Without a rate limit there is nothing to lift.
            if !is_written && !value.ends_with(" 0") {
                return Err(missing());
            }
        }
        Ok(())
    }

    /// Runtime and period, which the kernel checks against each other and against the parent's.
    fn realtime(&self, limits: &FurtherLimits) -> Result<(), Error> {
        let period = limits.realtime_period_us.filter(|period| *period != 0);
        let runtime = limits.realtime_runtime_us.filter(|runtime| *runtime != 0);
        let mut files = Vec::new();
        files.extend(period.map(|period| ("cpu.rt_period_us", period.to_string())));
        files.extend(runtime.map(|runtime| ("cpu.rt_runtime_us", runtime.to_string())));
        let Some((first, value)) = files.first().cloned() else { return Ok(()) };
        let written = self.v1("cpu").map(|dir| write_in_any_order(&dir, &files)).transpose()?;
        match written {
            Some(missing) if missing.is_empty() => Ok(()),
            _ => {
                Err(Error::NoController { what: format!("{first} to {value}"), controller: "cpu" })
            }
        }
    }
}

fn settings(limits: &FurtherLimits, is_v2: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |controller, files, value| settings.push(Setting { controller, files, value });
    if let Some(swappiness) = limits.swappiness {
        add("memory", &["memory.swappiness"], swappiness.to_string());
    }
    if let Some(weight) = limits.io_leaf_weight.filter(|weight| *weight != 0) {
        add("blkio", &["blkio.leaf_weight"], weight.to_string());
    }
    for of in &limits.io_devices {
        let (files, value) = if is_v2 { v2_device(of) } else { v1_device(of) };
        add(if is_v2 { "io" } else { "blkio" }, files, value);
    }
    if let Some(class) = limits.net_class.filter(|class| *class != 0) {
        add("net_cls", &["net_cls.classid"], class.to_string());
    }
    for (interface, priority) in &limits.net_priorities {
        add("net_prio", &["net_prio.ifpriomap"], format!("{interface} {priority}"));
    }
    for RdmaLimit { device, handles, objects } in &limits.rdma {
        let shown = |most: &Option<u32>| most.map_or("max".to_owned(), |most| most.to_string());
        let value = format!("{device} hca_handle={} hca_object={}", shown(handles), shown(objects));
        add("rdma", &["rdma.max"], value);
    }
    if is_v2 && let Some(runtime) = limits.realtime_runtime_us.filter(|runtime| *runtime != 0) {
        add("cpu", &["cpu.rt_runtime_us"], runtime.to_string());
    }
    if is_v2 && let Some(period) = limits.realtime_period_us.filter(|period| *period != 0) {
        add("cpu", &["cpu.rt_period_us"], period.to_string());
    }
    settings
}

fn v1_device(of: &DeviceLimit) -> (&'static [&'static str], String) {
    let files: &[&str] = match of.kind {
        DeviceLimitKind::Weight => &["blkio.weight_device", "blkio.bfq.weight_device"],
        DeviceLimitKind::LeafWeight => &["blkio.leaf_weight_device"],
        DeviceLimitKind::ReadBytes => &["blkio.throttle.read_bps_device"],
        DeviceLimitKind::WriteBytes => &["blkio.throttle.write_bps_device"],
        DeviceLimitKind::Reads => &["blkio.throttle.read_iops_device"],
        DeviceLimitKind::Writes => &["blkio.throttle.write_iops_device"],
    };
    (files, format!("{}:{} {}", of.major, of.minor, of.value))
}

fn v2_device(of: &DeviceLimit) -> (&'static [&'static str], String) {
    let key = match of.kind {
        DeviceLimitKind::Weight => {
            return (&["io.bfq.weight"], format!("{}:{} {}", of.major, of.minor, of.value));
        }
        DeviceLimitKind::LeafWeight => {
            return (&["io.leaf_weight"], format!("{}:{} {}", of.major, of.minor, of.value));
        }
        DeviceLimitKind::ReadBytes => "rbps",
        DeviceLimitKind::WriteBytes => "wbps",
        DeviceLimitKind::Reads => "riops",
        DeviceLimitKind::Writes => "wiops",
    };
    let value = if of.value == 0 { "max".to_owned() } else { of.value.to_string() };
    (&["io.max"], format!("{}:{} {key}={value}", of.major, of.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(limits: &FurtherLimits, is_v2: bool) -> Vec<String> {
        let shown = |of: Setting| format!("{} {}", of.files[0], of.value);
        settings(limits, is_v2).into_iter().map(shown).collect()
    }

    #[test]
    fn limits_of_devices_have_the_form_of_each_version() {
        let device = |kind, value| DeviceLimit { major: 8, minor: 16, kind, value };
        let limits = FurtherLimits {
            io_devices: vec![
                device(DeviceLimitKind::Weight, 300),
                device(DeviceLimitKind::ReadBytes, 1024),
                device(DeviceLimitKind::Writes, 0),
            ],
            ..FurtherLimits::default()
        };
        let v1 = [
            "blkio.weight_device 8:16 300",
            "blkio.throttle.read_bps_device 8:16 1024",
            "blkio.throttle.write_iops_device 8:16 0",
        ];
        assert_eq!(written(&limits, false), v1);
        let v2 = ["io.bfq.weight 8:16 300", "io.max 8:16 rbps=1024", "io.max 8:16 wiops=max"];
        assert_eq!(written(&limits, true), v2);
    }

    #[test]
    fn zero_is_none_as_docker_sends_it() {
        let limits = FurtherLimits {
            io_leaf_weight: Some(0),
            net_class: Some(0),
            realtime_runtime_us: Some(0),
            ..FurtherLimits::default()
        };
        assert!(written(&limits, false).is_empty() && written(&limits, true).is_empty());
    }

    #[test]
    fn classes_priorities_and_rdma_are_one_line_each() {
        let limits = FurtherLimits {
            swappiness: Some(0),
            net_class: Some(7),
            net_priorities: vec![("eth0".into(), 3)],
            rdma: vec![RdmaLimit { device: "mlx5_0".into(), handles: Some(2), objects: None }],
            ..FurtherLimits::default()
        };
        let lines = [
            "memory.swappiness 0",
            "net_cls.classid 7",
            "net_prio.ifpriomap eth0 3",
            "rdma.max mlx5_0 hca_handle=2 hca_object=max",
        ];
        assert_eq!(written(&limits, false), lines);
    }
}
