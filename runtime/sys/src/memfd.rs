// SPDX-License-Identifier: Apache-2.0
//! Files in memory that nobody can change, and randomness.

use crate::{Error, Result};
use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

/// Puts `bytes` into a file in memory that is sealed against every change, to be executed by
/// descriptor: a container that gets hold of it through /proc cannot alter what the host runs. Its mode is 0555;
/// F_SEAL_EXEC, Linux 6.3, keeps it executable. Owner and attributes can be changed all the same, so what more
/// than one process runs is better a [`crate::read_only_program`].
///
/// `memfd_create(2)`, Linux 3.17; MFD_EXEC 6.3, left out where the kernel does not know it. F_SEAL_FUTURE_WRITE 5.1:
/// it refuses what F_SEAL_WRITE refuses but a writable mapping that is there already, and here is none. F_SEAL_EXEC
/// brings F_SEAL_WRITE along, which needs the kernel itself to hold none of the pages: a call waits for that for
/// some 150 ms, then fails with EBUSY, and is made again.
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
    fchmod(&file, Mode::from_raw_mode(0o555))
        .map_err(Error::of(|| format!("fchmod({name}, 0555)")))?;
    seal(&file).map_err(Error::of(|| format!("fcntl({name}, F_ADD_SEALS)")))?;
    Ok(file.into())
}

/// How often the kernel is asked for F_SEAL_EXEC while it holds pages of the file itself: to move them between
/// lists, or to see which are in use.
const BUSY_MAX: u32 = 40;

fn seal(file: &File) -> rustix::io::Result<()> {
    let content = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    fcntl_add_seals(file, content)?;
    let mut busy = 0;
    loop {
        match fcntl_add_seals(file, SealFlags::SEAL | SealFlags::EXEC) {
            Err(Errno::INVAL) => return fcntl_add_seals(file, SealFlags::SEAL),
            Err(Errno::BUSY) if busy < BUSY_MAX => busy += 1,
            other => return other,
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use super::*;
    use rustix::fs::{FallocateFlags, fallocate, fcntl_add_seals};
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    use std::os::fd::AsRawFd as _;

    #[test]
    fn nobody_can_change_what_is_sealed_by_any_way_in() {
        if !crate::root_is_here("nobody_can_change_what_is_sealed_by_any_way_in") {
            return;
        }
        let sealed = sealed_memfd("test", b"program").unwrap();
        let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
        let again = File::options().read(true).write(true).open(&path).unwrap();
        let errno = |err: std::io::Error| Errno::from_io_error(&err).unwrap();
        assert_eq!(errno((&again).write_all(b"x").unwrap_err()), Errno::PERM);
        assert_eq!(errno(again.set_len(0).unwrap_err()), Errno::PERM);
        assert_eq!(errno(again.set_len(100).unwrap_err()), Errno::PERM);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(&again, hole, 0, 1).unwrap_err(), Errno::PERM);
        assert_eq!(fcntl_add_seals(&again, SealFlags::WRITE).unwrap_err(), Errno::PERM);
        assert_eq!(fchmod(&again, Mode::empty()).unwrap_err(), Errno::PERM);
        // SAFETY: a new mapping, of an address that the kernel chooses; refused, so nothing uses it.
        let mapped = unsafe {
            let both = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), 7, both, MapFlags::SHARED, &again, 0)
        };
        assert_eq!(mapped.unwrap_err(), Errno::PERM);
        assert_eq!(std::fs::read(path).unwrap(), b"program");
    }
}
