// SPDX-License-Identifier: Apache-2.0
//! When the seccomp filter of a process is installed, and the system calls that run under it until the exec.
//!
//! Both by the same lists, so that a profile can be refused before anything is started.

use crate::filter::passes;
use crate::plan::Seccomp;
use hull_sys::filtered_calls::{self as calls, FilteredCall};

/// A part of a start that only some starts have, and that may run under the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The program's process is a sibling of the one that was cloned for it: others see its pid namespace.
    Birth,
    /// The process takes a terminal.
    Terminal,
    /// The process is to end with its parent.
    ParentDeath,
    /// The process waits at a start socket.
    Wait,
    /// Hooks run in the process, before the program.
    Hooks,
    /// The listener of the filter is handed over.
    Listener,
    /// The process waits for its parent to schedule it.
    Schedule,
    /// The process becomes an init, with the program as its child.
    Init,
}

/// When the seccomp filter is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterPlace {
    /// Before the identity, without no-new-privs: later the process may not install it any more.
    WithRights,
    /// Before the sibling is created, so that it is never visible without: the filter allows the last steps.
    BeforeBirth,
    /// Just before the exec, under no-new-privs.
    Last,
}

impl FilterPlace {
    /// The place of a filter in a start with these phases.
    #[must_use]
    pub fn choose(filter: Option<&Seccomp>, no_new_privs: bool, phases: &[Phase]) -> Self {
        let is_sibling = phases.contains(&Phase::Birth);
        if is_sibling && phases.contains(&Phase::Listener) {
            // Who decides about its calls is to know the program's process, and nothing before it waits for that.
            return Self::Last;
        }
        let lets_through = || {
            filter.is_none_or(|filter| {
                Self::BeforeBirth.calls(phases).iter().all(|call| passes(filter, call))
            })
        };
        match (is_sibling, no_new_privs) {
            (true, true) if lets_through() => Self::BeforeBirth,
            (false, false) => Self::WithRights,
            (true, false) if lets_through() => Self::WithRights,
            // Without no-new-privs a filter that forbids processes would forbid our own sibling too, and a
            // sibling that may install a filter must not be visible. So this one gets no-new-privs.
            _ => Self::Last,
        }
    }

    /// The calls that run under a filter at this place, in a start with these phases.
    #[must_use]
    pub fn calls(self, phases: &[Phase]) -> Vec<FilteredCall> {
        let has = |phase| phases.contains(&phase);
        let has_listener = has(Phase::Listener);
        let before_exec = self != Self::Last;
        if !before_exec && !has_listener {
            // The init installs it for itself, too.
            let init: &[FilteredCall] = if has(Phase::Init) { &calls::INIT_PROGRAM } else { &[] };
            return [calls::EXEC.as_slice(), init].concat();
        }
        let parts: [(bool, &[FilteredCall]); 13] = [
            (has_listener, &calls::LISTENER),
            (self == Self::WithRights, &calls::IDENTITY),
            (before_exec && has(Phase::Birth), &calls::BIRTH),
            (before_exec && has(Phase::Terminal), &calls::TERMINAL),
            (before_exec, &calls::CHECKS),
            (before_exec && has(Phase::ParentDeath), &calls::PARENT_DEATH),
            (has(Phase::Wait), &calls::WAIT),
            (has(Phase::Hooks), &calls::HOOKS),
            // A hook's process installs a filter at the last place itself.
            (has(Phase::Hooks), &calls::HOOK_BIRTH),
            (has(Phase::Schedule), &calls::SCHEDULE),
            (before_exec && has(Phase::Init), &calls::INIT),
            (has(Phase::Init), &calls::INIT_PROGRAM),
            (true, &calls::REPORT),
        ];
        let parts = parts.into_iter().filter(|(is_made, _)| *is_made);
        parts.flat_map(|(_, calls)| calls).chain(&calls::EXEC).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(place: FilterPlace, phases: &[Phase]) -> Vec<&'static str> {
        place.calls(phases).into_iter().map(|call| call.name).collect()
    }

    #[test]
    fn the_later_the_place_the_fewer_the_calls() {
        assert_eq!(names(FilterPlace::Last, &[Phase::ParentDeath]), ["execve", "exit_group"]);
        let all = names(FilterPlace::WithRights, &[Phase::ParentDeath]);
        for call in ["chdir", "setresuid", "ppoll", "rt_sigprocmask", "write", "execve"] {
            assert!(all.contains(&call), "{call} in {all:?}");
        }
        assert!(!all.contains(&"clone") && !all.contains(&"recvmsg"), "{all:?}");
        let sibling = names(FilterPlace::BeforeBirth, &[Phase::Birth, Phase::Wait]);
        assert!(sibling.contains(&"clone") && sibling.contains(&"recvmsg"), "{sibling:?}");
        assert!(!sibling.contains(&"setresuid") && !sibling.contains(&"ppoll"), "{sibling:?}");
        let listened = names(FilterPlace::Last, &[Phase::Listener, Phase::Wait]);
        assert!(listened.contains(&"sendmsg") && listened.contains(&"recvmsg"), "{listened:?}");
        assert!(!listened.contains(&"getcwd"), "{listened:?}");
        let init = names(FilterPlace::Last, &[Phase::Init]);
        assert!(init.contains(&"execveat") && !init.contains(&"clone"), "{init:?}");
        let init = names(FilterPlace::WithRights, &[Phase::Init]);
        assert!(init.contains(&"clone") && init.contains(&"rt_sigtimedwait"), "{init:?}");
    }

    #[test]
    fn without_a_filter_a_sibling_is_confined_first() {
        let place =
            |no_new_privs, phases: &[Phase]| FilterPlace::choose(None, no_new_privs, phases);
        assert_eq!(place(true, &[Phase::Birth]), FilterPlace::BeforeBirth);
        assert_eq!(place(false, &[Phase::Birth]), FilterPlace::WithRights);
        assert_eq!(place(false, &[]), FilterPlace::WithRights);
        assert_eq!(place(true, &[]), FilterPlace::Last);
        assert_eq!(place(true, &[Phase::Birth, Phase::Listener]), FilterPlace::Last);
    }
}
