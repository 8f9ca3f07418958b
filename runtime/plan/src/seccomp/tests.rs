// SPDX-License-Identifier: Apache-2.0
//! Runs compiled programs in a small BPF interpreter, as the kernel would.

use super::*;
use oci_spec::runtime::{Capabilities, Capability};

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// What the kernel would answer to a call with this first argument.
fn run(program: &[u8], call: i64, argument: u64) -> u32 {
    let mut data = [0; 16];
    data[0] = u32::try_from(call).unwrap();
    data[1] = X86_64;
    data[4] = (argument & 0xffff_ffff) as u32;
    data[5] = (argument >> 32) as u32;
    interpret(program, &data)
}

/// What the kernel would answer to a call with this `struct seccomp_data`, in words.
pub(super) fn interpret(program: &[u8], data: &[u32; 16]) -> u32 {
    let items: Vec<_> = program.chunks_exact(8).collect();
    let (mut at, mut a, mut x, mut memory) = (0, 0u32, 0u32, [0u32; 16]);
    loop {
        let item = items[at];
        let code = u16::from_le_bytes([item[0], item[1]]);
        let (yes, no) = (usize::from(item[2]), usize::from(item[3]));
        let k = u32::from_le_bytes(item[4..8].try_into().unwrap());
        let word = |at: u32| data[at as usize / 4];
        at += 1;
        match code {
            0x20 => a = word(k),
            0x02 => memory[k as usize] = a,
            0x60 => a = memory[k as usize],
            0x54 => a &= k,
            0x07 => x = a,
            0x87 => a = x,
            0x05 => at += k as usize,
            0x15 => at += if a == k { yes } else { no },
            0x25 => at += if a > k { yes } else { no },
            0x35 => at += if a >= k { yes } else { no },
            0x45 => at += if a & k != 0 { yes } else { no },
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn number(name: &str) -> i64 {
    name.parse::<syscalls::Sysno>().unwrap().id().into()
}

#[test]
fn the_default_lets_ordinary_calls_pass_and_denies_what_changes_the_host() {
    let profile = runtime_default(None).unwrap();
    let program = compiled(&profile).unwrap().bpf;
    for name in ["read", "write", "execve", "openat", "futex", "statx", "mseal", "cachestat"] {
        assert_eq!(run(&program, number(name), 0), ALLOW, "{name}");
    }
    for name in
        ["unshare", "mount", "kexec_load", "bpf", "init_module", "setns", "reboot", "ptrace_not"]
    {
        if let Ok(call) = name.parse::<syscalls::Sysno>() {
            assert_eq!(run(&program, call.id().into(), 0), ERRNO | 1, "{name}");
        }
    }
    assert_eq!(run(&program, number("clone3"), 0), ERRNO | 38);
    assert_eq!(run(&program, number("clone"), 0x11), ALLOW);
    assert_eq!(run(&program, number("clone"), 0x1000_0000), ERRNO | 1, "no user namespace");
    assert_eq!(run(&program, number("socket"), 40), ERRNO | 1, "no vsock");
    assert_eq!(run(&program, number("socket"), 2), ALLOW);
}

#[test]
fn a_capability_brings_its_calls() {
    let with = Capabilities::from_iter([Capability::SysAdmin]);
    let program = compiled(&runtime_default(Some(&with)).unwrap()).unwrap().bpf;
    for name in ["unshare", "mount", "clone3"] {
        assert_eq!(run(&program, number(name), 0), ALLOW, "{name}");
    }
}

#[test]
fn a_localhost_profile_in_dockers_form_is_read() {
    let json = br#"{"defaultAction":"SCMP_ACT_ALLOW",
        "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
        "syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO","args":null}]}"#;
    let profile = localhost(json).unwrap();
    let program = compiled(&profile).unwrap().bpf;
    assert_eq!(run(&program, number("chmod"), 0), ERRNO | 1);
    assert_eq!(run(&program, number("chown"), 0), ALLOW);
}

#[test]
fn a_broken_profile_is_an_error() {
    localhost(b"{\"defaultAction\": \"SCMP_ACT_NONSENSE\"}").unwrap_err();
    localhost(b"not json").unwrap_err();
}

#[test]
fn several_conditions_on_one_argument_are_alternatives() {
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["personality"],
        "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":0,"op":"SCMP_CMP_EQ"},
        {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
    let profile: LinuxSeccomp = serde_json::from_str(text).unwrap();
    let program = compiled(&profile).unwrap().bpf;
    let answers = [0, 8, 5].map(|argument| run(&program, 135, argument));
    assert_eq!(answers, [ALLOW, ALLOW, ERRNO | 1]);
}

#[test]
fn a_call_has_the_name_of_its_architecture() {
    assert_eq!(call_name(0xc000_003e, 83).as_deref(), Some("mkdir"));
    assert_eq!(call_name(0x4000_0003, 39).as_deref(), Some("mkdir"));
    assert_eq!(call_name(0xc000_00b7, 34).as_deref(), Some("mkdirat"));
    assert_eq!(call_name(0xc000_003e, 100_000), None);
    assert_eq!(call_name(7, 83), None);
}
