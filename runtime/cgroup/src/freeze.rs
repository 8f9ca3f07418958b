// SPDX-License-Identifier: Apache-2.0
//! Freezes all processes of a cgroup: `cgroup.freeze` on v2, `freezer.state` on v1.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::{field, read_if_there, write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Poll interval while a cgroup is freezing, which takes microseconds unless a process hangs in the kernel.
const LOOK: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Freezes all processes. If that takes longer than `limit`, thaws them again and fails.
    pub fn freeze(&self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        loop {
            // Written each time: after a fork, a v1 cgroup continues freezing only after another write.
            self.turn(true)?;
            if self.is_frozen()? {
                return Ok(());
            }
            if Instant::now() >= until {
                self.thaw()?;
                return Err(Error::NotFrozen { path: self.shown(), waited: limit });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Thaws all processes.
    pub fn thaw(&self) -> Result<(), Error> {
        self.turn(false)
    }

    /// Whether all processes are frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Ok(match self.freezer() {
            Some(Freezer::V1(dir)) => {
                read_if_there(&dir, "freezer.state")?.is_some_and(|state| state.trim() == "FROZEN")
            }
            Some(Freezer::V2(dir)) => read_if_there(&dir, "cgroup.events")?
                .is_some_and(|events| field(&events, "frozen") == Some(1)),
            None => false,
        })
    }

    /// The path of the first cgroup, from the topmost one down to this one, in which a new process would be frozen:
    /// also while a process hangs in the kernel, which keeps the cgroup from being frozen as a whole.
    pub fn frozen_above(&self) -> Result<Option<String>, Error> {
        let mut ways = vec![self.clone()];
        while let Some(parent) = ways.last().and_then(Cgroup::parent) {
            ways.push(parent);
        }
        for cgroup in ways.iter().rev() {
            if cgroup.freezes_new_processes()? {
                return Ok(Some(cgroup.shown()));
            }
        }
        Ok(None)
    }

    fn freezes_new_processes(&self) -> Result<bool, Error> {
        Ok(match self.freezer() {
            Some(Freezer::V1(dir)) => {
                read_if_there(&dir, "freezer.state")?.is_some_and(|state| state.trim() != "THAWED")
            }
            Some(Freezer::V2(dir)) => {
                read_if_there(&dir, "cgroup.freeze")?.is_some_and(|state| state.trim() != "0")
            }
            None => false,
        })
    }

    fn turn(&self, frozen: bool) -> Result<(), Error> {
        let put = |dir: &Path, file: &str, on: &str, off: &str| {
            write(dir, file, if frozen { on } else { off })
        };
        match self.freezer() {
            Some(Freezer::V1(dir)) => put(&dir, "freezer.state", "FROZEN", "THAWED"),
            Some(Freezer::V2(dir)) => put(&dir, "cgroup.freeze", "1", "0"),
            None => Err(Error::NoController {
                what: format!("freezer of {}", self.shown()),
                controller: "freezer",
            }),
        }
    }

    fn freezer(&self) -> Option<Freezer> {
        match self.version() {
            Version::V2 => self.unified().map(Freezer::V2),
            Version::V1 | Version::Hybrid => {
                self.v1("freezer").map(Freezer::V1).or_else(|| self.unified().map(Freezer::V2))
            }
        }
    }
}

enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}
