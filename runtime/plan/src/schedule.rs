// SPDX-License-Identifier: Apache-2.0
//! How the kernel is to schedule a process, and its reads and writes.

use crate::Error;
use hull_init::{MemoryPolicy, Scheduling};
use hull_sys::SchedAttr;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

/// Most numbers of a list of CPUs or nodes: more than any kernel has (`NR_CPUS` is at most 8192).
const NUMBERS_MAX: usize = 8192;
const SCHED_DEADLINE: u32 = 6;

/// Class and level, as `ioprio_set(2)` has them.
pub(crate) fn io_priority(of: &LinuxIOPriority) -> Result<(u8, u8), Error> {
    let class = match of.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u8::try_from(of.priority()) {
        Ok(level) if level <= 7 => Ok((class, level)),
        Ok(_) | Err(_) => Err(Error::Bad {
            field: "process.ioPriority.priority",
            value: of.priority().to_string(),
            why: "levels are 0 to 7",
        }),
    }
}

/// Policy, nice value and priority, as `sched_setattr(2)` has them: what a plan has room for.
pub(crate) fn scheduler(of: &Scheduler) -> Result<(u32, i32, u32), Error> {
    let policy = policy(of)?;
    if of.flags().iter().any(|flags| !flags.is_empty()) {
        return unsupported("flags of scheduling", "process.scheduler.flags");
    }
    let deadline = [of.runtime(), of.deadline(), of.period()];
    if deadline.into_iter().flatten().any(|of| *of != 0) {
        return unsupported("deadlines of scheduling", "process.scheduler.deadline");
    }
    Ok((policy, of.nice().unwrap_or(0), priority(of)?))
}

fn unsupported<T>(what: &'static str, value: &str) -> Result<T, Error> {
    Err(Error::Unsupported { what, value: value.into() })
}

fn policy(of: &Scheduler) -> Result<u32, Error> {
    Ok(match of.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedIso => return unsupported("this scheduling", "SCHED_ISO"),
        LinuxSchedulerPolicy::SchedDeadline => {
            return unsupported("this scheduling", "SCHED_DEADLINE");
        }
    })
}

fn priority(of: &Scheduler) -> Result<u32, Error> {
    let priority = of.priority().unwrap_or(0);
    u32::try_from(priority).map_err(|_| Error::Bad {
        field: "process.scheduler.priority",
        value: priority.to_string(),
        why: "it is negative",
    })
}

/// All scheduling that a spec asks for: of a container's process, or of an exec with `policy`, its container's.
pub fn scheduling(
    process: &Process,
    policy: Option<&LinuxMemoryPolicy>,
) -> Result<Scheduling, Error> {
    let affinity = process.exec_cpu_affinity().as_ref();
    let cpus = affinity.and_then(|of| of.cpu_affinity_final().as_deref());
    Ok(Scheduling {
        attr: process.scheduler().as_ref().map(attr).transpose()?,
        memory: policy.map(memory_policy).transpose()?,
        cpus: cpus.filter(|list| !list.is_empty()).map(cpu_mask).transpose()?,
    })
}

/// The CPUs of a list such as `0-3,7`, as bits of a mask, least significant first.
pub fn cpu_mask(list: &str) -> Result<Vec<u64>, Error> {
    mask("process.execCPUAffinity", list)
}

fn mask(field: &'static str, list: &str) -> Result<Vec<u64>, Error> {
    let bad = |why| Error::Bad { field, value: list.chars().take(100).collect(), why };
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(number) if number < NUMBERS_MAX => Ok(number),
        Ok(_) => Err(bad("numbers go up to 8191")),
        Err(_) => Err(bad("it is a list of numbers and ranges, such as 0-3,7")),
    };
    let mut words: Vec<u64> = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad("a range begins with the lower number"));
        }
        words.resize(words.len().max(last / 64 + 1), 0);
        for at in first..=last {
            words[at / 64] |= 1 << (at % 64);
        }
    }
    Ok(words)
}

/// The field that lists the nodes of a memory policy.
const NODES: &str = "linux.memoryPolicy.nodes";

/// Checks that a policy has the nodes that it needs.
pub(crate) fn check_memory_policy(of: &LinuxMemoryPolicy) -> Result<(), Error> {
    use MemoryPolicyModeType as Mode;
    let needs_nodes = matches!(
        of.mode(),
        Mode::MpolBind
            | Mode::MpolInterleave
            | Mode::MpolPreferredMany
            | Mode::MpolWeightedInterleave
    );
    if needs_nodes && memory_policy(of)?.nodes.iter().all(|word| *word == 0) {
        let why = "this mode needs a node";
        return Err(Error::Bad { field: NODES, value: String::new(), why });
    }
    memory_policy(of).map(drop)
}

fn memory_policy(of: &LinuxMemoryPolicy) -> Result<MemoryPolicy, Error> {
    let mode = match of.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = of.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let list = of.nodes().as_deref().filter(|list| !list.is_empty());
    let nodes = list.map(|list| mask(NODES, list)).transpose()?.unwrap_or_default();
    let without =
        matches!(of.mode(), MemoryPolicyModeType::MpolDefault | MemoryPolicyModeType::MpolLocal);
    // The kernel's EINVAL would not name the nodes.
    if without && !nodes.is_empty() {
        let value = list.unwrap_or_default().to_owned();
        return Err(Error::Bad { field: NODES, value, why: "this mode takes no nodes" });
    }
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

fn attr(of: &Scheduler) -> Result<SchedAttr, Error> {
    let policy = match of.policy() {
        LinuxSchedulerPolicy::SchedDeadline => SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedOther
        | LinuxSchedulerPolicy::SchedFifo
        | LinuxSchedulerPolicy::SchedRr
        | LinuxSchedulerPolicy::SchedBatch
        | LinuxSchedulerPolicy::SchedIso
        | LinuxSchedulerPolicy::SchedIdle => policy(of)?,
    };
    let flags = of.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    Ok(SchedAttr {
        policy,
        flags,
        nice: of.nice().unwrap_or(0),
        priority: priority(of)?,
        runtime: of.runtime().unwrap_or(0),
        deadline: of.deadline().unwrap_or(0),
        period: of.period().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn scheduled(of: Value) -> Result<(u32, i32, u32), String> {
        scheduler(&from_value(of).unwrap()).map_err(|err| err.to_string())
    }

    #[test]
    fn what_the_kernel_has_is_taken_and_the_rest_refused_by_name() {
        assert_eq!(scheduled(json!({"policy": "SCHED_BATCH", "nice": 5})), Ok((3, 5, 0)));
        assert_eq!(scheduled(json!({"policy": "SCHED_FIFO", "priority": 9})), Ok((1, 0, 9)));
        for (of, says) in [
            (json!({"policy": "SCHED_DEADLINE"}), "SCHED_DEADLINE"),
            (json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RECLAIM"]}), "flags"),
            (json!({"policy": "SCHED_OTHER", "runtime": 1}), "deadline"),
            (json!({"policy": "SCHED_RR", "priority": -1}), "negative"),
        ] {
            let said = scheduled(of).unwrap_err();
            assert!(said.contains(says), "{says:?} in {said}");
        }
        let level = |class: &str, priority: i64| {
            io_priority(&from_value(json!({"class": class, "priority": priority})).unwrap()).ok()
        };
        assert_eq!(level("IOPRIO_CLASS_RT", 0), Some((1, 0)));
        assert_eq!(level("IOPRIO_CLASS_IDLE", 7), Some((3, 7)));
        assert_eq!(level("IOPRIO_CLASS_BE", 8), None);
        assert_eq!(level("IOPRIO_CLASS_BE", -1), None);
    }

    #[test]
    fn a_deadline_has_its_three_times_and_flags() {
        let of = json!({
            "policy": "SCHED_DEADLINE", "flags": ["SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM"],
            "nice": 19, "runtime": 42_000, "deadline": 100_000, "period": 1_000_000,
        });
        let want = SchedAttr {
            policy: 6,
            flags: 3,
            nice: 19,
            priority: 0,
            runtime: 42_000,
            deadline: 100_000,
            period: 1_000_000,
        };
        assert_eq!(attr(&from_value(of).unwrap()).unwrap(), want);
        attr(&from_value(json!({"policy": "SCHED_ISO"})).unwrap()).unwrap_err();
    }

    #[test]
    fn lists_of_numbers_are_bounded() {
        assert_eq!(cpu_mask("0-3,7").unwrap(), [0x8f]);
        assert_eq!(cpu_mask("64,1").unwrap(), [2, 1]);
        for bad in
            ["", "a", "1-", "-1", "3-1", "8192", "0-9876543210", "99999999999999999999", "1,,2"]
        {
            cpu_mask(bad).unwrap_err();
        }
    }

    #[test]
    fn a_memory_policy_without_nodes_has_none() {
        let of = |of: Value| memory_policy(&from_value(of).unwrap());
        let bound =
            of(json!({"mode": "MPOL_BIND", "nodes": "0,2", "flags": ["MPOL_F_STATIC_NODES"]}));
        assert_eq!(bound.unwrap(), MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![5] });
        assert_eq!(of(json!({"mode": "MPOL_DEFAULT"})).unwrap(), MemoryPolicy::default());
        of(json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"})).unwrap_err();
        of(json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"})).unwrap_err();
    }
}
