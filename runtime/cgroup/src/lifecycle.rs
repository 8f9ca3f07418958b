// SPDX-License-Identifier: Apache-2.0
//! Creates, enters, reads and removes a cgroup in all hierarchies.

use crate::cgroup::Cgroup;
use crate::cgroupfs::{CgroupFs, Version};
use crate::counters::{Counters, ExitCounters};
use crate::error::{Error, is, libc_errno};
use crate::limits::Limits;
use crate::stats::Stats;
use crate::{counters, events, files, stats, v1, v2};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Deepest tree of sub-cgroups that is walked; a container can create them. Deeper cgroups have paths longer
/// than a system call accepts (PATH_MAX, `path_resolution(7)`).
const DEPTH_MAX: usize = 2048;

impl Cgroup {
    /// Creates the cgroup and its parents in every hierarchy, and sets the limits. It may already exist.
    pub fn create(&self, limits: &Limits) -> Result<(), Error> {
        for hierarchy in self.host.hierarchies() {
            let cpuset = hierarchy.controllers.iter().any(|name| name == "cpuset");
            v1::make(&hierarchy.mountpoint, &self.path, cpuset)?;
        }
        if let Some(root) = self.host.unified() {
            let with_controllers = self.host.version() == Version::V2;
            v2::make(root, &self.path, with_controllers)?;
        }
        self.apply(limits)
    }

    /// Creates the cgroup and its parents in the v2 tree only, without enabling controllers: for a parent
    /// that still contains a process.
    pub fn make_leaf(&self) -> Result<(), Error> {
        match self.host.unified() {
            Some(root) => v2::make(root, &self.path, false),
            None => Err(Error::NoHierarchy),
        }
    }

    /// Delegates the cgroup to a user, who can then create cgroups below it but not change its own limits.
    /// On v2 only, where delegation is safe (`cgroups(7)`).
    pub fn delegate(&self, uid: u32, gid: u32) -> Result<(), Error> {
        let (Version::V2, Some(dir)) = (self.host.version(), self.unified()) else { return Ok(()) };
        v2::delegate(&dir, uid, gid)
    }

    /// Sets the given limits.
    pub fn apply(&self, limits: &Limits) -> Result<(), Error> {
        match (self.host.version(), self.unified()) {
            (Version::V2, Some(dir)) => v2::apply(&dir, &self.path, limits),
            _ => v1::apply(self, limits),
        }
    }

    /// Moves a process into the v1 cgroups; with `everywhere` also into the v2 cgroup, for a process that was
    /// not cloned there.
    ///
    /// Process 0 is the caller, which must be single-threaded. Only for that case the kernel skips the
    /// machine-wide lock against forks (`cgroup_attach_lock`, Linux 5.6), which costs an RCU grace period:
    /// up to 20 ms, while the move itself takes microseconds.
    pub fn add(&self, pid: i32, everywhere: bool) -> Result<(), Error> {
        self.add_at(pid, everywhere, &[])
    }

    /// As [`Cgroup::add`], but in the v1 hierarchies of the named controllers into other cgroups: their paths.
    pub fn add_at(
        &self,
        pid: i32,
        everywhere: bool,
        elsewhere: &[(String, String)],
    ) -> Result<(), Error> {
        let file = if pid == 0 { "tasks" } else { "cgroup.procs" };
        let pid = pid.to_string();
        for hierarchy in self.host.hierarchies() {
            let is_of = |name: &String| {
                hierarchy.controllers.iter().any(|of| of.trim_start_matches("name=") == name)
            };
            let other = elsewhere.iter().find(|(name, _)| is_of(name)).map(|(_, path)| path);
            let path = match other {
                Some(path) => Self::at(&self.host, path)?.path,
                None => self.path.clone(),
            };
            files::write(&hierarchy.mountpoint.join(path), file, &pid)?;
        }
        if let (true, Some(dir)) = (everywhere, self.unified()) {
            files::write(&dir, "cgroup.procs", &pid)?;
        }
        Ok(())
    }

    /// The processes of the cgroup and its sub-cgroups.
    pub fn procs(&self) -> Result<Vec<i32>, Error> {
        // Every hierarchy has all processes; prefer the v2 tree.
        let Some(dir) = self.unified().or_else(|| self.dirs().next()) else {
            return Ok(Vec::new());
        };
        procs_below(&dir)
    }

    /// Waits until no process is left; returns `false` after `limit`.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, Error> {
        events::wait_empty(self, limit)
    }

    /// Removes the cgroup and its sub-cgroups in every hierarchy. It may be missing already.
    pub fn remove(&self) -> Result<(), Error> {
        for dir in self.dirs() {
            // Most have no sub-cgroups; walk the tree only if this fails.
            if remove_one(&dir).is_ok() {
                continue;
            }
            for dir in tree(&dir)?.into_iter().rev() {
                remove_one(&dir).map_err(|source| Error::Remove { path: dir, source })?;
            }
        }
        Ok(())
    }

    /// Whether the cgroup exists in any hierarchy.
    pub fn exists(&self) -> Result<bool, Error> {
        for path in self.dirs() {
            match path.try_exists() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // No cgroup can be there: a name is too long, or a file's is on the way.
                Err(err)
                    if matches!(
                        err.kind(),
                        io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory
                    ) => {}
                Err(source) => return Err(Error::Read { path, source }),
            }
        }
        Ok(false)
    }

    /// Reads the current resource usage.
    pub fn stats(&self) -> Result<Stats, Error> {
        match (self.host.version(), self.unified()) {
            (Version::V2, Some(dir)) => stats::v2(dir),
            _ => stats::v1(self),
        }
    }

    /// Reads the additional counters for metrics.
    pub fn counters(&self) -> Result<Counters, Error> {
        match (self.host.version(), self.unified()) {
            (Version::V2, Some(dir)) => counters::v2(&dir),
            _ => counters::v1(self),
        }
    }

    /// Reads the exit counters. Call it after the processes have exited and before the cgroup is removed.
    pub fn exit_counters(&self) -> Result<ExitCounters, Error> {
        match (self.host.version(), self.unified()) {
            (Version::V2, Some(dir)) => v2::exit_counters(&dir),
            _ => v1::exit_counters(self),
        }
    }
}

/// Moves a process into the v2 cgroup whose directory is `dir`: see [`CgroupFs::self_dir`].
pub fn move_to(dir: &Path, pid: i32) -> Result<(), Error> {
    files::write(dir, "cgroup.procs", &pid.to_string())
}

/// Removes one directory; succeeds if it does not exist.
fn remove_one(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(err) if !is(&err, libc_errno::ENOENT) => Err(err),
        _ => Ok(()),
    }
}

/// The processes of one hierarchy's directory and of all below it.
pub(crate) fn procs_below(dir: &Path) -> Result<Vec<i32>, Error> {
    let mut pids = Vec::new();
    for dir in tree(dir)? {
        // A cgroup that was just removed has no processes.
        let text = files::read_if_there(&dir, "cgroup.procs")?.unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The directory and all directories below it, parents first; empty if it does not exist.
pub(crate) fn tree(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut todo = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = todo.pop() {
        for name in subdirectories(&dir)? {
            if depth < DEPTH_MAX {
                todo.push((dir.join(name), depth + 1));
            }
        }
        if depth > 0 || dir.is_dir() {
            found.push(dir);
        }
    }
    Ok(found)
}

fn subdirectories(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: dir.to_owned(), source }),
    };
    let directories =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|of| of.is_dir()));
    Ok(directories.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The names of the cgroups directly below `path`, in any hierarchy.
pub fn children(host: &CgroupFs, path: &str) -> Result<Vec<String>, Error> {
    let parent = Cgroup::at(host, path)?;
    let mut names = BTreeSet::new();
    for dir in parent.dirs() {
        names.extend(subdirectories(&dir)?);
    }
    Ok(names.into_iter().collect())
}
