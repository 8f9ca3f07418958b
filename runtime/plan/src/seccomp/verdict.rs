// SPDX-License-Identifier: Apache-2.0
//! The answer of a compiled filter to a system call by its name.

use super::calls::number;
use hull_init::filter::{ACTION, answers};
use hull_init::plan::Seccomp;
use std::collections::BTreeSet;

/// The answer of a filter to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The call passes, whatever its arguments are.
    Passes,
    /// It fails with this errno, whatever its arguments are.
    Fails(u32),
    /// The process or thread is killed, or gets SIGSYS, whatever the arguments are.
    Kills,
    /// It depends on the arguments.
    Depends,
}

/// `SECCOMP_RET_DATA`, seccomp(2).
const DATA: u32 = 0x0000_ffff;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_TRAP: u32 = 0x0003_0000;
/// `SECCOMP_RET_KILL_PROCESS` and `SECCOMP_RET_KILL_THREAD`.
const KILLS: [u32; 2] = [0x8000_0000, 0];
/// Asks the process's tracer; a process without one gets `ENOSYS` from the kernel.
const RETURN_TRACE: u32 = 0x7ff0_0000;
const ENOSYS: u32 = 38;
/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG`.
const PASSES: [u32; 2] = [0x7fff_0000, 0x7ffc_0000];

/// The filter's answer to `call`, by its name on this machine's architecture. `None` for an unknown name, and for a
/// filter that cannot be evaluated.
#[must_use]
pub fn verdict(filter: &Seccomp, call: &str) -> Option<Verdict> {
    verdict_of(filter, call_number(call)?, None)
}

/// The filter's answer to a call by its number, with its first argument if that is given.
pub(super) fn verdict_of(filter: &Seccomp, number: u32, first: Option<u64>) -> Option<Verdict> {
    let answers = answers(filter, number, first)?;
    let kinds: BTreeSet<_> = answers.iter().map(|answer| kind(*answer)).collect::<Option<_>>()?;
    let mut kinds = kinds.into_iter();
    match (kinds.next()?, kinds.next()) {
        (Kind::Passes, None) => Some(Verdict::Passes),
        (Kind::Fails, None) => Some(Verdict::Fails(errno(*answers.first()?))),
        (Kind::Kills, None) => Some(Verdict::Kills),
        (_, Some(_)) => Some(Verdict::Depends),
    }
}

/// The number of a call on this machine's architecture; `None` for an unknown name.
#[must_use]
pub fn call_number(call: &str) -> Option<u32> {
    u32::try_from(i32::from(number(call)?)).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Passes,
    Fails,
    Kills,
}

fn kind(answer: u32) -> Option<Kind> {
    match answer & ACTION {
        action if PASSES.contains(&action) => Some(Kind::Passes),
        RETURN_ERRNO | RETURN_TRACE => Some(Kind::Fails),
        RETURN_TRAP => Some(Kind::Kills),
        action if KILLS.contains(&action) => Some(Kind::Kills),
        _ => None,
    }
}

/// The errno of an answer of [`Kind::Fails`].
fn errno(answer: u32) -> u32 {
    if answer & ACTION == RETURN_TRACE { ENOSYS } else { answer & DATA }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{compiled, localhost, runtime_default};

    fn filter(json: &str) -> Seccomp {
        compiled(&localhost(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_profile_answers_as_it_is_written() {
        let filter = filter(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["execve", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"names": ["exit_group"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [
                    {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#,
        );
        assert_eq!(verdict(&filter, "mkdir"), Some(Verdict::Fails(13)));
        assert_eq!(verdict(&filter, "exit_group"), Some(Verdict::Kills));
        assert_eq!(verdict(&filter, "personality"), Some(Verdict::Depends));
        assert_eq!(verdict(&filter, "read"), Some(Verdict::Passes));
        assert_eq!(verdict(&filter, "no_such_call"), None);
        let broken = Seccomp { bpf: vec![1, 2, 3], flags: 0 };
        assert_eq!(verdict(&broken, "read"), None);
    }

    #[test]
    fn a_call_for_a_tracer_fails_as_on_a_kernel_without_it() {
        let filter = filter(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["mkdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 13},
                {"names": ["personality"], "action": "SCMP_ACT_TRACE", "args": [
                    {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#,
        );
        assert_eq!(verdict(&filter, "mkdir"), Some(Verdict::Fails(38)));
        assert_eq!(verdict(&filter, "personality"), Some(Verdict::Depends));
        assert_eq!(verdict(&filter, "read"), Some(Verdict::Passes));
    }

    #[test]
    fn the_default_profile_refuses_what_needs_rights() {
        let filter = compiled(&runtime_default(None).unwrap()).unwrap();
        for call in ["unshare", "mount", "setns", "bpf", "keyctl"] {
            let answer = verdict(&filter, call);
            assert_eq!(answer, Some(Verdict::Fails(1)), "{call}");
        }
        assert_eq!(verdict(&filter, "execve"), Some(Verdict::Passes));
        assert_eq!(verdict(&filter, "clone"), Some(Verdict::Depends));
    }
}
