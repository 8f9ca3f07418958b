// SPDX-License-Identifier: Apache-2.0
//! Limits on writable layers, by project quotas of the filesystem.
//!
//! ```text
//! a number nobody has ─▶ on the empty directory ─ counted once: it is ours ─▶ limit ─▶ upper, work inherit it
//!                             └ counted more often: somebody else chose it too ─▶ another one
//! ```
//!
//! The rule: the number is on the directory itself, so it needs no record, and whatever removes the directory knows it.
//! A limit whose project has no file left is of nobody: a removal was interrupted, and the next start of the daemon, or
//! `hull doctor --fix`, takes it away.

use super::layout::Layout;
use crate::fs::files;
use crate::types::LayerQuota;
use hull_sys as sys;
use hull_sys::quota;
use rustix::io::Errno;
use std::ops::RangeInclusive;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The numbers of Hull's projects; those of people are small.
const PROJECTS: RangeInclusive<u32> = 0x4855_0000..=0x48ff_ffff;
/// Most numbers that are tried for a directory.
const TRIES_MAX: usize = 64;

/// The quotas of the filesystem that has the writable layers.
#[derive(Debug)]
pub(super) struct Quotas {
    /// A directory of that filesystem.
    root: PathBuf,
}

impl Quotas {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Checks that limits can be set.
    pub(super) fn check(&self) -> Result<(), String> {
        check_quotas(&self.root)
    }

    /// Limits what a directory and all in it may use. It must be empty, or have a limit already.
    pub(super) fn limit(&self, directory: &Path, bytes: u64) -> sys::Result<()> {
        let opened = files::open_dir(directory)?;
        let fd = opened.as_fd();
        let mut project = quota::project_of(fd)?;
        if !PROJECTS.contains(&project) {
            project = (0..TRIES_MAX)
                .find_map(|_| choose(fd).transpose())
                .unwrap_or_else(|| Err(sys::Error::new(Errno::BUSY, "choose a project")))?;
        }
        quota::limit_project(fd, project, bytes)
    }

    /// The use of a directory, and its limit; `None` without one.
    pub(super) fn usage(&self, directory: &Path) -> Option<LayerQuota> {
        let opened = files::open_dir(directory).ok()?;
        let project = quota::project_of(opened.as_fd()).ok().filter(|of| PROJECTS.contains(of))?;
        let used = quota::project_usage(opened.as_fd(), project).ok()?;
        let quota::ProjectUsage { used_bytes, limit_bytes, .. } = used;
        (limit_bytes > 0).then_some(LayerQuota { used_bytes, limit_bytes })
    }

    /// The project of a directory that is about to be removed, if it has one of ours.
    pub(super) fn project(directory: &Path) -> Option<u32> {
        let opened = files::open_dir(directory).ok()?;
        quota::project_of(opened.as_fd()).ok().filter(|of| PROJECTS.contains(of))
    }

    /// Removes the limit of a project: its files are gone.
    pub(super) fn free(&self, project: u32) -> sys::Result<()> {
        let root = files::open_dir(&self.root)?;
        quota::limit_project(root.as_fd(), project, 0)
    }

    /// Limits of projects of ours that have no file.
    pub(super) fn leaked(&self) -> Vec<u32> {
        let mut found = Vec::new();
        let Ok(root) = files::open_dir(&self.root) else { return found };
        let mut from = *PROJECTS.start();
        while let Ok(Some((project, used))) = quota::next_project(root.as_fd(), from) {
            if !PROJECTS.contains(&project) {
                break;
            }
            if used.limit_bytes > 0 && used.used_inodes == 0 && used.used_bytes == 0 {
                found.push(project);
            }
            from = project + 1;
        }
        found
    }
}

/// Removes the limits that interrupted removals have left. One that stays does no harm, and is found again.
pub(super) fn sweep(layout: &Layout) {
    let quotas = Quotas::new(layout.path("containers"));
    for project in quotas.leaked() {
        if let Err(err) = quotas.free(project) {
            tracing::warn!(project, error = %err, "limit of a removed writable layer not removed");
        }
    }
}

/// Checks that the filesystem of a directory can limit what projects use.
///
/// # Errors
/// The reason, as a sentence.
pub fn check_quotas(directory: &Path) -> Result<(), String> {
    let root = files::open_dir(directory).map_err(|err| err.to_string())?;
    quota::project_of(root.as_fd()).map_err(|err| match err.errno() {
        Errno::NOTTY | Errno::OPNOTSUPP => "its filesystem has no projects".to_owned(),
        _ => err.to_string(),
    })?;
    match quota::enforces_projects(root.as_fd()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("its filesystem counts projects, and does not limit them".to_owned()),
        Err(err) if matches!(err.errno(), Errno::NOSYS | Errno::SRCH | Errno::OPNOTSUPP) => {
            Err("its filesystem is mounted without project quotas".to_owned())
        }
        Err(err) => Err(err.to_string()),
    }
}

/// Puts a directory into a project that nobody has; `None` if the one that was tried is another's.
fn choose(directory: std::os::fd::BorrowedFd<'_>) -> sys::Result<Option<u32>> {
    let mut bytes = [0; 4];
    sys::random(&mut bytes);
    let (start, end) = (*PROJECTS.start(), *PROJECTS.end());
    let project = start + u32::from_ne_bytes(bytes) % (end - start + 1);
    if quota::project_usage(directory, project)? != quota::ProjectUsage::default() {
        return Ok(None);
    }
    quota::set_project(directory, project)?;
    // Another daemon may have chosen the same at this moment.
    let used = quota::project_usage(directory, project)?;
    Ok((used.used_inodes == 1).then_some(project))
}
