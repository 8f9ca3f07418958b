// SPDX-License-Identifier: Apache-2.0
//! Parses `/proc/<pid>/status`, id maps and device rules. Pure.

use super::caps::Caps;
use super::facts::{IdRange, Thread};

/// Parses the status file of a thread; `None` if a field that every kernel has is missing. `proc_pid_status(5)`.
///
/// The first line is the thread's name, which the container chooses. The kernel escapes newlines in it,
/// so it cannot forge another line.
pub(crate) fn thread(status: &str, nested: bool) -> Option<Thread> {
    let field = |name: &str| {
        let mut lines = status.lines().skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?.split_whitespace().map(|word| word.parse().ok()).collect()
    };
    let caps = |name: &str| u64::from_str_radix(field(name)?, 16).ok().map(Caps);
    let uids = numbers("Uid")?;
    let mut gids = numbers("Gid")?;
    gids.extend(numbers("Groups")?);
    Some(Thread {
        uids: uids.into_iter().collect(),
        gids: gids.into_iter().collect(),
        permitted: caps("CapPrm")?,
        effective: caps("CapEff")?,
        bounding: caps("CapBnd")?,
        ambient: caps("CapAmb")?,
        no_new_privs: field("NoNewPrivs")? == "1",
        // Missing in kernels without seccomp: then nothing is filtered.
        seccomp: field("Seccomp").and_then(|word| word.parse().ok()).unwrap_or(0),
        filters: field("Seccomp_filters").and_then(|word| word.parse().ok()),
        nested,
    })
}

/// Parses a uid_map or gid_map. `user_namespaces(7)`.
pub(crate) fn id_map(text: &str) -> Vec<IdRange> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let mut next = || words.next().flatten();
        Some(IdRange { inside: next()?, outside: next()?, length: next()? })
    };
    text.lines().filter_map(line).collect()
}

/// A device rule of cgroup v1, such as `c 1:3 rwm`. Numbers are `None` for `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// `b`, `c`, or `a` for both.
    pub(crate) kind: char,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: String,
}

impl Rule {
    /// Parses a rule; `None` if the text is not a rule.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number =
            |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self {
            kind: kind.chars().next()?,
            major: number(major)?,
            minor: number(minor)?,
            access: access.to_owned(),
        })
    }

    /// Whether there is a device that both rules name.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let fits =
            |one: Option<u32>, two: Option<u32>| one.is_none() || two.is_none() || one == two;
        (self.kind == 'a' || other.kind == 'a' || self.kind == other.kind)
            && fits(self.major, other.major)
            && fits(self.minor, other.minor)
    }
}

/// Whether rules of cgroup v1 allow opening a device. `Documentation/admin-guide/cgroup-v1/devices.rst`
pub(crate) fn may_open(rules: &[String], kind: char, major: u32, minor: u32) -> bool {
    let fits = |pattern: &str, number: u32| pattern == "*" || pattern.parse() == Ok(number);
    rules.iter().any(|rule| {
        let mut words = rule.split_whitespace();
        let (Some(of), Some(numbers), Some(access)) = (words.next(), words.next(), words.next())
        else {
            return false;
        };
        let Some((of_major, of_minor)) = numbers.split_once(':') else { return false };
        (of == "a" || of.starts_with(kind))
            && fits(of_major, major)
            && fits(of_minor, minor)
            && access.contains(['r', 'w'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tUid:\\t0\nUid:\t200000\t200000\t200000\t200000\nGid:\t5\t5\t5\t5\nGroups:\t7 8 \n\
        CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000001\nCapBnd:\t00000000a80425fb\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_status_is_read_and_its_name_is_not_taken_for_a_field() {
        let thread = thread(STATUS, false).unwrap();
        assert_eq!(thread.uids.into_iter().collect::<Vec<_>>(), [200_000]);
        assert_eq!(thread.gids.into_iter().collect::<Vec<_>>(), [5, 7, 8]);
        assert_eq!((thread.bounding, thread.effective), (Caps(0xa804_25fb), Caps(1)));
        assert!(thread.no_new_privs);
        assert_eq!((thread.seccomp, thread.filters), (2, Some(3)));
    }

    #[test]
    fn half_a_status_is_none() {
        for cut in ["CapBnd", "Uid", "NoNewPrivs", "Groups"] {
            let text: Vec<&str> = STATUS.lines().filter(|line| !line.starts_with(cut)).collect();
            assert_eq!(thread(&text.join("\n"), false), None, "{cut}");
        }
        assert_eq!(thread("", false), None);
    }

    #[test]
    fn maps_are_read_and_lines_without_sense_passed_over() {
        let map = id_map("         0     200000      65536\n1 x 2\n\n70000 1 4294967295\n");
        assert_eq!(map.len(), 2);
        assert_eq!(map[0].inside_of(200_005), Some(5));
        assert_eq!(map[0].inside_of(265_536), None);
        assert_eq!(map[0].inside_of(0), None);
        assert_eq!(map[1].inside_of(4_294_967_295), None, "an id beyond the last is nobody's");
    }

    #[test]
    fn rules_open_what_they_name() {
        let rules = |text: &str| vec![text.to_owned()];
        assert!(may_open(&rules("a *:* rwm"), 'b', 8, 0));
        assert!(may_open(&rules("c 1:3 rw"), 'c', 1, 3));
        assert!(may_open(&rules("b 8:* r"), 'b', 8, 17));
        for (rule, kind, major, minor) in [
            ("c *:* m", 'c', 1, 3),
            ("c 1:3 rw", 'b', 1, 3),
            ("c 1:3 rw", 'c', 1, 4),
            ("", 'c', 1, 3),
        ] {
            assert!(!may_open(&rules(rule), kind, major, minor), "{rule}");
        }
    }
}
