// SPDX-License-Identifier: Apache-2.0
//! Holding all processes of a cgroup still: `cgroup.freeze` of v2, `freezer.state` of v1.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::{field, read_if_there, write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a cgroup is looked at that is on its way into the ice: it takes microseconds, unless a
/// process hangs in the kernel.
const LOOK: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Stops all its processes, at most for `limit` on the way; what is not frozen by then is thawed.
    pub fn freeze(&self, limit: Duration) -> Result<(), Error> {
        let until = Instant::now() + limit;
        loop {
            // Written each time: a v1 cgroup in which somebody forked meanwhile goes on freezing only so.
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

    /// Lets them go on.
    pub fn thaw(&self) -> Result<(), Error> {
        self.turn(false)
    }

    /// Whether all of them stand still.
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
