// SPDX-License-Identifier: Apache-2.0
//! Settings of the network namespace of the calling thread, below /proc/sys/net.

use crate::error::Error;
use crate::sync::alone;
use rustix::fs::{CWD, Mode, OFlags, open, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How often a procfs of our own is used.
const USES_MAX: u32 = 32;

/// The way to settings of pods' network namespaces: a procfs of our own, which is mounted nowhere.
///
/// The kernel keeps what was looked up, and what is `ipv6` in the `net` of one network namespace is another
/// thing in the next, but has the same name in the same directory: a list that is gone through at every
/// look-up, the longer the more pods there are. (Of 1,000 pods the last paid half of its attach for that.)
/// A procfs of our own has a list of its own, and goes after some uses.
#[derive(Debug, Default)]
pub(crate) struct OfPods(Mutex<Option<(Arc<OwnedFd>, u32)>>);

impl OfPods {
    /// Sets it in the network namespace of the calling thread, if the kernel has such a setting.
    pub(crate) fn set_if_known(&self, name: &[&str], value: &str) -> Result<bool, Error> {
        let path = path(name);
        let below = path.strip_prefix("/proc").unwrap_or(&path);
        let changed = self.proc().and_then(|proc| change(proc.as_ref(), below, value));
        known(changed.map_err(|source| Error::Sysctl { path, value: value.to_owned(), source }))
    }

    fn proc(&self) -> io::Result<Arc<OwnedFd>> {
        let mut held = alone(&self.0);
        if let Some((proc, uses)) = held.as_mut()
            && *uses < USES_MAX
        {
            *uses += 1;
            return Ok(Arc::clone(proc));
        }
        // Where none may be mounted, the one that is there does.
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

/// A setting's file. `name` may hold a link's name, which may hold dots.
pub(crate) fn path(name: &[&str]) -> PathBuf {
    Path::new("/proc/sys/net").join(name.iter().collect::<PathBuf>())
}

/// Sets it if it is not so already; tells whether it had to.
pub(crate) fn set(name: &[&str], value: &str) -> Result<bool, Error> {
    let path = path(name);
    let changed = change(CWD, &path, value);
    changed.map_err(|source| Error::Sysctl { path, value: value.to_owned(), source })
}

/// Likewise, if the kernel has such a setting.
pub(crate) fn set_if_known(name: &[&str], value: &str) -> Result<bool, Error> {
    known(set(name, value))
}

fn known(set: Result<bool, Error>) -> Result<bool, Error> {
    match set {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn change(dir: impl AsFd, path: &Path, value: &str) -> io::Result<bool> {
    let open = |how| openat(&dir, path, how | OFlags::CLOEXEC, Mode::empty()).map(File::from);
    // Read first: on a read-only /proc/sys it is enough that somebody else has set it.
    let mut is = String::new();
    open(OFlags::RDONLY)?.read_to_string(&mut is)?;
    if is.trim() == value {
        return Ok(false);
    }
    open(OFlags::WRONLY)?.write_all(value.as_bytes()).map(|()| true)
}
