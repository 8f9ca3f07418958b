// SPDX-License-Identifier: Apache-2.0
//! The facts of this machine's architecture that are not system calls. Each architecture has one file; no other
//! code of Hull names registers, numbers or paths of one.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
mod this;

pub use this::{AUDIT_ARCH, ELF_MACHINE, ELF_MACHINE_32, KEXEC_FILE_LOAD, SECCOMP_ARCHITECTURES};
