// SPDX-License-Identifier: Apache-2.0
//! How the kernel is to schedule a process, and from where it gives it memory: what a plan has no room for.

use crate::plan::{Process, Step, StepError};
use hull_sys::SchedAttr;

/// Beside the plan, because monitors of earlier releases read plans.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Replaces the scheduler of the process.
    pub attr: Option<SchedAttr>,
    /// The memory policy.
    pub memory: Option<MemoryPolicy>,
    /// The CPUs, as bits of a mask, least significant first; `None` for all of the cgroup.
    pub cpus: Option<Vec<u64>>,
}

impl Scheduling {
    /// The scheduler, if no process that creates another one may have it: a deadline, or one that children do not
    /// inherit.
    #[must_use]
    pub fn not_inherited(&self) -> Option<SchedAttr> {
        const DEADLINE: u32 = 6;
        const RESET_ON_FORK: u64 = 1;
        self.attr.filter(|attr| attr.policy == DEADLINE || attr.flags & RESET_ON_FORK != 0)
    }
}

/// `set_mempolicy(2)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with flags.
    pub mode: u32,
    /// The nodes, as bits of a mask, least significant first.
    pub nodes: Vec<u64>,
}

/// Sets all of it for the calling process.
/// With `by_parent`, the scheduler is left to the parent.
pub(crate) fn set(
    process: &Process,
    more: Option<&Scheduling>,
    by_parent: bool,
) -> Result<(), StepError> {
    let failed = StepError::at(Step::Scheduling);
    if let Some((class, level)) = process.io_priority {
        hull_sys::ioprio_set(class, level).map_err(&failed)?;
    }
    let own = process.scheduler;
    let own = own.map(|(policy, nice, priority)| SchedAttr {
        policy,
        nice,
        priority,
        ..SchedAttr::default()
    });
    let attr = more.and_then(|more| more.attr).or(own);
    if let Some(attr) = attr.filter(|_| !by_parent) {
        hull_sys::sched_setattr(0, &attr).map_err(&failed)?;
    }
    if let Some(cpus) = more.and_then(|more| more.cpus.as_ref()) {
        hull_sys::set_affinity(cpus).map_err(&failed)?;
    }
    if let Some(policy) = more.and_then(|more| more.memory.as_ref()) {
        hull_sys::set_mempolicy(policy.mode, &policy.nodes).map_err(&failed)?;
    }
    if let Some(personality) = process.personality {
        hull_sys::personality(personality).map_err(&failed)?;
    }
    Ok(())
}
