// SPDX-License-Identifier: Apache-2.0
//! Keeps this program out of a container's reach.
//!
//! What we clone runs this program until its exec, and a container's program may be a script whose
//! interpreter is `/proc/self/exe`: then this program runs inside, and whoever holds it open there could
//! write to it, on the host, once it has ended. So what enters a container is started from a copy that
//! nobody can write to: its own file on a detached read-only mount (two calls and an exec), else a
//! sealed file in memory, which is also what `hull oci` starts.

use crate::error::{Error, Result};
use hull_sys::{Attr, Strings};
use rustix::fs::{CWD, SealFlags, StatVfsMountFlags, fcntl_get_seals, statvfs};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};

const SELF: &str = "/proc/self/exe";
/// Our name after that: whoever has it and can be written to does not try again.
const NAME: &[u8] = b"hull-oci:guarded";

/// Returns when this program is such a copy, else starts it from one.
pub(crate) fn from_what_cannot_be_written_to() -> Result<()> {
    if is_guarded() {
        return Ok(());
    }
    let mut args: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    match args.first_mut() {
        Some(name) if name == NAME => return Err(Error::Guard("its own file can be written to")),
        Some(name) => *name = NAME.to_vec(),
        None => return Err(Error::Guard("it has no name")),
    }
    let env: Vec<Vec<u8>> = std::env::vars_os()
        .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let args = Strings::new(&args).map_err(Error::of(|| "execveat(arguments)"))?;
    let env = Strings::new(&env).map_err(Error::of(|| "execveat(environment)"))?;
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

/// `None` where that cannot be had, as for a file in memory.
fn on_read_only_mount() -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, SELF, flags).ok()?;
    let attr = Attr { set: Attr::RDONLY, ..Attr::default() };
    hull_sys::mount_setattr(tree.as_fd(), false, &attr).ok()?;
    Some(tree)
}
