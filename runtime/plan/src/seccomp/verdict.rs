// SPDX-License-Identifier: Apache-2.0
//! The answer of a compiled filter to a system call, found by evaluating the filter and not by hearing the kernel: a
//! filter with the log flag would write a line for each refused call, also for the many that libraries only try.

use super::calls::number;
use hull_init::plan::Seccomp;
use hull_sys::arch::AUDIT_ARCH;
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

/// `SECCOMP_RET_ACTION_FULL` and `SECCOMP_RET_DATA`, seccomp(2).
const ACTION: u32 = 0xffff_0000;
const DATA: u32 = 0x0000_ffff;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_TRAP: u32 = 0x0003_0000;
/// `SECCOMP_RET_KILL_PROCESS` and `SECCOMP_RET_KILL_THREAD`.
const KILLS: [u32; 2] = [0x8000_0000, 0];
/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG`; a tracer that nobody is, answers `ENOSYS`: not here.
const PASSES: [u32; 2] = [0x7fff_0000, 0x7ffc_0000];
/// Most instructions that one evaluation takes, over all ways through the filter.
const STEPS_MAX: usize = 1 << 16;

/// The filter's answer to `call`, by its name on this machine's architecture. `None` for an unknown name, and for a
/// filter that cannot be evaluated.
#[must_use]
pub fn verdict(filter: &Seccomp, call: &str) -> Option<Verdict> {
    let number = u32::try_from(i32::from(number(call)?)).ok()?;
    let mut answers = BTreeSet::new();
    let start = State { at: 0, a: Some(0), x: Some(0), memory: [Some(0); 16] };
    let (mut open, mut steps) = (vec![start], 0);
    while let Some(state) = open.pop() {
        follow(&filter.bpf, number, state, &mut open, &mut answers, &mut steps)?;
    }
    let kinds: BTreeSet<_> = answers.iter().map(|answer| kind(*answer)).collect::<Option<_>>()?;
    let mut kinds = kinds.into_iter();
    match (kinds.next()?, kinds.next()) {
        (Kind::Passes, None) => Some(Verdict::Passes),
        (Kind::Fails, None) => Some(Verdict::Fails(answers.first()? & DATA)),
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
        RETURN_ERRNO => Some(Kind::Fails),
        RETURN_TRAP => Some(Kind::Kills),
        action if KILLS.contains(&action) => Some(Kind::Kills),
        _ => None,
    }
}

/// A place in a filter, and what is known of its registers there: `None` depends on an argument.
#[derive(Debug, Clone, Copy)]
struct State {
    at: usize,
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; 16],
}

/// Follows one way to its answer. Where a comparison depends on an argument, the other way is added to `open`.
fn follow(
    program: &[u8],
    call: u32,
    mut state: State,
    open: &mut Vec<State>,
    answers: &mut BTreeSet<u32>,
    steps: &mut usize,
) -> Option<()> {
    loop {
        *steps += 1;
        if *steps > STEPS_MAX {
            return None;
        }
        let item = program.get(state.at.checked_mul(8)?..)?.get(..8)?;
        let code = u16::from_ne_bytes([item[0], item[1]]);
        let (yes, no) = (usize::from(item[2]), usize::from(item[3]));
        let k = u32::from_ne_bytes(item[4..8].try_into().ok()?);
        let index = usize::try_from(k).ok()?;
        state.at += 1;
        match code {
            0x20 => state.a = loaded(k, call),
            0x00 => state.a = Some(k),
            0x02 => *state.memory.get_mut(index)? = state.a,
            0x60 => state.a = *state.memory.get(index)?,
            0x54 => state.a = state.a.map(|a| a & k),
            0x07 => state.x = state.a,
            0x87 => state.a = state.x,
            0x05 => state.at = state.at.checked_add(index)?,
            0x06 => {
                answers.insert(k);
                return Some(());
            }
            0x15 | 0x25 | 0x35 | 0x45 => match state.a.map(|a| compare(code, a, k)) {
                Some(true) => state.at += yes,
                Some(false) => state.at += no,
                None => {
                    open.push(State { at: state.at + no, ..state });
                    state.at += yes;
                }
            },
            _ => return None,
        }
    }
}

fn compare(code: u16, a: u32, k: u32) -> bool {
    match code {
        0x15 => a == k,
        0x25 => a > k,
        0x35 => a >= k,
        _ => a & k != 0,
    }
}

/// A word of `struct seccomp_data`: the number, the architecture; all else is unknown.
fn loaded(offset: u32, call: u32) -> Option<u32> {
    match offset {
        0 => Some(call),
        4 => Some(AUDIT_ARCH),
        _ => None,
    }
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
