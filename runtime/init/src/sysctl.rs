// SPDX-License-Identifier: Apache-2.0
//! Kernel settings of the namespaces that we are in.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC_MAGIC: u64 = 0x9fa0;

/// Opens /proc, after making sure that it is procfs and nothing that was mounted over it.
pub(crate) fn verified_proc() -> Result<OwnedFd, Errno> {
    let proc =
        openat(CWD, "/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let magic = fstatfs(&proc)?.f_type;
    if u64::try_from(magic).unwrap_or(0) == PROC_MAGIC { Ok(proc) } else { Err(Errno::NODEV) }
}

/// Opens a file of /proc to write to it; nothing that is mounted inside of /proc is entered.
pub(crate) fn open_proc(path: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve =
        resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(verified_proc()?, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Reads a file of /proc; nothing that is mounted inside of /proc is entered.
pub(crate) fn read_proc(path: &str) -> std::io::Result<String> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat2(verified_proc()?, path, flags, Mode::empty(), resolve)?;
    std::io::read_to_string(std::fs::File::from(file))
}

/// Writes a kernel setting. Dots separate; a name with slashes may have dots in its parts (a link's
/// name).
pub(crate) fn write(name: &str, value: &str) -> Result<(), (Errno, String)> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let failed = |errno| (errno, format!("write(/proc/sys/{path})"));
    let file = open_proc(&format!("sys/{path}"), ResolveFlags::NO_SYMLINKS).map_err(failed)?;
    rustix::io::write(&file, value.as_bytes()).map(drop).map_err(failed)
}
