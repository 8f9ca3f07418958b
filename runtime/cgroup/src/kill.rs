// SPDX-License-Identifier: Apache-2.0
//! Ending all that is in a cgroup, also what is frozen, and removing it.
//!
//! ```text
//! v2            cgroup.kill; a frozen process takes SIGKILL
//! hybrid        cgroup.kill, then SIGKILL to what the v1 freezer holds, then thaw
//! v1            freeze (nothing forks away), SIGKILL, thaw
//! ```
//!
//! A process that the v1 freezer holds dies when it is thawed and not before, wherever the freeze comes
//! from: from its own group, from a group nested in the cgroup, or from one above. The kill comes first, so
//! nothing runs on in between. A process may have been moved to other places in other hierarchies; whether
//! a cgroup is empty is therefore decided by its removal, which the kernel refuses (EBUSY) for each
//! hierarchy that still has a process in it.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::{Error, is, libc_errno};
use crate::files::{self, read_if_there, write_if_there};
use crate::lifecycle::{procs_below, tree};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes are waited for before the cgroup is killed once more: without `cgroup.kill`
/// something may have forked meanwhile, and somebody may have frozen it again. Doubled each time.
const AGAIN_MIN: Duration = Duration::from_millis(50);
/// How often the kernel is asked where it tells of nothing.
const LOOK: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Sends SIGKILL to everything in it and thaws what is frozen in it. Processes end a little later: see
    /// [`Cgroup::wait_empty`]. One that is frozen from above stays: see [`Cgroup::kill_within`].
    ///
    /// # Errors
    /// A file that cannot be read or written. One that is not there is fine.
    pub fn kill(&self) -> Result<(), Error> {
        self.kill_up_to(None)
    }

    /// As [`Cgroup::kill`], and thaws those above it that are frozen, up to `top`. Where this one is not
    /// below `top` nothing above it is touched.
    ///
    /// # Errors
    /// As [`Cgroup::kill`].
    pub fn kill_within(&self, top: &Self) -> Result<(), Error> {
        self.kill_up_to(Some(top))
    }

    fn kill_up_to(&self, top: Option<&Self>) -> Result<(), Error> {
        let at_once = self.kill_at_once()?;
        // Also after `cgroup.kill`: that passes over a process whose first thread has ended while others run.
        if self.version() == Version::V2 {
            return kill_each(&self.procs()?);
        }
        let Some(freezer) = self.v1("freezer") else { return kill_each(&self.procs()?) };
        if !at_once {
            write_if_there(&freezer, "freezer.state", "FROZEN")?;
        }
        let killed = procs_below(&freezer).and_then(|pids| kill_each(&pids));
        thaw(&freezer, top.and_then(|top| top.v1("freezer")).as_deref())?;
        killed
    }

    /// By `cgroup.kill`, Linux 5.14, which catches also what forks meanwhile. `false` where the kernel has
    /// no such file.
    fn kill_at_once(&self) -> Result<bool, Error> {
        let Some(dir) = self.unified() else { return Ok(false) };
        Ok(write_if_there(&dir, "cgroup.kill", "1")? || !dir.is_dir())
    }

    /// Kills what is in it in any hierarchy, one by one: for those that are elsewhere in the v2 tree, or
    /// in the hierarchy of the freezer.
    fn kill_strays(&self) -> Result<(), Error> {
        for dir in self.dirs() {
            kill_each(&procs_below(&dir)?)?;
        }
        Ok(())
    }

    /// Whether any process is left where its own processes are: in the v2 tree and in the hierarchy of the freezer, or,
    /// without a v2 tree, in the first hierarchy. One that is not there has none. For a cgroup of somebody else, see
    /// [`Cgroup::is_populated_anywhere`].
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_populated(&self) -> Result<bool, Error> {
        let Some(dir) = self.unified() else {
            return Ok(self.exists()? && !self.procs()?.is_empty());
        };
        let text = read_if_there(&dir, "cgroup.events")?;
        if text.is_some_and(|text| files::field(&text, "populated") == Some(1)) {
            return Ok(true);
        }
        // It may be elsewhere in the v2 tree, and held here.
        match self.v1("freezer") {
            Some(freezer) => Ok(!procs_below(&freezer)?.is_empty()),
            None => Ok(false),
        }
    }

    /// Whether any hierarchy has a process in it. For a cgroup whose processes are not known: each v1 hierarchy may
    /// have others.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is_populated_anywhere(&self) -> Result<bool, Error> {
        if self.is_populated()? {
            return Ok(true);
        }
        for hierarchy in self.host.hierarchies() {
            if !procs_below(&hierarchy.mountpoint.join(&self.path))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Kills what is in it, waits until all has ended, at most for `limit`, and removes it.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] when something is left of it by then; a file that cannot be read or written; a
    /// directory that cannot be removed.
    pub fn kill_and_remove(&self, limit: Duration) -> Result<(), Error> {
        self.end(None, limit)
    }

    /// As [`Cgroup::kill_and_remove`], and thaws those above it that are frozen, up to `top`.
    ///
    /// # Errors
    /// As [`Cgroup::kill_and_remove`].
    pub fn kill_and_remove_within(&self, top: &Self, limit: Duration) -> Result<(), Error> {
        self.end(Some(top), limit)
    }

    fn end(&self, top: Option<&Self>, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        let mut wait = AGAIN_MIN;
        while self.is_populated()? {
            self.kill_up_to(top)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::NotEmpty { path: self.shown(), waited: limit });
            }
            if self.wait_empty(wait.min(left))? && self.is_populated()? {
                // What is left is where no event tells of it.
                std::thread::sleep(LOOK);
            }
            wait *= 2;
        }
        loop {
            match self.remove() {
                // A process is in this hierarchy alone, or on its way out a moment longer here.
                Err(Error::Remove { source, .. })
                    if is(&source, libc_errno::EBUSY) && Instant::now() < until =>
                {
                    self.kill_strays()?;
                    std::thread::sleep(LOOK);
                }
                other => return other,
            }
        }
    }
}

fn kill_each(pids: &[i32]) -> Result<(), Error> {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // One that has ended meanwhile is what was wanted.
        let _ended = kill_process(pid, Signal::KILL);
    }
    Ok(())
}

/// Lets everything at and below `dir` of the freezer's hierarchy go on; what is above it as well, from `top`
/// down, when that holds it. Linux, `Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst`.
fn thaw(dir: &Path, top: Option<&Path>) -> Result<(), Error> {
    let held = read_if_there(dir, "freezer.parent_freezing")?;
    if let (Some("1"), Some(top)) = (held.as_deref().map(str::trim), top) {
        let above: Vec<&Path> = dir.ancestors().skip(1).filter(|of| of.starts_with(top)).collect();
        for dir in above.into_iter().rev() {
            write_if_there(dir, "freezer.state", "THAWED")?;
        }
    }
    for dir in tree(dir)? {
        write_if_there(&dir, "freezer.state", "THAWED")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroupfs::CgroupFs;
    use std::fs;

    #[test]
    fn without_a_v2_tree_a_process_in_any_hierarchy_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let host = CgroupFs::parse(&format!(
            "31 30 0:28 / {root}/cpu rw - cgroup cgroup rw,cpu\n\
             32 30 0:29 / {root}/memory rw - cgroup cgroup rw,memory\n\
             33 30 0:30 / {root}/pids rw - cgroup cgroup rw,pids\n"
        ));
        assert_eq!(host.version(), Version::V1);
        let cgroup = Cgroup::at(&host, "/x").unwrap();
        assert!(!cgroup.is_populated_anywhere().unwrap(), "it is not there");
        for with_process in ["cpu", "memory", "pids"] {
            for hierarchy in ["cpu", "memory", "pids"] {
                let below = dir.path().join(hierarchy).join("x/below");
                fs::create_dir_all(&below).unwrap();
                fs::write(below.join("../cgroup.procs"), "").unwrap();
                let procs = if hierarchy == with_process { "7\n" } else { "" };
                fs::write(below.join("cgroup.procs"), procs).unwrap();
            }
            assert!(cgroup.is_populated_anywhere().unwrap(), "{with_process}");
            fs::write(dir.path().join(with_process).join("x/below/cgroup.procs"), "").unwrap();
            assert!(!cgroup.is_populated_anywhere().unwrap());
        }
    }
}
