// SPDX-License-Identifier: Apache-2.0
//! Merges limits: values that are set in one message replace those of another.

use super::owners::Claims;
use crate::Error;
use hull_proto::nri::{Field, LinuxCpu, LinuxMemory, LinuxResources};

/// Replaces the limits that `new` sets; all others stay as they are.
pub fn overlay(have: &mut LinuxResources, new: &LinuxResources) {
    // Cannot fail: nothing is claimed.
    let _infallible = each(have, new, &mut |_, _| Ok(()));
}

/// Does the same on behalf of a plugin, which claims each value. If another plugin has one of them, nothing changes.
pub(super) fn overlay_claimed(
    have: &mut LinuxResources,
    new: &LinuxResources,
    claims: &mut Claims<'_>,
) -> Result<(), Error> {
    let mut merged = have.clone();
    each(&mut merged, new, &mut |field, key| match key {
        Some(key) => claims.entry(field, key),
        None => claims.whole(field),
    })?;
    *have = merged;
    Ok(())
}

type Claim<'a> = &'a mut dyn FnMut(Field, Option<&str>) -> Result<(), Error>;

/// Copies the optional fields that are set.
macro_rules! copy_set {
    ($have:expr, $new:expr, $claim:expr; $($name:ident: $field:ident),* $(,)?) => {
        $(if let Some(value) = &$new.$name {
            $claim(Field::$field, None)?;
            $have.$name = Some(value.clone());
        })*
    };
}

fn each(have: &mut LinuxResources, new: &LinuxResources, claim: Claim<'_>) -> Result<(), Error> {
    if let Some(new) = &new.memory {
        memory(have.memory.get_or_insert_default(), new, claim)?;
    }
    if let Some(new) = &new.cpu {
        cpu(have.cpu.get_or_insert_default(), new, claim)?;
    }
    for new in &new.hugepage_limits {
        claim(Field::HugepageLimits, Some(&new.page_size))?;
        have.hugepage_limits.retain(|of| of.page_size != new.page_size);
        have.hugepage_limits.push(new.clone());
    }
    for (key, value) in &new.unified {
        claim(Field::CgroupsUnified, Some(key))?;
        have.unified.insert(key.clone(), value.clone());
    }
    // Rules apply in order, and none replaces another, so nothing is claimed.
    have.devices.extend(new.devices.iter().cloned());
    copy_set!(have, new, claim; blockio_class: BlockioClass, rdt_class: RdtClass, pids: PidsLimit);
    Ok(())
}

fn memory(have: &mut LinuxMemory, new: &LinuxMemory, claim: Claim<'_>) -> Result<(), Error> {
    copy_set!(have, new, claim;
        limit: MemLimit,
        reservation: MemReservation,
        swap: MemSwapLimit,
        kernel: MemKernelLimit,
        kernel_tcp: MemTcpLimit,
        swappiness: MemSwappiness,
        disable_oom_killer: MemDisableOomKiller,
        use_hierarchy: MemUseHierarchy,
    );
    Ok(())
}

fn cpu(have: &mut LinuxCpu, new: &LinuxCpu, claim: Claim<'_>) -> Result<(), Error> {
    copy_set!(have, new, claim;
        shares: CpuShares,
        quota: CpuQuota,
        period: CpuPeriod,
        realtime_runtime: CpuRealtimeRuntime,
        realtime_period: CpuRealtimePeriod,
    );
    for (have, new, field) in [
        (&mut have.cpus, &new.cpus, Field::CpuSetCpUs),
        (&mut have.mems, &new.mems, Field::CpuSetMems),
    ] {
        if !new.is_empty() {
            claim(field, None)?;
            have.clone_from(new);
        }
    }
    Ok(())
}
