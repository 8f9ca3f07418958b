// SPDX-License-Identifier: Apache-2.0
//! The answers of compiled profiles to calls that they name, leave out, and cannot know.
#![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]

use super::super::compile::compile_whole;
use super::super::tests::interpret;
use super::super::{compiled, runtime_default};
use super::*;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;

fn profile(of: Value) -> LinuxSeccomp {
    serde_json::from_value(of).unwrap()
}

/// The answer to a call of an architecture, the same by the library's program and by the optimized one.
fn answer(profile: &LinuxSeccomp, arch: u32, number: u32) -> u32 {
    let mut data = [0; 16];
    [data[0], data[1]] = [number, arch];
    let answers = [compile_whole(profile).unwrap(), compiled(profile).unwrap().bpf]
        .map(|program| interpret(&program, &data));
    assert_eq!(answers[0], answers[1], "call {number} of {arch:#x}");
    answers[0]
}

#[test]
fn calls_that_are_newer_than_the_profile_are_not_there_and_older_ones_are_denied() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        ],
    }));
    // mkdirat is 258 and 296.
    for (arch, number, want) in [
        (X86_64, 0, ALLOW),
        (X86_64, 83, ERRNO | 1),
        (X86_64, 258, ERRNO | 1),
        (X86_64, 259, ERRNO | 38),
        (X86_64, 1 << 20, ERRNO | 38),
        (X86_64, u32::MAX, ERRNO | 38),
        (X86_64, X32_BIT, ERRNO | 38),
        (I386, 3, ALLOW),
        (I386, 296, ERRNO | 1),
        (I386, 297, ERRNO | 38),
    ] {
        assert_eq!(answer(&profile, arch, number), want, "call {number} of {arch:#x}");
    }
}

#[test]
fn x32_has_numbers_of_its_own() {
    let profile = profile(json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read", "execve"], "action": "SCMP_ACT_ALLOW"}],
    }));
    // execve is 59, and 520 of x32.
    for (number, want) in [
        (59, ALLOW),
        (60, ERRNO | 38),
        (X32_BIT | 520, ALLOW),
        (X32_BIT | 60, 0x8000_0000),
        (X32_BIT | 521, ERRNO | 38),
    ] {
        assert_eq!(answer(&profile, X86_64, number), want, "call {number:#x}");
    }
}

#[test]
fn a_profile_that_decides_about_every_call_stays_as_it_is() {
    let rules = json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]);
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let of = profile(json!({"defaultAction": action, "syscalls": rules}));
        assert_eq!(prologue(&of), [0; 0], "{action}");
    }
    let of = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules});
    assert_eq!(prologue(&profile(of)), [0; 0]);
    assert_eq!(prologue(&profile(json!({"defaultAction": "SCMP_ACT_ERRNO"}))), [0; 0]);
}

#[test]
fn the_default_profile_denies_what_it_names_and_does_not_have_what_it_cannot_know() {
    let profile = runtime_default(None).unwrap();
    for (arch, x32) in [(X86_64, 0), (I386, 0), (X86_64, X32_BIT)] {
        for number in [600, 1000, 1_000_000] {
            assert_eq!(answer(&profile, arch, number | x32), ERRNO | 38, "{number} {arch:#x}");
        }
    }
    // pivot_root and kexec_load.
    for number in [155, 246] {
        assert_eq!(answer(&profile, X86_64, number), ERRNO | 1, "{number}");
    }
}
