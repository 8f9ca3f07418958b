// SPDX-License-Identifier: Apache-2.0
//! How the kernel is to schedule a process, and its reads and writes.

use crate::Error;
use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority, LinuxSchedulerPolicy, Scheduler};

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

/// Policy, nice value and priority, as `sched_setattr(2)` has them.
pub(crate) fn scheduler(of: &Scheduler) -> Result<(u32, i32, u32), Error> {
    let unsupported = |what, value: &str| Err(Error::Unsupported { what, value: value.into() });
    let policy = match of.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedIso => return unsupported("this scheduling", "SCHED_ISO"),
        LinuxSchedulerPolicy::SchedDeadline => {
            return unsupported("this scheduling", "SCHED_DEADLINE");
        }
    };
    if of.flags().iter().any(|flags| !flags.is_empty()) {
        return unsupported("flags of scheduling", "process.scheduler.flags");
    }
    let deadline = [of.runtime(), of.deadline(), of.period()];
    if deadline.into_iter().flatten().any(|of| *of != 0) {
        return unsupported("deadlines of scheduling", "process.scheduler.deadline");
    }
    let priority = of.priority().unwrap_or(0);
    let checked = u32::try_from(priority).map_err(|_| Error::Bad {
        field: "process.scheduler.priority",
        value: priority.to_string(),
        why: "it is negative",
    })?;
    Ok((policy, of.nice().unwrap_or(0), checked))
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
}
