// SPDX-License-Identifier: Apache-2.0
//! Refuses limits of memory below what is in use, for callers that ask for it (`memory.checkBeforeUpdate`).
//!
//! On v2 the kernel accepts such a limit, and kills processes until it holds. On v1 it reclaims what it can and refuses
//! the rest, so the caller may find much of the page cache gone.

use crate::cgroup::Cgroup;
use crate::cgroupfs::Version;
use crate::error::Error;
use crate::files::read_if_there;
use crate::limits::Limits;
use std::path::Path;

/// The v2 file of the limit, which `unified` may name as well.
const MAX: &str = "memory.max";

impl Cgroup {
    /// Compares the limits of memory, and of memory with swap, with what is in use.
    ///
    /// # Errors
    /// [`Error::MemoryInUse`] for a limit below that; a file that cannot be read. A cgroup that is not there, or without
    /// the controller, uses nothing.
    pub fn check_memory(&self, limits: &Limits) -> Result<(), Error> {
        let (dir, memory_file, swap_file) = match (self.version(), self.unified()) {
            (Version::V2, Some(dir)) => (Some(dir), "memory.current", "memory.swap.current"),
            _ => (self.v1("memory"), "memory.usage_in_bytes", "memory.memsw.usage_in_bytes"),
        };
        let Some(dir) = dir else { return Ok(()) };
        let is_v2 = self.version() == Version::V2;
        let Some(memory) = bytes(&dir, memory_file)? else { return Ok(()) };
        let unified = limits.unified.iter().find(|(key, _)| is_v2 && key == MAX);
        let unified = unified.and_then(|(_, value)| value.trim().parse().ok());
        for limit in [limits.memory_bytes, unified] {
            compare("memory", limit, memory)?;
        }
        let Some(swap) = bytes(&dir, swap_file)? else { return Ok(()) };
        // On v2 the counter is of swap alone.
        let both = if is_v2 { memory.saturating_add(swap) } else { swap };
        compare("memory with swap", limits.memory_swap_bytes, both)
    }
}

fn bytes(dir: &Path, file: &str) -> Result<Option<u64>, Error> {
    let text = read_if_there(dir, file)?;
    Ok(text.and_then(|text| text.trim().parse().ok()))
}

/// 0 is not a limit, and -1 lifts one.
fn compare(what: &'static str, limit: Option<i64>, used: u64) -> Result<(), Error> {
    let limit = limit.filter(|limit| *limit != 0).and_then(|limit| u64::try_from(limit).ok());
    match limit {
        Some(limit) if limit < used => Err(Error::MemoryInUse { what, limit, used }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroupfs::CgroupFs;
    use std::fs;

    fn limits(memory: Option<i64>, swap: Option<i64>) -> Limits {
        Limits { memory_bytes: memory, memory_swap_bytes: swap, ..Limits::default() }
    }

    /// What, limit, and what is in use, of the error.
    fn refused(cgroup: &Cgroup, limits: &Limits) -> Option<(&'static str, u64, u64)> {
        match cgroup.check_memory(limits) {
            Ok(()) => None,
            Err(Error::MemoryInUse { what, limit, used }) => Some((what, limit, used)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn on_v2_a_limit_below_what_is_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::at(&CgroupFs::v2_at(dir.path()), "/x").unwrap();
        assert_eq!(refused(&cgroup, &limits(Some(1), Some(1))), None, "it is not there");
        fs::create_dir(dir.path().join("x")).unwrap();
        fs::write(dir.path().join("x/memory.current"), "4096\n").unwrap();
        assert_eq!(refused(&cgroup, &limits(Some(5000), Some(1))), None, "without swap");
        fs::write(dir.path().join("x/memory.swap.current"), "1000\n").unwrap();
        for (memory, swap, wanted) in [
            (Some(4095), None, Some(("memory", 4095, 4096))),
            (Some(4096), None, None),
            (Some(4096), Some(5095), Some(("memory with swap", 5095, 5096))),
            (Some(4096), Some(5096), None),
            (Some(-1), Some(-1), None),
            (Some(0), Some(0), None),
            (None, None, None),
        ] {
            assert_eq!(refused(&cgroup, &limits(memory, swap)), wanted, "{memory:?} {swap:?}");
        }
        let mut unified = Limits::default();
        for (value, wanted) in [("100", Some(("memory", 100, 4096))), ("max", None), ("9999", None)]
        {
            unified.unified = vec![(MAX.into(), value.into())];
            assert_eq!(refused(&cgroup, &unified), wanted, "{value}");
        }
    }

    #[test]
    fn on_v1_memory_with_swap_has_a_counter_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let host = CgroupFs::parse(&format!(
            "31 30 0:28 / {} rw - cgroup cgroup rw,memory\n",
            dir.path().display()
        ));
        let cgroup = Cgroup::at(&host, "/x").unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        fs::write(dir.path().join("x/memory.usage_in_bytes"), "4096\n").unwrap();
        fs::write(dir.path().join("x/memory.memsw.usage_in_bytes"), "5096\n").unwrap();
        assert_eq!(refused(&cgroup, &limits(Some(4095), None)), Some(("memory", 4095, 4096)));
        let both = refused(&cgroup, &limits(Some(4096), Some(5095)));
        assert_eq!(both, Some(("memory with swap", 5095, 5096)));
        assert_eq!(refused(&cgroup, &limits(Some(4096), Some(5096))), None);
    }
}
