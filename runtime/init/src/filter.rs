// SPDX-License-Identifier: Apache-2.0
//! Evaluates a compiled seccomp filter for a call, to know beforehand whether it allows the last steps of a start.

use crate::plan::Seccomp;
use hull_sys::arch::AUDIT_ARCH;

/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG` and `SECCOMP_RET_USER_NOTIF`, seccomp(2). The last lets another process
/// decide, which has the filter's listener before the call.
const PASSES: [u32; 3] = [0x7fff_0000, 0x7ffc_0000, 0x7fc0_0000];
/// More instructions than the kernel takes (`BPF_MAXINSNS`).
const STEPS_MAX: usize = 4096;

/// Whether every one of `calls`, each with its first argument, passes the filter. False if it cannot be evaluated.
pub(crate) fn passes(filter: &Seccomp, calls: &[(u32, u64)]) -> bool {
    calls.iter().all(|(number, argument)| {
        let low = u32::try_from(argument & 0xffff_ffff).unwrap_or(0);
        let high = u32::try_from(argument >> 32).unwrap_or(0);
        // `struct seccomp_data` in words: number, architecture, the place (two), arguments.
        let mut data = [0_u32; 16];
        [data[0], data[1], data[4], data[5]] = [*number, AUDIT_ARCH, low, high];
        run(&filter.bpf, &data).is_some_and(|answer| PASSES.contains(&(answer & 0xffff_0000)))
    })
}

/// The answer; `None` for a program that is not one. The instructions that seccomp allows and compilers of
/// filters make: loads, comparisons, masks, scratch memory.
fn run(program: &[u8], data: &[u32; 16]) -> Option<u32> {
    let (mut at, mut a, mut x, mut memory) = (0_usize, 0_u32, 0_u32, [0_u32; 16]);
    for _ in 0..STEPS_MAX {
        let item = program.get(at * 8..at * 8 + 8)?;
        let code = u16::from_ne_bytes([item[0], item[1]]);
        let (yes, no) = (usize::from(item[2]), usize::from(item[3]));
        let k = u32::from_ne_bytes(item[4..8].try_into().ok()?);
        let index = usize::try_from(k).ok()?;
        at += 1;
        match code {
            0x20 => a = *data.get(index / 4)?,
            0x00 => a = k,
            0x02 => *memory.get_mut(index)? = a,
            0x60 => a = *memory.get(index)?,
            0x54 => a &= k,
            0x07 => x = a,
            0x87 => a = x,
            0x05 => at = at.checked_add(index)?,
            0x15 => at += if a == k { yes } else { no },
            0x25 => at += if a > k { yes } else { no },
            0x35 => at += if a >= k { yes } else { no },
            0x45 => at += if a & k != 0 { yes } else { no },
            0x06 => return Some(k),
            _ => return None,
        }
    }
    None
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
        assert!(passes(&filter, &[(7, 9)]));
        assert!(!passes(&filter, &[(7, 8)]) && !passes(&filter, &[(6, 9)]));
        assert!(!passes(&filter, &[(7, 9), (1, 0)]));
        for broken in
            [Vec::new(), vec![1, 2, 3], item(0x20, 0, 0, 1000), item(0x05, 0, 0, u32::MAX)]
        {
            assert!(!passes(&Seccomp { bpf: broken, flags: 0 }, &[(7, 9)]));
        }
    }
}
