// SPDX-License-Identifier: Apache-2.0
//! Facts of arm64 processors and the kernel that runs on them.

/// `AUDIT_ARCH_AARCH64`: how a seccomp filter sees programs of this architecture.
pub const AUDIT_ARCH: u32 = 0xc000_00b7;
/// `kexec_file_load(2)`, which libc does not name for every C library.
pub const KEXEC_FILE_LOAD: i64 = 294;
/// `EM_AARCH64`: the machine in the head of an ELF file.
pub const ELF_MACHINE: u16 = 183;
/// `EM_ARM`: the 32-bit programs that the same kernel runs.
pub const ELF_MACHINE_32: u16 = 40;
/// Names of the architectures in OCI seccomp profiles whose programs the kernel runs; this one is the first.
pub const SECCOMP_ARCHITECTURES: &[&str] = &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
