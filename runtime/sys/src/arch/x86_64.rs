// SPDX-License-Identifier: Apache-2.0
//! Facts of x86-64 processors and the kernel that runs on them.

/// `AUDIT_ARCH_X86_64`: how a seccomp filter sees programs of this architecture.
pub const AUDIT_ARCH: u32 = 0xc000_003e;
/// `kexec_file_load(2)`, which libc does not name for every C library.
pub const KEXEC_FILE_LOAD: i64 = 320;
/// `EM_X86_64`: the machine in the head of an ELF file.
pub const ELF_MACHINE: u16 = 62;
/// `EM_386`: the 32-bit programs that the same kernel runs.
pub const ELF_MACHINE_32: u16 = 3;
/// Names of the architectures in OCI seccomp profiles whose programs the kernel runs; this one is the first.
pub const SECCOMP_ARCHITECTURES: &[&str] = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
