// SPDX-License-Identifier: Apache-2.0
//! Evaluates a compiled seccomp filter for a call, also for a call whose arguments are unknown.
//!
//! Evaluated, as hearing the kernel would be costly: a filter with the log flag would write a line for each refused
//! call, also for the many that libraries only try.

use crate::plan::Seccomp;
use hull_sys::arch::AUDIT_ARCH;
use hull_sys::filtered_calls::FilteredCall;
use std::collections::BTreeSet;

/// `SECCOMP_RET_ACTION_FULL`, `seccomp(2)`: the part of an answer that says what happens to the call.
pub const ACTION: u32 = 0xffff_0000;
/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG` and `SECCOMP_RET_USER_NOTIF`, `seccomp(2)`. The last lets another process
/// decide, which has the filter's listener before the call.
const PASSES: [u32; 3] = [0x7fff_0000, 0x7ffc_0000, 0x7fc0_0000];
/// Most instructions that one evaluation takes, over all ways through the filter.
const STEPS_MAX: usize = 1 << 16;

/// `struct seccomp_data` in words: number, architecture, the place (two), arguments (two each, low word first).
/// `None` is any value.
type Data = [Option<u32>; 16];

/// Whether a call passes the filter, whatever its other arguments are. False if the filter cannot be evaluated.
pub(crate) fn passes(filter: &Seccomp, call: &FilteredCall) -> bool {
    answers(filter, call.number, call.first)
        .is_some_and(|answers| answers.iter().all(|answer| PASSES.contains(&(answer & ACTION))))
}

/// All answers of a filter to the call `number` of this machine's architecture, over all values of its arguments but the
/// `first`, if that is given.
///
/// Returns `None` for a filter that cannot be evaluated.
#[must_use]
pub fn answers(filter: &Seccomp, number: u32, first: Option<u64>) -> Option<BTreeSet<u32>> {
    let mut data = [None; 16];
    [data[0], data[1]] = [Some(number), Some(AUDIT_ARCH)];
    if let Some(first) = first {
        let low = u32::try_from(first & 0xffff_ffff).unwrap_or(0);
        let high = u32::try_from(first >> 32).unwrap_or(0);
        [data[4], data[5]] = [low, high].map(Some);
    }
    evaluate(&filter.bpf, &data)
}

/// A place in a filter, and what is known of its registers there: `None` depends on an unknown word.
#[derive(Debug, Clone, Copy)]
struct State {
    at: usize,
    a: Option<u32>,
    x: Option<u32>,
    memory: [Option<u32>; 16],
}

fn evaluate(program: &[u8], data: &Data) -> Option<BTreeSet<u32>> {
    let (mut answers, mut steps) = (BTreeSet::new(), 0);
    let mut open = vec![State { at: 0, a: Some(0), x: Some(0), memory: [Some(0); 16] }];
    while let Some(state) = open.pop() {
        answers.insert(follow(program, data, state, &mut open, &mut steps)?);
    }
    Some(answers)
}

/// Follows one way to its answer. Where a comparison depends on an unknown word, the other way is added to `open`.
///
/// The instructions are those that seccomp allows and compilers of filters make: loads, comparisons, masks, scratch
/// memory.
fn follow(
    program: &[u8],
    data: &Data,
    mut state: State,
    open: &mut Vec<State>,
    steps: &mut usize,
) -> Option<u32> {
    while *steps < STEPS_MAX {
        *steps += 1;
        let item = program.get(state.at.checked_mul(8)?..)?.get(..8)?;
        let code = u16::from_ne_bytes([item[0], item[1]]);
        let (yes, no) = (usize::from(item[2]), usize::from(item[3]));
        let k = u32::from_ne_bytes(item[4..8].try_into().ok()?);
        let index = usize::try_from(k).ok()?;
        state.at += 1;
        match code {
            0x20 => state.a = *data.get(index / 4).filter(|_| index.is_multiple_of(4))?,
            0x00 => state.a = Some(k),
            0x02 => *state.memory.get_mut(index)? = state.a,
            0x60 => state.a = *state.memory.get(index)?,
            0x54 => state.a = state.a.map(|a| a & k),
            0x07 => state.x = state.a,
            0x87 => state.a = state.x,
            0x05 => state.at = state.at.checked_add(index)?,
            0x06 => return Some(k),
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
    None
}

fn compare(code: u16, a: u32, k: u32) -> bool {
    match code {
        0x15 => a == k,
        0x25 => a > k,
        0x35 => a >= k,
        _ => a & k != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(code: u16, yes: u8, no: u8, k: u32) -> Vec<u8> {
        [&code.to_ne_bytes()[..], &[yes, no], &k.to_ne_bytes()].concat()
    }

    #[test]
    fn a_call_passes_by_its_number_and_argument() {
        // Number 7 with a first argument of 9 passes, all else is killed.
        let program = [
            item(0x20, 0, 0, 0),
            item(0x15, 0, 3, 7),
            item(0x20, 0, 0, 16),
            item(0x15, 0, 1, 9),
            item(0x06, 0, 0, 0x7fff_0000),
            item(0x06, 0, 0, 0),
        ];
        let filter = Seccomp { bpf: program.concat(), flags: 0 };
        let call = |number, first| FilteredCall { name: "x", number, first };
        assert!(passes(&filter, &call(7, Some(9))));
        assert!(!passes(&filter, &call(7, Some(8))) && !passes(&filter, &call(6, Some(9))));
        assert!(!passes(&filter, &call(7, None)));
        let any: Vec<u32> = answers(&filter, 7, None).unwrap().into_iter().collect();
        assert_eq!(any, [0, 0x7fff_0000], "it depends on the argument");
        assert_eq!(answers(&filter, 6, None).unwrap().into_iter().collect::<Vec<_>>(), [0]);
        for broken in
            [Vec::new(), vec![1, 2, 3], item(0x20, 0, 0, 1000), item(0x05, 0, 0, u32::MAX)]
        {
            assert!(!passes(&Seccomp { bpf: broken, flags: 0 }, &call(7, Some(9))));
        }
    }
}
