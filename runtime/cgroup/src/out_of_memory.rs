// SPDX-License-Identifier: Apache-2.0
//! The cgroup whose memory limit was reached. `Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::{field, number, read_if_there};
use crate::stats::NO_LIMIT;
use std::path::Path;

/// A cgroup whose memory limit was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachedLimit {
    /// Its path below the root of the hierarchy, with a leading slash.
    pub cgroup: String,
    /// Its limit in bytes, if it still has one.
    pub limit_bytes: Option<u64>,
    /// The most memory that it ever held, in bytes, where the kernel counts it.
    pub peak_bytes: Option<u64>,
}

impl Cgroup {
    /// The cgroup whose limit caused an out-of-memory kill in this cgroup: this one, an ancestor, or `None` for the
    /// whole host.
    ///
    /// On v2 each cgroup counts its own events (`memory.events.local`, Linux 5.2). On v1 each counts the charges that
    /// its own limit refused (`memory.failcnt`). Both stay until the cgroup is removed, so none is missed. The nearest
    /// cgroup that ever reached its limit is returned.
    pub fn out_of_memory(&self) -> Result<Option<ReachedLimit>, Error> {
        let (root, read): (_, Reader) =
            match (self.host.version(), self.host.unified(), self.host.hierarchy("memory")) {
                (Version::V2, Some(root), _) => (root, v2),
                (_, _, Some(root)) => (root, v1),
                _ => return Err(Error::NoHierarchy),
            };
        let mut path = self.path.as_str();
        loop {
            if let Some(level) = read(&root.join(path))? {
                let Level { limit_bytes, peak_bytes } = level;
                return Ok(Some(ReachedLimit {
                    cgroup: format!("/{path}"),
                    limit_bytes,
                    peak_bytes,
                }));
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return Ok(None),
            }
        }
    }
}

/// Reads the figures of a cgroup's directory, if its own limit was reached.
type Reader = fn(&Path) -> Result<Option<Level>, Error>;

/// Limit and peak of one cgroup.
struct Level {
    limit_bytes: Option<u64>,
    peak_bytes: Option<u64>,
}

/// The figures of a v2 cgroup that ran out of memory itself.
fn v2(dir: &Path) -> Result<Option<Level>, Error> {
    let events = read_if_there(dir, "memory.events.local")?.unwrap_or_default();
    if field(&events, "oom").unwrap_or(0) == 0 {
        return Ok(None);
    }
    let value = |file| Ok::<_, Error>(read_if_there(dir, file)?.as_deref().and_then(number));
    Ok(Some(Level { limit_bytes: value("memory.max")?, peak_bytes: value("memory.peak")? }))
}

/// The figures of a v1 cgroup whose limit refused charges. A limit that was only ever met by page cache, which was
/// dropped then, counts too: the kernel does not tell them apart.
fn v1(dir: &Path) -> Result<Option<Level>, Error> {
    let value = |file| Ok::<_, Error>(read_if_there(dir, file)?.as_deref().and_then(number));
    if value("memory.failcnt")?.unwrap_or(0) == 0 {
        return Ok(None);
    }
    Ok(Some(Level {
        limit_bytes: value("memory.limit_in_bytes")?.filter(|bytes| *bytes < NO_LIMIT),
        peak_bytes: value("memory.max_usage_in_bytes")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn figures_are_those_of_the_cgroup_that_reached_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        assert!(v1(dir.path()).unwrap().is_none() && v2(dir.path()).unwrap().is_none());
        write("memory.failcnt", "0\n");
        write("memory.events.local", "low 0\noom 0\noom_kill 3\n");
        assert!(v1(dir.path()).unwrap().is_none(), "only reached above");
        assert!(v2(dir.path()).unwrap().is_none(), "killed for a limit above");
        write("memory.failcnt", "17\n");
        write("memory.limit_in_bytes", "262144\n");
        write("memory.max_usage_in_bytes", "262144\n");
        write("memory.events.local", "oom 1\noom_kill 1\n");
        write("memory.max", "max\n");
        let (one, two) = (v1(dir.path()).unwrap().unwrap(), v2(dir.path()).unwrap().unwrap());
        assert_eq!((one.limit_bytes, one.peak_bytes), (Some(262_144), Some(262_144)));
        assert_eq!((two.limit_bytes, two.peak_bytes), (None, None));
    }
}
