// SPDX-License-Identifier: Apache-2.0
//! Rights to files (pure): `path_resolution(7)`, as far as modes and owners decide it.

use std::fmt;

const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;

/// Owner and mode of a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits, with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) is_directory: bool,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {}:{}, mode {:04o}", self.uid, self.gid, self.mode & 0o7777)
    }
}

/// The identity of a process, as file systems see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Effective capabilities, bit n for capability n.
    pub(super) capabilities: u64,
}

/// A right to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To enter a directory, or to execute a file.
    Enter,
    Read,
    Write,
}

impl Right {
    /// The verb after "may not", for a directory or a file.
    pub(super) fn verb(self, of: &Owner) -> &'static str {
        match self {
            Self::Enter if of.is_directory => "enter",
            Self::Enter => "execute",
            Self::Read => "read",
            Self::Write => "write to",
        }
    }

    fn bit(self) -> u32 {
        match self {
            Self::Enter => 1,
            Self::Read => 4,
            Self::Write => 2,
        }
    }
}

impl Identity {
    /// Whether the mode gives the right.
    pub(super) fn may(&self, right: Right, of: &Owner) -> bool {
        let by_capability = match right {
            Right::Enter if of.is_directory => DAC_OVERRIDE | DAC_READ_SEARCH,
            Right::Read => DAC_OVERRIDE | DAC_READ_SEARCH,
            Right::Write => DAC_OVERRIDE,
            // A file that nobody may execute is not executable for root either.
            Right::Enter if of.mode & 0o111 != 0 => DAC_OVERRIDE,
            Right::Enter => 0,
        };
        if self.capabilities & by_capability != 0 {
            return true;
        }
        let shift = if self.uid == of.uid {
            6
        } else if self.gid == of.gid || self.groups.contains(&of.gid) {
            3
        } else {
            0
        };
        of.mode >> shift & right.bit() != 0
    }

    /// The part of a path that denies an access, and the right that is missing. `walked` has the parts of the path
    /// from the root that exist, each with its whole path; `complete` if the last part of the path is among them;
    /// `executes` if the access was to execute it.
    pub(super) fn denied<'w>(
        &self,
        walked: &'w [(String, Owner)],
        complete: bool,
        executes: bool,
    ) -> Option<(&'w str, Owner, Right)> {
        let (last, before) = walked.split_last()?;
        let lacks = |(path, owner): &'w (String, Owner), right| {
            (!self.may(right, owner)).then_some((path.as_str(), *owner, right))
        };
        if let Some(found) = before.iter().find_map(|part| lacks(part, Right::Enter)) {
            return Some(found);
        }
        let rights: &[Right] = match (complete, last.1.is_directory) {
            (true, false) if executes => &[Right::Enter],
            (true, false) => &[Right::Read, Right::Write],
            (true, true) => &[Right::Enter, Right::Read, Right::Write],
            (false, _) => &[Right::Enter, Right::Write],
        };
        rights.iter().find_map(|right| lacks(last, *right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn owner(uid: u32, gid: u32, mode: u32, is_directory: bool) -> Owner {
        Owner { uid, gid, mode, is_directory }
    }

    fn user(uid: u32, groups: &[u32]) -> Identity {
        Identity { uid, gid: uid, groups: groups.to_vec(), capabilities: 0 }
    }

    #[test]
    fn the_first_part_that_denies_is_named() {
        let walked = |last: Owner| {
            let directory = owner(0, 0, 0o755, true);
            vec![("/data".to_owned(), directory), ("/data/f".to_owned(), last)]
        };
        let file = walked(owner(0, 0, 0o600, false));
        assert_eq!(user(1000, &[]).denied(&file, true, false).unwrap().2, Right::Read);
        assert_eq!(user(0, &[]).denied(&file, true, false), None);
        let group = walked(owner(0, 2000, 0o640, false));
        assert_eq!(user(1000, &[2000]).denied(&group, true, false).unwrap().2, Right::Write);
        let closed = vec![
            ("/srv/home".to_owned(), owner(0, 0, 0o700, true)),
            ("/srv/home/x".to_owned(), owner(1000, 1000, 0o644, false)),
        ];
        let (path, _, right) = user(1000, &[]).denied(&closed, true, false).unwrap();
        assert_eq!((path, right), ("/srv/home", Right::Enter));
        // Creating a file needs to write to the directory.
        let directory = [("/data".to_owned(), owner(0, 0, 0o755, true))];
        assert_eq!(user(1000, &[]).denied(&directory, false, false).unwrap().2, Right::Write);
        let root = Identity { capabilities: DAC_OVERRIDE, ..user(0, &[]) };
        assert_eq!(root.denied(&[("/x".to_owned(), owner(5, 5, 0, false))], true, false), None);
        let script = [("/x".to_owned(), owner(0, 0, 0o644, false))];
        assert_eq!(root.denied(&script, true, true).unwrap().2.verb(&script[0].1), "execute");
        assert!(!root.may(Right::Enter, &owner(0, 0, 0o644, false)), "nobody may execute it");
    }
}
