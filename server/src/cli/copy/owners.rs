// SPDX-License-Identifier: Apache-2.0
//! Owners of files, between the host and the user namespace of a container. Pure, but for reading the maps.

use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;

/// Longest map that is read, in bytes: the kernel has at most 340 lines.
const MAP_BYTES_MAX: u64 = 64 << 10;

/// The ranges of a user namespace: first id inside, first id outside, length.
type Ranges = Vec<(u32, u32, u32)>;

/// The ids of users and groups of one side.
#[derive(Debug)]
pub(super) struct Owners {
    users: Ranges,
    groups: Ranges,
}

impl Owners {
    /// Those of the host: every id is itself.
    pub(super) fn host() -> Self {
        let all = vec![(0, 0, u32::MAX)];
        Self { users: all.clone(), groups: all }
    }

    /// Those of the user namespace of a process.
    pub(super) fn of_process(dir: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { users: ranges(&read(dir, "uid_map")?), groups: ranges(&read(dir, "gid_map")?) })
    }

    /// The ids inside of the owner of a file; an id that does not exist there is 65534.
    pub(super) fn inside(&self, uid: u32, gid: u32) -> (u32, u32) {
        let map = |ranges: &Ranges, id| shift(ranges, id, |of| (of.1, of.0)).unwrap_or(65_534);
        (map(&self.users, uid), map(&self.groups, gid))
    }

    /// The ids on the host of an owner inside; `None` if one of them does not exist there.
    pub(super) fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let map = |ranges: &Ranges, id| shift(ranges, id, |of| (of.0, of.1));
        Some((map(&self.users, uid)?, map(&self.groups, gid)?))
    }
}

fn shift(ranges: &Ranges, id: u32, way: impl Fn(&(u32, u32, u32)) -> (u32, u32)) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let (from, to) = way(range);
        let offset = id.checked_sub(from).filter(|offset| *offset < range.2)?;
        to.checked_add(offset)
    })
}

fn read(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(MAP_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn ranges(text: &str) -> Ranges {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_moved_by_the_map() {
        let of = Owners { users: ranges("0 100000 65536\n"), groups: ranges("0 200000 10\n") };
        assert_eq!(of.inside(100_005, 200_001), (5, 1));
        assert_eq!(of.inside(5, 5), (65_534, 65_534));
        assert_eq!(of.outside(5, 9), Some((100_005, 200_009)));
        assert_eq!(of.outside(5, 10), None);
        assert_eq!(Owners::host().outside(7, 8), Some((7, 8)));
    }
}
