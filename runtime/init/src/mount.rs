// SPDX-License-Identifier: Apache-2.0
//! The new mount calls, with errors that name their operands: clones, new instances, overlays.
//!
//! Everything here gives a detached mount, or attaches one by descriptor. What is mounted where is
//! decided by [`apply`](crate::apply).

use crate::plan::{Attrs, Propagation, Step, StepError};
use hull_sys::Attr;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) const MS_PRIVATE: u64 = 1 << 18;
pub(crate) const MS_UNBINDABLE: u64 = 1 << 17;
pub(crate) const MS_SLAVE: u64 = 1 << 19;
pub(crate) const MS_SHARED: u64 = 1 << 20;

/// A failed system call, before it is known to which step it belongs.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) errno: Errno,
    pub(crate) call: String,
}

impl From<hull_sys::Error> for CallError {
    fn from(err: hull_sys::Error) -> Self {
        Self { errno: err.errno(), call: err.to_string() }
    }
}

impl CallError {
    pub(crate) fn at(self, step: Step) -> StepError {
        StepError::new(step, self.errno, self.call)
    }
}

pub(crate) fn errno_context(call: impl Into<String>) -> impl FnOnce(Errno) -> CallError {
    move |errno| CallError { errno, call: call.into() }
}

pub(crate) type Result<T = (), E = CallError> = std::result::Result<T, E>;

/// The bits of `mount_setattr(2)`.
pub(crate) fn bits(attrs: &Attrs) -> u64 {
    [
        (attrs.rdonly, Attr::RDONLY),
        (attrs.nosuid, Attr::NOSUID),
        (attrs.nodev, Attr::NODEV),
        (attrs.noexec, Attr::NOEXEC),
        (attrs.noatime, Attr::NOATIME),
        (attrs.strictatime, Attr::STRICTATIME),
        (attrs.nodiratime, Attr::NODIRATIME),
        (attrs.nosymfollow, Attr::NOSYMFOLLOW),
    ]
    .into_iter()
    .filter(|(on, _)| *on)
    .fold(0, |all, (_, bit)| all | bit)
}

pub(crate) fn propagation_bits(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => MS_PRIVATE,
        Propagation::Slave => MS_SLAVE,
        Propagation::Shared => MS_SHARED,
        Propagation::Unbindable => MS_UNBINDABLE,
    }
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// A detached copy of what is at a path of the host; links in it are followed.
pub(crate) fn clone_tree(path: &str, recursive: bool) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(recursive))
        .map_err(errno_context(format!("open_tree({path}, CLONE)")))
}

/// A detached copy of what is directly in a directory. One in a detached mount: Linux 6.15.
pub(crate) fn clone_at(directory: &OwnedFd, name: &str) -> Result<OwnedFd> {
    open_tree(directory, name, clone_flags(false))
        .map_err(errno_context(format!("open_tree({name}, CLONE)")))
}

/// A detached copy of what a descriptor names.
pub(crate) fn clone_fd_errno(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(fd, c"", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

pub(crate) fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    clone_fd_errno(fd, recursive).map_err(errno_context("open_tree(descriptor, CLONE)"))
}

/// A second descriptor of the same mount.
pub(crate) fn duplicate(mount: &OwnedFd) -> Result<OwnedFd> {
    let failed = |err| errno_context("dup(mount)")(Errno::from_io_error(&err).unwrap_or(Errno::IO));
    mount.try_clone().map_err(failed)
}

pub(crate) fn attach(mount: &OwnedFd, at: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", at, c"", flags)
}

/// Attaches onto what is directly in a directory; a link there is not followed.
pub(crate) fn attach_in(mount: &OwnedFd, dir: &OwnedFd, name: &str) -> Result<(), Errno> {
    move_mount(mount, c"", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(crate) fn attach_path(mount: &OwnedFd, at: &str) -> Result {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", CWD, at, flags).map_err(errno_context(format!("move_mount({at})")))
}

/// A new, detached instance of a file system.
pub(crate) fn new_mount(
    fstype: &str,
    source: &str,
    attrs: &Attrs,
    options: &[(String, Option<String>)],
) -> Result<OwnedFd> {
    let context = open_context(fstype, source)?;
    for (key, value) in options {
        set_option(&context, fstype, key, value.as_deref())?;
    }
    finish(&context, fstype, attrs)
}

pub(crate) fn open_context(fstype: &str, source: &str) -> Result<OwnedFd> {
    let context = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(errno_context(format!("fsopen({fstype})")))?;
    set_option(&context, fstype, "source", Some(source))?;
    Ok(context)
}

pub(crate) fn set_option(
    context: &OwnedFd,
    fstype: &str,
    key: &str,
    value: Option<&str>,
) -> Result {
    let set = match value {
        Some(value) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, key),
    };
    set.map_err(errno_context(format!("fsconfig({fstype}, {key})")))
}

pub(crate) fn finish(context: &OwnedFd, fstype: &str, attrs: &Attrs) -> Result<OwnedFd> {
    fsconfig_create(context).map_err(errno_context(format!("fsconfig create({fstype})")))?;
    let flags = MountAttrFlags::from_bits_retain(u32::try_from(bits(attrs)).unwrap_or(0));
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
        .map_err(errno_context(format!("fsmount({fstype})")))
}

/// The overlay, attached at `at`; the descriptor of its root. Layers of any number and length.
pub(crate) fn overlay(
    lower: &[String],
    upper: Option<&(String, String)>,
    options: &[(String, Option<String>)],
    at: &str,
) -> Result<OwnedFd> {
    // The older form is one text of at most a page.
    if !takes_layers_one_by_one() {
        return old_overlay(lower, upper, options, at);
    }
    let mut all: Vec<_> =
        lower.iter().map(|dir| ("lowerdir+".to_owned(), Some(dir.clone()))).collect();
    if let Some((upper, work)) = upper {
        all.push(("upperdir".to_owned(), Some(upper.clone())));
        all.push(("workdir".to_owned(), Some(work.clone())));
    }
    all.extend(options.iter().cloned());
    match new_mount("overlay", "overlay", &Attrs::default(), &all) {
        Ok(mount) => {
            attach_path(&mount, at)?;
            Ok(mount)
        }
        // This form takes no path of more than 255 bytes.
        Err(failed) if failed.errno == Errno::INVAL => {
            old_overlay(lower, upper, options, at).map_err(|_| failed)
        }
        Err(failed) => Err(failed),
    }
}

/// Linux 6.8 (`Documentation/filesystems/overlayfs.rst`). Known by its number: an older one that is asked writes
/// a line of protest into its log, and says no only when all is put together.
fn takes_layers_one_by_one() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers =
        release.split(|of: char| !of.is_ascii_digit()).map(|of| of.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 8)
}

/// Runs `work` in another working directory.
fn from_directory<T>(directory: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let before =
        rustix::fs::openat(CWD, ".", flags, Mode::empty()).map_err(errno_context("open(.)"))?;
    rustix::process::chdir(directory).map_err(errno_context(format!("chdir({directory})")))?;
    let done = work();
    rustix::process::fchdir(&before).map_err(errno_context("fchdir(the directory before)"))?;
    done
}

/// By the older form. Its page has room for as many layers as overlayfs stacks when they are named by descriptors,
/// from the directory of descriptors, and then no path has a character that means something there.
fn old_overlay(
    lower: &[String],
    upper: Option<&(String, String)>,
    options: &[(String, Option<String>)],
    at: &str,
) -> Result<OwnedFd> {
    let mut held = Vec::with_capacity(lower.len() + 2);
    let mut named = |dir: &String| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(errno_context(format!("open({dir})")))?;
        let name = std::os::fd::AsRawFd::as_raw_fd(&dir).to_string();
        held.push(dir);
        Ok(name)
    };
    let layers: Vec<_> = lower.iter().map(&mut named).collect::<Result<_>>()?;
    let mut data = format!("lowerdir={}", layers.join(":"));
    if let Some((upper, work)) = upper {
        data += &format!(",upperdir={},workdir={}", named(upper)?, named(work)?);
    }
    for (key, value) in options {
        data.push(',');
        data.push_str(key);
        if let Some(value) = value {
            data.push('=');
            data.push_str(value);
        }
    }
    let data =
        std::ffi::CString::new(data).map_err(|_| errno_context("mount(overlay)")(Errno::INVAL))?;
    let flags = rustix::mount::MountFlags::empty();
    from_directory("/proc/self/fd", || {
        rustix::mount::mount("overlay", at, "overlay", flags, data.as_c_str())
            .map_err(errno_context(format!("mount(overlay, {} layers)", lower.len())))
    })?;
    rustix::fs::openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(errno_context(format!("open({at})")))
}
