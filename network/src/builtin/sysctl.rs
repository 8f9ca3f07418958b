// SPDX-License-Identifier: Apache-2.0
//! Sysctls below /proc/sys/net, in the network namespace of the calling thread.

use crate::error::Error;
use crate::sync::lock_unpoisoned;
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How many times one procfs instance is used.
const USES_MAX: u32 = 32;

/// Sets sysctls in pods' network namespaces through a private procfs instance that is not mounted anywhere.
///
/// The kernel caches directory entries per procfs instance. `net/ipv6` differs between network namespaces
/// but has the same name in the same directory, so each lookup walks a list with one entry per pod. (With
/// 1,000 pods that was half of the last pod's attach time.) A private instance has its own cache and is
/// replaced after some uses.
#[derive(Debug, Default)]
pub(crate) struct PodSysctls(Mutex<Option<(Arc<OwnedFd>, u32)>>);

impl PodSysctls {
    /// Sets a sysctl in the calling thread's network namespace, if the kernel has it.
    pub(crate) fn set_if_present(&self, name: &[&str], value: &str) -> Result<bool, Error> {
        let path = path(name);
        let below = path.strip_prefix("/proc").unwrap_or(&path);
        let changed = self.proc().and_then(|proc| change(proc.as_ref(), below, value));
        ignore_missing(changed.map_err(|source| Error::Sysctl {
            path,
            value: value.to_owned(),
            source,
        }))
    }

    fn proc(&self) -> io::Result<Arc<OwnedFd>> {
        let mut held = lock_unpoisoned(&self.0);
        if let Some((proc, uses)) = held.as_mut()
            && *uses < USES_MAX
        {
            *uses += 1;
            return Ok(Arc::clone(proc));
        }
        // Fall back to the mounted procfs where a new instance is not permitted.
        let made =
            procfs().or_else(|_| open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()));
        let proc = Arc::new(made?);
        *held = Some((Arc::clone(&proc), 1));
        Ok(proc)
    }
}

fn procfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, quiet)
}

/// The file of a sysctl. A component of `name` can be a link's name, which may contain dots.
pub(crate) fn path(name: &[&str]) -> PathBuf {
    Path::new("/proc/sys/net").join(name.iter().collect::<PathBuf>())
}

/// Sets a sysctl, and returns whether its value changed.
pub(crate) fn set(name: &[&str], value: &str) -> Result<bool, Error> {
    let path = path(name);
    let changed = change(CWD, &path, value);
    changed.map_err(|source| Error::Sysctl { path, value: value.to_owned(), source })
}

/// Sets a sysctl if the kernel has it, and returns whether its value changed.
pub(crate) fn set_if_present(name: &[&str], value: &str) -> Result<bool, Error> {
    ignore_missing(set(name, value))
}

fn ignore_missing(set: Result<bool, Error>) -> Result<bool, Error> {
    match set {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn change(dir: impl AsFd, path: &Path, value: &str) -> io::Result<bool> {
    let open = |how| openat(&dir, path, how | OFlags::CLOEXEC, Mode::empty()).map(File::from);
    // Read first: on a read-only /proc/sys the right value is enough.
    let mut is = String::new();
    open(OFlags::RDONLY)?.read_to_string(&mut is)?;
    if is.trim() == value {
        return Ok(false);
    }
    open(OFlags::WRONLY)?.write_all(value.as_bytes()).map(|()| true)
}
