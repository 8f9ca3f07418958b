// SPDX-License-Identifier: Apache-2.0
//! Files in memory that nobody can change, and randomness.

use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

/// Puts `bytes` into a file in memory that is sealed against every change, to be executed by
/// descriptor: a container that gets hold of it through /proc cannot alter what the host runs.
///
/// `memfd_create(2)`, Linux 3.17; MFD_EXEC 6.3, left out where the kernel does not know it.
pub fn sealed_memfd(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let call = || format!("memfd_create({name})");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match memfd_create(name, flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        other => other,
    };
    let mut file = File::from(fd.map_err(Error::of(call))?);
    file.write_all(bytes)
        .map_err(Error::of_io(|| format!("write({name}, {} bytes)", bytes.len())))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals).map_err(Error::of(|| format!("fcntl({name}, F_ADD_SEALS)")))?;
    Ok(file.into())
}

/// Fills `bytes` from the kernel's generator. `getrandom(2)`.
///
/// # Panics
/// When the kernel has no generator, which no Linux since 3.17 lacks.
pub fn random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(got) => filled += got,
            Err(Errno::INTR) => {}
            Err(errno) => panic!("getrandom: {errno}"),
        }
    }
}
