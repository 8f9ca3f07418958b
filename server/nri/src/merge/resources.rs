// SPDX-License-Identifier: Apache-2.0
//! Limits: what is set in one set of them goes over into another.

use super::owners::Claims;
use crate::Error;
use hull_proto::nri::{Field, LinuxCpu, LinuxMemory, LinuxResources};

/// Takes over what `new` sets; the rest stays.
pub fn overlay(have: &mut LinuxResources, new: &LinuxResources) {
    // Without claims nothing is refused.
    let _free = each(have, new, &mut |_, _| Ok(()));
}

/// Likewise, as the plugin's who claims it. When something is another's, all stays as it was.
pub(super) fn claimed(
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

/// Takes over those of the optional fields that are set.
macro_rules! take {
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
    // Rules are read in order and none replaces another: nothing to claim.
    have.devices.extend(new.devices.iter().cloned());
    take!(have, new, claim; blockio_class: BlockioClass, rdt_class: RdtClass, pids: PidsLimit);
    Ok(())
}

fn memory(have: &mut LinuxMemory, new: &LinuxMemory, claim: Claim<'_>) -> Result<(), Error> {
    take!(have, new, claim;
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
    take!(have, new, claim;
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
