// SPDX-License-Identifier: Apache-2.0
//! System calls of programs, for seccomp profiles.

/// The calls of a statically linked program that does nothing, but for those of Hull's own.
pub const OF_PROGRAM: [&str; 16] = [
    "arch_prctl",
    "brk",
    "fstat",
    "getrandom",
    "getuid",
    "mmap",
    "mprotect",
    "munmap",
    "prctl",
    "prlimit64",
    "readlink",
    "readlinkat",
    "rseq",
    "set_robust_list",
    "set_tid_address",
    "uname",
];
