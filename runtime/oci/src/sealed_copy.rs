// SPDX-License-Identifier: Apache-2.0
//! Protects this program's file from containers (CVE-2019-5736).
//!
//! A cloned process runs this program until its exec, and a container's program can be a script with the
//! interpreter `/proc/self/exe`. Then this program runs inside the container, and a process that holds it
//! open there could overwrite the file on the host after it has exited. So this program enters a container
//! only from a copy that cannot be written: its own file on a detached read-only mount (two calls and an
//! exec), or else a sealed memfd, from which `hull oci` also starts it.

use crate::error::{Error, Result};
use hull_sys::{Attr, CStringArray};
use rustix::fs::{CWD, SealFlags, StatVfsMountFlags, fcntl_get_seals, statvfs};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};

const SELF: &str = "/proc/self/exe";
/// `argv[0]` of the copy. A program with this name that is still writable does not try again.
const NAME: &[u8] = b"hull-oci:guarded";

/// Returns if this program runs from such a copy; otherwise executes it from one.
pub(crate) fn reexec() -> Result<()> {
    if is_guarded() {
        return Ok(());
    }
    let mut args: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    match args.first_mut() {
        Some(name) if name == NAME => return Err(Error::SealedCopy("the copy is writable")),
        Some(name) => *name = NAME.to_vec(),
        None => return Err(Error::SealedCopy("argv is empty")),
    }
    let env: Vec<Vec<u8>> = std::env::vars_os()
        .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let args = CStringArray::new(&args).map_err(Error::of(|| "execveat(arguments)"))?;
    let env = CStringArray::new(&env).map_err(Error::of(|| "execveat(environment)"))?;
    if let Some(copy) = on_read_only_mount() {
        let _not_executed = hull_sys::execveat(copy.as_fd(), &args, &env);
    }
    let bytes = std::fs::read(SELF).map_err(hull_sys::Error::of_io(|| format!("read({SELF})")));
    let copy = bytes.and_then(|bytes| hull_sys::sealed_memfd("hull-oci", &bytes));
    let copy = copy.map_err(Error::call)?;
    Err(Error::call(hull_sys::execveat(copy.as_fd(), &args, &env)))
}

fn is_guarded() -> bool {
    if statvfs(SELF).is_ok_and(|of| of.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return true;
    }
    let seals = File::open(SELF).map(|file| fcntl_get_seals(&file));
    seals.is_ok_and(|seals| seals.is_ok_and(|seals| seals.contains(SealFlags::FUTURE_WRITE)))
}

/// `None` where that is not possible, as for a memfd.
fn on_read_only_mount() -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, SELF, flags).ok()?;
    let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
    hull_sys::mount_setattr(tree.as_fd(), false, &attr).ok()?;
    Some(tree)
}
