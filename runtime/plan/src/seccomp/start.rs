// SPDX-License-Identifier: Apache-2.0
//! Whether a filter lets a container start: the calls of Hull's own that run under it, and those by which programs
//! usually start. Evaluated before anything is started, so that one message names all calls that are missing.

use super::verdict::{Verdict, verdict, verdict_of};
use crate::Error;
use hull_init::plan::Seccomp;
use hull_init::{FilterPlace, Phase, Process};

/// `execve(2)`, `exit_group(2)`.
const EXEC: &str = "execve";
const EXIT: &str = "exit_group";
const ENOSYS: u32 = 38;

/// Calls without which no C library starts a program; of alternatives, libraries use one.
const NEEDED: [&[&str]; 14] = [
    &["arch_prctl"],
    &["brk"],
    &["mmap"],
    &["mprotect"],
    &["munmap"],
    &["set_tid_address"],
    &["read"],
    &["openat", "open"],
    &["close"],
    &["newfstatat", "fstat"],
    &["rt_sigprocmask"],
    &["rt_sigaction"],
    &["futex"],
    &["write"],
];

/// Further calls of programs and libraries when they start, or start others: many go on without one of them.
const USUAL: [&str; 20] = [
    "openat",
    "open",
    "newfstatat",
    "fstat",
    "access",
    "pread64",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "poll",
    "ppoll",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "wait4",
    "execve",
    "exit",
    "exit_group",
];

/// The calls for the start of a program that a filter refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedAtStart {
    /// Those without which no C library starts a program.
    pub needed: Vec<&'static str>,
    /// Those that programs usually make, too.
    pub usual: Vec<&'static str>,
}

impl RefusedAtStart {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        self.needed.iter().chain(&self.usual).copied()
    }
}

/// The usual calls at the start of programs that a filter refuses, or kills for, whatever their arguments are.
#[must_use]
pub fn refused_at_start(filter: &Seccomp) -> RefusedAtStart {
    let is_refused = |call: &str| is_refused(verdict(filter, call));
    let needed: Vec<&'static str> = NEEDED
        .into_iter()
        .filter(|group| group.iter().all(|call| verdict(filter, call).is_none_or(is_refused_by)))
        .flatten()
        .copied()
        .filter(|call| is_refused(call))
        .collect();
    // Libraries do without a call that the kernel seems not to have.
    let is_missed = |call: &str| verdict(filter, call) != Some(Verdict::Fails(ENOSYS));
    let usual = USUAL.into_iter().filter(|call| !needed.contains(call));
    let usual = usual.filter(|call| is_refused(call) && is_missed(call)).collect();
    RefusedAtStart { needed, usual }
}

fn is_refused_by(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Fails(_) | Verdict::Kills)
}

/// False for a call that this machine does not have.
fn is_refused(verdict: Option<Verdict>) -> bool {
    verdict.is_some_and(is_refused_by)
}

/// Refuses a process whose filter lets no program start, or not by a start with these phases: what runs under the
/// filter could fail at any of its calls, and might not even report that.
///
/// # Errors
/// [`Error::SeccompCalls`], with all calls that the filter refuses, or kills for.
pub fn check_start(process: &Process, phases: &[Phase]) -> Result<(), Error> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let place = FilterPlace::choose(Some(filter), process.no_new_privs, phases);
    let (mut calls, mut is_killed, mut is_failed) = (Vec::new(), false, false);
    for call in place.calls(phases) {
        match verdict_of(filter, call.number, call.first) {
            Some(Verdict::Fails(_)) => is_failed = true,
            Some(Verdict::Kills) => is_killed = true,
            Some(Verdict::Passes | Verdict::Depends) | None => continue,
        }
        if !calls.contains(&call.name) {
            calls.push(call.name);
        }
    }
    if calls.is_empty() {
        return Ok(());
    }
    let answer = match (is_failed, is_killed) {
        (true, true) => "refuses or kills for",
        (false, true) => "kills for",
        _ => "refuses",
    };
    let without = match calls.as_slice() {
        [call] if *call == EXIT => "no process ends",
        calls if calls.contains(&EXEC) => "no program starts",
        _ => "Hull cannot start the container's process",
    };
    // The init and its start are under the filter wherever it is installed.
    let is_under = phases.iter().any(|phase| matches!(phase, Phase::Listener | Phase::Init));
    let is_avoidable = place == FilterPlace::WithRights && !is_under;
    let has_earlier = calls.iter().any(|call| ![EXEC, EXIT].contains(call));
    let further = refused_at_start(filter).all().filter(|call| !calls.contains(call)).collect();
    Err(Error::SeccompCalls {
        answer,
        calls,
        without,
        further,
        can_be_last: is_avoidable && has_earlier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{compiled, localhost, runtime_default};
    use serde_json::json;

    fn process(profile: &serde_json::Value, no_new_privs: bool) -> Process {
        let oci = json!({"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}});
        let oci = serde_json::from_value(oci).unwrap();
        let spec = oci_spec::runtime::Spec::default();
        let process = crate::process(&oci, &spec, &crate::HostFacts::default()).unwrap();
        let profile = localhost(profile.to_string().as_bytes()).unwrap();
        Process { seccomp: Some(compiled(&profile).unwrap()), no_new_privs, ..process }
    }

    fn refusing(calls: &[&str]) -> serde_json::Value {
        let rule = json!({"names": calls, "action": "SCMP_ACT_ERRNO"});
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    }

    const OF_POD: [Phase; 1] = [Phase::ParentDeath];

    #[test]
    fn all_calls_that_a_profile_lacks_are_in_one_message_with_what_to_do() {
        let profile = refusing(&["ppoll", "rt_sigprocmask", "setresuid", "brk", "rseq"]);
        let refused = check_start(&process(&profile, false), &OF_POD).unwrap_err();
        let text = refused.to_string();
        for call in ["`ppoll`", "`rt_sigprocmask`", "`setresuid`"] {
            assert!(text.contains(call), "{text}");
        }
        assert!(!text.contains("brk") && text.contains("refuses system calls"), "{text}");
        let hint = refused.hint().unwrap();
        assert!(hint.contains("allow `setresuid`, `rt_sigprocmask`, `ppoll`"), "{hint}");
        assert!(hint.contains("allowPrivilegeEscalation: false"), "{hint}");
        assert!(hint.contains("`brk`") && hint.contains("`rseq`"), "{hint}");
        // As the very last step, none of them is Hull's.
        check_start(&process(&profile, true), &OF_POD).unwrap();
        // An init calls some of them there, too.
        let with_init = [Phase::ParentDeath, Phase::Init];
        let refused = check_start(&process(&profile, false), &with_init).unwrap_err();
        assert!(!refused.hint().unwrap().contains("allowPrivilegeEscalation"), "{refused}");
        check_start(&process(&profile, true), &with_init).unwrap_err();
    }

    #[test]
    fn a_profile_by_which_nothing_starts_or_ends_is_refused_at_any_place() {
        for no_new_privs in [true, false] {
            for (calls, wanted) in [
                (&["execve"][..], "refuses system call `execve`, without which no program starts"),
                (
                    &["exit_group"],
                    "refuses system call `exit_group`, without which no process ends",
                ),
            ] {
                let refused = check_start(&process(&refusing(calls), no_new_privs), &OF_POD);
                let refused = refused.unwrap_err();
                assert!(refused.to_string().contains(wanted), "{refused}");
                assert!(!refused.hint().unwrap().contains("allowPrivilege"), "{refused}");
            }
        }
        let rule = json!({"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"});
        let kills = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let refused = check_start(&process(&kills, true), &OF_POD).unwrap_err().to_string();
        assert!(refused.contains("kills for system call `execve`"), "{refused}");
    }

    #[test]
    fn a_profile_that_asks_a_tracer_is_refused_with_all_calls() {
        let profile = json!({"defaultAction": "SCMP_ACT_TRACE"});
        for no_new_privs in [true, false] {
            let refused = check_start(&process(&profile, no_new_privs), &OF_POD).unwrap_err();
            let text = refused.to_string();
            assert!(text.contains("refuses") && text.contains("`execve`"), "{text}");
            let hint = refused.hint().unwrap();
            assert!(hint.contains("`exit_group`") && hint.contains("`mmap`"), "{hint}");
        }
        let refused = check_start(&process(&profile, false), &OF_POD).unwrap_err().to_string();
        assert!(refused.contains("`setresuid`"), "{refused}");
    }

    #[test]
    fn a_call_that_is_allowed_with_the_arguments_that_hull_has_is_not_missing() {
        let allowed: Vec<&str> = vec![
            "chdir",
            "capget",
            "capset",
            "setgroups",
            "setresgid",
            "setresuid",
            "umask",
            "getcwd",
            "ppoll",
            "rt_sigaction",
            "rt_sigprocmask",
            "write",
            "execve",
            "exit_group",
        ];
        let profile = |prctls: &[u64]| {
            let mut rules = vec![json!({"names": allowed, "action": "SCMP_ACT_ALLOW"})];
            rules.extend(prctls.iter().map(|value| {
                let args = json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
                json!({"names": ["prctl"], "action": "SCMP_ACT_ALLOW", "args": args})
            }));
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
        };
        check_start(&process(&profile(&[1, 4, 8, 24, 47]), false), &OF_POD).unwrap();
        let refused = check_start(&process(&profile(&[1, 4, 8, 47]), false), &OF_POD);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("system call `prctl`"), "{text}");
    }

    #[test]
    fn the_default_profile_lets_every_start_pass() {
        let filter = compiled(&runtime_default(None).unwrap()).unwrap();
        let all = [
            Phase::Birth,
            Phase::Terminal,
            Phase::ParentDeath,
            Phase::Wait,
            Phase::Hooks,
            Phase::Schedule,
        ];
        for no_new_privs in [true, false] {
            let process = process(&refusing(&["reboot"]), no_new_privs);
            let process = Process { seccomp: Some(filter.clone()), ..process };
            for phases in [&OF_POD[..], &all, &all[1..]] {
                check_start(&process, phases).unwrap();
            }
        }
        assert_eq!(refused_at_start(&filter), RefusedAtStart::default());
    }

    #[test]
    fn one_of_several_calls_for_the_same_is_enough() {
        let filter = |calls: &[&str]| process(&refusing(calls), true).seccomp.unwrap();
        let one = refused_at_start(&filter(&["open", "fstat"]));
        assert_eq!(
            (one.needed.as_slice(), one.usual.as_slice()),
            (&[][..], &["open", "fstat"][..])
        );
        let both = refused_at_start(&filter(&["open", "openat", "clone", "vfork"]));
        assert_eq!(both.needed, ["openat", "open"]);
        assert_eq!(both.usual, ["clone", "vfork"]);
    }
}
