// SPDX-License-Identifier: Apache-2.0
//! Device rules as a BPF program, for cgroup v2.
//!
//! The kernel asks the program with type, access, major and minor; the answer is 1 (let) or 0
//! (deny). The last rule that matches wins, so they are tried from the last to the first; when none
//! matches, access is denied. Instruction set: `Documentation/bpf/standardization/instruction-set.rst`.

use crate::limits::{DeviceKind, DeviceRule};

/// Kernel's bits of access, `BPF_DEVCG_ACC_*`.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
/// Kernel's types, `BPF_DEVCG_DEV_*`.
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// Registers: where the question arrives, and where its parts are kept.
const R0: u64 = 0;
const R1: u64 = 1;
const TYPE: u64 = 2;
const ACCESS: u64 = 3;
const MAJOR: u64 = 4;
const MINOR: u64 = 5;
const SCRATCH: u64 = 6;

fn op(code: u64, to: u64, from: u64, offset: u16, value: u32) -> u64 {
    code | to << 8 | from << 12 | u64::from(offset) << 16 | u64::from(value) << 32
}

fn load(to: u64, offset: u16) -> u64 {
    op(0x61, to, R1, offset, 0)
}

fn and(to: u64, value: u32) -> u64 {
    op(0x54, to, 0, 0, value)
}

fn shift_right(to: u64, by: u32) -> u64 {
    op(0x74, to, 0, 0, by)
}

fn copy(to: u64, from: u64) -> u64 {
    op(0xbc, to, from, 0, 0)
}

fn skip_unless_equal(of: u64, value: u32, skip: u16) -> u64 {
    op(0x56, of, 0, skip, value)
}

fn skip_if_equal(of: u64, value: u32, skip: u16) -> u64 {
    op(0x16, of, 0, skip, value)
}

fn answer(let_it: bool) -> [u64; 2] {
    [op(0xb4, R0, 0, 0, u32::from(let_it)), op(0x95, 0, 0, 0, 0)]
}

/// The program for `rules`.
pub(crate) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        load(TYPE, 0),
        copy(ACCESS, TYPE),
        and(TYPE, 0xffff),
        shift_right(ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let block = block(rule);
        let always = block == answer(rule.allow);
        program.extend(block);
        if always {
            // The kernel takes no program with instructions that nothing leads to.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

/// One rule: conditions that skip to the next rule, then the answer.
fn block(rule: &DeviceRule) -> Vec<u64> {
    let mask = [(rule.read, READ), (rule.write, WRITE), (rule.mknod, MKNOD)]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(0, |mask, (_, bit)| mask | bit);
    // Each as a function of how many instructions of the block follow it.
    let mut conditions: Vec<Box<dyn Fn(u16) -> u64>> = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => conditions.push(Box::new(|skip| skip_unless_equal(TYPE, BLOCK, skip))),
        DeviceKind::Char => conditions.push(Box::new(|skip| skip_unless_equal(TYPE, CHAR, skip))),
    }
    if mask != READ | WRITE | MKNOD {
        conditions.push(Box::new(|_| copy(SCRATCH, ACCESS)));
        if rule.allow {
            // All that is asked for must be in the rule.
            conditions.push(Box::new(move |_| and(SCRATCH, !mask & 7)));
            conditions.push(Box::new(|skip| skip_unless_equal(SCRATCH, 0, skip)));
        } else {
            // Any of what is asked for is enough to deny it.
            conditions.push(Box::new(move |_| and(SCRATCH, mask)));
            conditions.push(Box::new(|skip| skip_if_equal(SCRATCH, 0, skip)));
        }
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            conditions.push(Box::new(move |skip| skip_unless_equal(register, number, skip)));
        }
    }
    let end = answer(rule.allow);
    let total = conditions.len() + end.len();
    let mut block: Vec<u64> = conditions
        .iter()
        .enumerate()
        .map(|(at, condition)| condition(u16::try_from(total - at - 1).unwrap_or(u16::MAX)))
        .collect();
    block.extend(end);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The decision of the kernel: runs the program for one access.
    fn run(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let mut registers = [0u32; 11];
        let context = [access << 16 | kind, major, minor];
        let mut at = 0;
        for _ in 0..10_000 {
            let item = program[at];
            let (to, from) = ((item >> 8 & 15) as usize, (item >> 12 & 15) as usize);
            let (offset, value) = ((item >> 16 & 0xffff) as usize, (item >> 32) as u32);
            at += 1;
            match item & 0xff {
                0x61 => registers[to] = context[offset / 4],
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = value,
                0x56 if registers[to] != value => at += offset,
                0x16 if registers[to] == value => at += offset,
                0x56 | 0x16 => {}
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
        panic!("it does not end");
    }

    /// The decision by the rules themselves.
    fn wanted(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        for rule in rules.iter().rev() {
            let of_kind = match rule.kind {
                DeviceKind::All => true,
                DeviceKind::Block => kind == BLOCK,
                DeviceKind::Char => kind == CHAR,
            };
            let mask = u32::from(rule.read) * READ
                + u32::from(rule.write) * WRITE
                + u32::from(rule.mknod) * MKNOD;
            let of_access = if rule.allow { access & !mask == 0 } else { access & mask != 0 };
            let numbers =
                rule.major.is_none_or(|of| of == major) && rule.minor.is_none_or(|of| of == minor);
            if of_kind && of_access && numbers {
                return rule.allow;
            }
        }
        false
    }

    fn rules() -> impl Strategy<Value = DeviceRule> {
        let number = || proptest::option::of(0..4u32);
        (any::<[bool; 4]>(), 0..3usize, number(), number()).prop_map(
            |(bits, kind, major, minor)| DeviceRule {
                allow: bits[0],
                kind: [DeviceKind::All, DeviceKind::Block, DeviceKind::Char][kind],
                major,
                minor,
                read: bits[1],
                write: bits[2],
                mknod: bits[3],
            },
        )
    }

    /// Instructions that nothing leads to; the kernel's verifier refuses a program that has any.
    fn unreachable(program: &[u64]) -> Vec<usize> {
        let mut reached = vec![false; program.len()];
        let mut todo = vec![0];
        while let Some(at) = todo.pop() {
            if std::mem::replace(&mut reached[at], true) {
                continue;
            }
            let (code, offset) = (program[at] & 0xff, (program[at] >> 16 & 0xffff) as usize);
            if code != 0x95 {
                todo.push(at + 1);
            }
            if matches!(code, 0x56 | 0x16) {
                todo.push(at + 1 + offset);
            }
        }
        (0..program.len()).filter(|at| !reached[*at]).collect()
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            rules in proptest::collection::vec(rules(), 0..8),
            kind in 1..3u32, access in 1..8u32, major in 0..4u32, minor in 0..4u32,
        ) {
            let unreachable = unreachable(&program(&rules));
            prop_assert!(unreachable.is_empty(), "nothing leads to {:?}", unreachable);
            let have = run(&program(&rules), kind, access, major, minor);
            prop_assert_eq!(have, wanted(&rules, kind, access, major, minor));
        }
    }
}
