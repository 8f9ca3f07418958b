// SPDX-License-Identifier: Apache-2.0
//! Both programs, the library's and the optimized one, must answer alike to every call.

use super::super::compile::compile_whole;
use super::super::runtime_default;
use super::super::tests::interpret;
use super::*;
use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp};

const ARCHS: [u32; 4] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0];

fn numbers() -> impl Iterator<Item = u32> {
    let x32 = 0x4000_0000;
    (0..1024).chain(x32 - 8..x32 + 1024).chain([0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX])
}

/// Words that arguments are made of: everything that the program compares with, and its neighbours.
fn words(program: &[u8]) -> Vec<u32> {
    let program = Program::parse(program).unwrap();
    let about_arguments = program.0.iter().filter(|one| one.test(0).is_some() || one.code == AND);
    let near = |one: &Instruction| {
        [one.operand.wrapping_sub(1), one.operand, one.operand.wrapping_add(1), !one.operand]
    };
    about_arguments.flat_map(near).chain([0, 1, u32::MAX]).collect()
}

/// Compares both over all calls, each with arguments that are zero and with `rounds` of others.
fn answers_are_the_same(profile: &LinuxSeccomp, rounds: usize) -> (usize, usize) {
    let whole = compile_whole(profile).unwrap();
    let compacted = rewritten(&whole).expect("it is a program of known instructions");
    let words = words(&whole);
    let mut next = 0usize;
    for arch in ARCHS {
        for number in numbers() {
            for round in 0..=rounds {
                let mut data = [0; 16];
                (data[0], data[1]) = (number, arch);
                if round > 0 {
                    for word in &mut data[2..] {
                        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
                        // Half of all high words are zero, as they are of most arguments.
                        *word = words[(next >> 33) % words.len()];
                    }
                    for high in data[5..].iter_mut().step_by(2).skip(round % 2 * 8) {
                        *high = 0;
                    }
                }
                let (one, other) = (interpret(&whole, &data), interpret(&compacted, &data));
                assert_eq!(one, other, "call {number} of {arch:#x} with {data:x?}");
            }
        }
    }
    (whole.len() / INSTRUCTION_BYTES, compacted.len() / INSTRUCTION_BYTES)
}

#[test]
fn the_default_profile_decides_as_before_with_a_third_of_the_instructions() {
    for with in [None, Some(Capabilities::from([Capability::SysAdmin, Capability::SysPtrace]))] {
        let profile = runtime_default(with.as_ref()).unwrap();
        let (whole, compacted) = answers_are_the_same(&profile, 12);
        assert!(compacted * 3 < whole, "{compacted} instead of {whole}");
    }
}

#[test]
fn conditions_on_arguments_decide_as_before() {
    let condition = |index, value: u64, two: u64, op| serde_json::json!({"index": index, "value": value, "valueTwo": two, "op": op});
    let rule = |names: &[&str], action, args: &[serde_json::Value]| serde_json::json!({"names": names, "action": action, "args": args});
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            rule(&["read", "openat", "clone3"], "SCMP_ACT_ALLOW", &[]),
            rule(&["write"], "SCMP_ACT_ALLOW", &[condition(0, 1 << 40, 0, "SCMP_CMP_GE")]),
            rule(&["mmap"], "SCMP_ACT_LOG", &[condition(2, 4, 0, "SCMP_CMP_MASKED_EQ")]),
            rule(&["personality"], "SCMP_ACT_ALLOW", &[condition(0, 8, 0, "SCMP_CMP_EQ")]),
            rule(&["personality"], "SCMP_ACT_KILL", &[condition(0, 0xffff_ffff, 0, "SCMP_CMP_EQ")]),
            rule(&["ioctl"], "SCMP_ACT_TRACE", &[
                condition(0, 2, 0, "SCMP_CMP_LE"),
                condition(1, 0x5401, 0, "SCMP_CMP_NE"),
                condition(3, 7 << 33, 0, "SCMP_CMP_GT"),
            ]),
            rule(&["socket"], "SCMP_ACT_ALLOW", &[condition(0, 38, 0, "SCMP_CMP_LT")]),
        ],
    });
    answers_are_the_same(&serde_json::from_value(profile).unwrap(), 200);
}

#[test]
fn what_it_does_not_know_it_leaves_alone() {
    let store = Instruction { code: 0x02, yes: 0, no: 0, operand: 0 };
    let program = [instruction(LOAD, NUMBER), store, instruction(RETURN, 0)];
    let bytes: Vec<_> = program.iter().flat_map(Instruction::bytes).collect();
    assert_eq!(optimize(&bytes), None);
    // Out of its end.
    let bytes: Vec<_> = instruction(LOAD, NUMBER).bytes().into();
    assert_eq!(optimize(&bytes), None);
    assert_eq!(optimize(&[1, 2, 3]), None);
}
