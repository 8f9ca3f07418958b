// SPDX-License-Identifier: Apache-2.0
//! Limits of a container, and its standing still: `update`, `pause`, `resume`.

use crate::args::{Global, Update};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::{self, Dir};
use crate::{log, systemd};
use hull_cgroup::{CgroupFs, Version};
use hull_plan::{FurtherLimits, Limits};
use oci_spec::runtime::{LinuxMemory, LinuxResources};
use std::io::Read as _;
use std::time::Duration;

/// How long processes may take to stand still.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Largest document of limits that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// The kernel has no such limits any more (Linux 5.16), and other runtimes ignore them too.
const KERNEL_MEMORY_IGNORED: &str =
    "limits of kernel memory are ignored: the kernel counts it with all other memory";

/// Warns of limits of kernel memory, which are not set.
pub(crate) fn warn_of_kernel_memory(global: &Global, resources: Option<&LinuxResources>) {
    let memory = resources.and_then(|of| of.memory().as_ref());
    let limits = memory.map(|of| [of.kernel(), of.kernel_tcp()]).into_iter().flatten();
    if limits.flatten().any(|limit| limit != 0) {
        log::warn(global, KERNEL_MEMORY_IGNORED);
    }
}

/// Whether these limits are to be compared with what is in use; `None` if the document does not say.
pub(crate) fn checks_memory(resources: &LinuxResources) -> Option<bool> {
    resources.memory().as_ref().and_then(LinuxMemory::check_before_update)
}

/// Refuses CPU shares that the kernel would replace by the nearest it has, as runc does on cgroup v1. On v2 all have a
/// weight.
pub(crate) fn check_shares(host: &CgroupFs, limits: &Limits) -> Result<()> {
    const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
    let shares = limits.cpu_shares.filter(|shares| *shares != 0 && !SHARES.contains(shares));
    match shares.filter(|_| host.version() != Version::V2) {
        Some(shares) => Err(Error::PlanProcess {
            source: hull_plan::Error::Bad {
                field: "linux.resources.cpu.shares",
                value: shares.to_string(),
                why: "on cgroup v1 shares are 2 to 262144",
            },
        }),
        None => Ok(()),
    }
}

fn open(global: &Global, id: &str) -> Result<(Dir, Record)> {
    let dir = Dir::open(&global.root, id)?;
    dir.lock()?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    Ok((dir, record))
}

pub(crate) fn update(global: &Global, args: &Update) -> Result<()> {
    let (dir, record) = open(global, &args.id)?;
    if status::of(&dir, &record)?.0 == Status::Stopped {
        return Err(Error::NotRunning { action: "update", id: args.id.clone() });
    }
    let cgroup = status::cgroup(&record)?;
    let mut checks = record.checks_memory;
    let (mut all, mut further) = (Limits::default(), FurtherLimits::default());
    if let Some(path) = &args.file {
        let text = if path.as_os_str() == "-" {
            let mut text = Vec::new();
            let read = std::io::stdin().take(BYTES_MAX).read_to_end(&mut text);
            read.map_err(hull_sys::Error::of_io(|| "read(stdin)")).map_err(Error::call)?;
            text
        } else {
            store::read_bounded(path)?
        };
        let mut resources: LinuxResources = serde_json::from_slice(&text)
            .map_err(|source| Error::Document { path: path.clone(), source })?;
        warn_of_kernel_memory(global, Some(&resources));
        checks = checks_memory(&resources).unwrap_or(checks);
        let planned = |source| Error::Plan { id: args.id.clone(), source };
        hull_plan::check_resources(&resources).map_err(planned)?;
        further = hull_plan::take_further_limits(&mut resources).map_err(planned)?;
        let mut limits = hull_plan::limits(&resources).map_err(planned)?;
        // Rules come in addition to those that are there: an update is not for them.
        limits.devices.clear();
        all.overlay(limits);
    }
    if args.kernel_memory {
        log::warn(global, KERNEL_MEMORY_IGNORED);
    }
    all.overlay(args.limits.clone());
    let FurtherLimits { realtime_runtime_us, realtime_period_us, .. } = args.further;
    further.realtime_runtime_us = realtime_runtime_us.or(further.realtime_runtime_us);
    further.realtime_period_us = realtime_period_us.or(further.realtime_period_us);
    check_shares(&status::host_of(&record)?, &all)?;
    if checks {
        cgroup.check_memory(&all).map_err(failed(&args.id))?;
    }
    // All of them or none.
    let unit = record.systemd_unit.as_deref();
    let then = || {
        cgroup.apply_further(&further).map_err(failed(&args.id))?;
        unit.map_or(Ok(()), |unit| systemd::update(unit, &all))
    };
    cgroup.update_then(&all, then).map_err(failed(&args.id))?
}

pub(crate) fn pause(global: &Global, id: &str) -> Result<()> {
    let (dir, record) = open(global, id)?;
    match status::of(&dir, &record)?.0 {
        Status::Created | Status::Running => {}
        status @ (Status::Creating | Status::Paused | Status::Stopped) => {
            return Err(Error::WrongState { action: "pause", id: id.into(), status });
        }
    }
    status::cgroup(&record)?.freeze(FREEZE_LIMIT).map_err(failed(id))
}

pub(crate) fn resume(global: &Global, id: &str) -> Result<()> {
    let (dir, record) = open(global, id)?;
    let cgroup = status::cgroup(&record)?;
    if !cgroup.is_frozen().map_err(failed(id))? {
        let (status, _) = status::of(&dir, &record)?;
        return Err(Error::WrongState { action: "resume", id: id.into(), status });
    }
    cgroup.thaw().map_err(failed(id))
}
