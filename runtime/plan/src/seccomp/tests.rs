// SPDX-License-Identifier: Apache-2.0
//! Runs compiled programs in a small BPF interpreter, as the kernel would.

use super::{call_name, compiled, localhost, runtime_default};
use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp};

const X86_64: u32 = 0xc000_003e;
/// 32-bit programs on the same machine.
const I386: u32 = 0x4000_0003;
/// Bit of the numbers that x32 programs call by, `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// The kernel's answer to a call with this first argument.
fn run(program: &[u8], call: i64, argument: u64) -> u32 {
    run_as(X86_64, program, u32::try_from(call).unwrap(), argument)
}

/// The same for a program of another architecture.
fn run_as(arch: u32, program: &[u8], call: u32, argument: u64) -> u32 {
    let mut data = [0; 16];
    data[0] = call;
    data[1] = arch;
    data[4] = (argument & 0xffff_ffff) as u32;
    data[5] = (argument >> 32) as u32;
    interpret(program, &data)
}

/// The kernel's answer to a call with this `struct seccomp_data`, in words.
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
}

/// unix, inet, inet6, netlink, packet and the like, as containerd and moby have it; never the kernel's
/// cryptography, the hypervisor, or a family that nobody knows yet.
#[cfg(target_arch = "x86_64")]
#[test]
fn sockets_are_of_known_families_whatever_the_architecture_and_the_way() {
    let program = compiled(&runtime_default(None).unwrap()).unwrap().bpf;
    for (arch, call) in [(X86_64, 41), (X86_64, 53), (X86_64, X32 | 41), (I386, 359), (I386, 360)] {
        for family in (0..38).chain([39]).chain(41..46) {
            assert_eq!(run_as(arch, &program, call, family), ALLOW, "{arch:#x} {call} {family}");
        }
        for family in [38, 40, 46, 47, 255, 0xffff_ffff, 1 << 32, 38 | 1 << 32, u64::MAX] {
            // Programs of 32 bits, and x32's, have 32 bits of it: as the kernel has.
            if family < 1 << 32 || (arch, call & X32) == (X86_64, 0) {
                let answer = run_as(arch, &program, call, family);
                assert_eq!(answer, ERRNO | 1, "{arch:#x} {call} {family}");
            }
        }
        assert_eq!(run_as(arch, &program, call, 38 | 1 << 32), ERRNO | 1, "{arch:#x} {call}");
    }
    // socketcall(2): the family is out of sight, so it makes no socket of any.
    for call in 0..25 {
        assert_eq!(run_as(I386, &program, 102, call), ERRNO | 38, "socketcall {call}");
    }
    for call in ["bind 361", "connect 362", "listen 363", "accept4 364", "sendto 369"] {
        let (name, number) = call.split_once(' ').unwrap();
        assert_eq!(run_as(I386, &program, number.parse().unwrap(), 3), ALLOW, "{name}");
    }
}

#[test]
fn namespaces_and_personalities_are_looked_at_by_their_flags() {
    let program = compiled(&runtime_default(None).unwrap()).unwrap().bpf;
    // Of personality(2), what makes addresses easy to guess or pages readable as code is not there.
    for (domain, answer) in [(0, ALLOW), (8, ALLOW), (0x2_0000, ALLOW), (0xffff_ffff, ALLOW)] {
        assert_eq!(run(&program, number("personality"), domain), answer, "{domain:#x}");
    }
    for domain in [0x4_0000, 0x40_0000, 0x10_0000, 1 << 32] {
        assert_eq!(run(&program, number("personality"), domain), ERRNO | 1, "{domain:#x}");
    }
    for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(run(&program, number("clone"), flag | 0x11), ERRNO | 1, "clone {flag:#x}");
    }
}

/// Of what the default profiles of containerd and moby deny.
#[test]
fn the_default_denies_what_reaches_into_the_kernel() {
    let program = compiled(&runtime_default(None).unwrap()).unwrap().bpf;
    for name in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "kexec_load",
        "kexec_file_load",
        "open_by_handle_at",
        "open_tree",
        "open_tree_attr",
        "fsopen",
        "move_mount",
        "mount_setattr",
        "pivot_root",
        "umount2",
        "swapon",
        "quotactl",
        "nfsservctl",
        "kcmp",
        "pidfd_getfd",
        "process_madvise",
        "lookup_dcookie",
        "fanotify_init",
        "init_module",
        "finit_module",
        "iopl",
        "ioperm",
        "acct",
        "settimeofday",
        "syslog",
        "vhangup",
        "chroot",
        "sethostname",
        "get_mempolicy",
        "mbind",
        "set_mempolicy",
        "move_pages",
        "migrate_pages",
        "uselib",
        "ustat",
        "sysfs",
        "_sysctl",
        "vserver",
        "lsm_set_self_attr",
        "lsm_get_self_attr",
    ] {
        if let Ok(call) = name.parse::<syscalls::Sysno>() {
            assert_eq!(run(&program, call.id().into(), 0), ERRNO | 1, "{name}");
        }
    }
    // The new calls for mounts come with the capability, but for one that no other default profile has.
    let with = Capabilities::from_iter([Capability::SysAdmin]);
    let program = compiled(&runtime_default(Some(&with)).unwrap()).unwrap().bpf;
    assert_eq!(run(&program, number("open_tree"), 0), ALLOW);
    assert_eq!(run(&program, 467, 0), ERRNO | 1, "open_tree_attr");
    for name in ["io_uring_setup", "kexec_load", "userfaultfd", "keyctl", "init_module"] {
        assert_eq!(run(&program, number(name), 0), ERRNO | 1, "{name}");
    }
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
fn an_errno_that_no_program_can_get_is_refused_by_name() {
    let compiled_with = |action: &str, errno: u32| {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["mkdir"],"action":"{action}","errnoRet":{errno}}}]}}"#
        );
        compiled(&localhost(text.as_bytes()).unwrap())
    };
    for (action, errno) in
        [("SCMP_ACT_ERRNO", 4095), ("SCMP_ACT_ERRNO", 4_294_967_295), ("SCMP_ACT_TRACE", 65536)]
    {
        let refused = compiled_with(action, errno).unwrap_err();
        let text = refused.to_string();
        for part in ["errnoRet", &errno.to_string(), "0 to 4094"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    for errno in [0, 1, 4094] {
        let program = compiled_with("SCMP_ACT_ERRNO", errno).unwrap().bpf;
        assert_eq!(run(&program, number("mkdir"), 0), ERRNO | errno);
    }
    compiled_with("SCMP_ACT_TRACE", 65535).unwrap();
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
