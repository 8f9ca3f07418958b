// SPDX-License-Identifier: Apache-2.0
//! The ids that an administrator gives to a user: /etc/subuid and /etc/subgid, `subuid(5)`.
//!
//! The rule: a file with one line that cannot be read, or whose ids another user has too, gives no ids at all. Nobody
//! knows then whose they are.

use super::Error;
use super::ids::IDS;
use crate::oci_spec::node_file;
use hull_sys::text::shown;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest text that a message shows, in bytes.
const SHOWN_BYTES: usize = 80;
/// Behind the last id: the kernel's value for "no id".
const END: u64 = u32::MAX as u64;
/// The users whose ids are taken where none is configured: Hull's own, then that of podman and CRI-O.
const USERS: [&str; 2] = ["hull", "containers"];

/// Ids of the host that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    first: u32,
    count: u32,
}

impl Block {
    fn end(self) -> u64 {
        u64::from(self.first) + u64::from(self.count)
    }

    /// How many pods find their ids in it.
    fn slots(self) -> u64 {
        u64::from(self.count / IDS)
    }
}

/// A line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line<'t> {
    number: usize,
    user: &'t str,
    block: Block,
}

/// Where ids are read, and whose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    pub(crate) users: &'a Path,
    pub(crate) groups: &'a Path,
    /// The configured user.
    pub(crate) user: Option<&'a str>,
}

/// The ids for pods in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subids {
    file: String,
    user: String,
    blocks: Vec<Block>,
}

impl Files<'_> {
    /// Reads both files: the ids of users, and those of groups.
    pub(crate) fn read(&self) -> Result<(Subids, Subids), Error> {
        let of = |path| {
            let text = text_of(path).map_err(|why| Error::File { file: name(path), why })?;
            parse(&name(path), &text, self.user)
        };
        Ok((of(self.users)?, of(self.groups)?))
    }
}

fn name(path: &Path) -> String {
    shown(path.display().to_string(), 4096)
}

/// The text of a file that only root can change.
fn text_of(path: &Path) -> Result<String, String> {
    let file: File = node_file::open(path)?;
    let of = file.metadata().map_err(|err| err.to_string())?;
    if of.uid() != 0 || of.mode() & 0o022 != 0 {
        return Err("others than root can write to it".into());
    }
    node_file::read(file, FILE_BYTES_MAX)
}

fn parse(file: &str, text: &str, user: Option<&str>) -> Result<Subids, Error> {
    let bad = |why| Error::File { file: file.to_owned(), why };
    let lines = lines(text).map_err(bad)?;
    let candidates = user.map_or_else(|| USERS.to_vec(), |user| vec![user]);
    let Some(user) =
        candidates.iter().find(|user| lines.iter().any(|line| line.user == **user)).copied()
    else {
        let users: Vec<_> = candidates.iter().map(|user| format!("user `{user}`")).collect();
        return Err(Error::NoLine { file: file.to_owned(), users: users.join(" or ") });
    };
    only_theirs(&lines, user).map_err(bad)?;
    let blocks: Vec<_> =
        lines.iter().filter(|line| line.user == user).map(|line| line.block).collect();
    if blocks.iter().all(|block| block.slots() == 0) {
        let longest = blocks.iter().map(|block| block.count).max().unwrap_or(0);
        return Err(Error::TooSmall { file: file.to_owned(), user: user.to_owned(), longest });
    }
    Ok(Subids { file: file.to_owned(), user: user.to_owned(), blocks })
}

fn lines(text: &str) -> Result<Vec<Line<'_>>, String> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let content = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    content
        .map(|(number, line)| {
            parse_line(number, line).ok_or_else(|| {
                format!("line {number}, `{}`, is not NAME:FIRST:COUNT", shown(line, SHOWN_BYTES))
            })
        })
        .collect()
}

fn parse_line(number: usize, line: &str) -> Option<Line<'_>> {
    let mut fields = line.split(':');
    let user = fields.next().filter(|user| !user.is_empty())?;
    let mut id = || {
        let text = fields.next()?;
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|_| is_number)
    };
    let block = Block { first: id()?, count: id()? };
    let is_whole = fields.next().is_none() && block.count > 0 && block.end() <= END;
    is_whole.then_some(Line { number, user, block })
}

/// Refuses ids of the user that another line has too, and those of the host's own users.
fn only_theirs(lines: &[Line<'_>], user: &str) -> Result<(), String> {
    let mut sorted: Vec<_> = lines.iter().collect();
    sorted.sort_by_key(|line| line.block.first);
    // The lines that reach farthest so far: of all, and of the user.
    let (mut of_all, mut of_user): (Option<&Line<'_>>, Option<&Line<'_>>) = (None, None);
    let farther = |before: Option<&Line<'_>>, line: &Line<'_>| {
        before.is_none_or(|before| before.block.end() < line.block.end())
    };
    for line in sorted {
        let is_own = line.user == user;
        if is_own && line.block.first < IDS {
            return Err(format!(
                "line {} has ids below {IDS}, which are those of the host's own users",
                line.number
            ));
        }
        let before = if is_own { of_all } else { of_user };
        if let Some(other) = before.filter(|other| other.block.end() > u64::from(line.block.first))
        {
            return Err(format!(
                "lines {} of `{}` and {} of `{}` have the same ids",
                other.number,
                shown(other.user, SHOWN_BYTES),
                line.number,
                shown(line.user, SHOWN_BYTES)
            ));
        }
        if farther(of_all, line) {
            of_all = Some(line);
        }
        if is_own && farther(of_user, line) {
            of_user = Some(line);
        }
    }
    Ok(())
}

impl Subids {
    /// The first id of a range of [`IDS`] ids of which nobody has one. `used` are ranges: first id, and length.
    pub(crate) fn pick(&self, used: &[(u32, u32)]) -> Result<u32, Error> {
        let is_free = |first: &u32| !used.iter().any(|of| overlap(*of, (*first, IDS)));
        let mut slots = self.blocks.iter().flat_map(|block| {
            // Within the block, whose end is an id.
            (0..block.count / IDS).map(move |slot| block.first + slot * IDS)
        });
        slots.find(is_free).ok_or_else(|| Error::Exhausted {
            file: self.file.clone(),
            user: self.user.clone(),
            count: self.count(),
        })
    }

    /// How many pods find their ids here.
    pub(crate) fn count(&self) -> u64 {
        self.blocks.iter().map(|block| block.slots()).sum()
    }

    /// The user whose ids these are.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }
}

/// Whether two ranges, each of a first id and a length, have an id in common.
pub(crate) fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    let end = |(first, length): (u32, u32)| u64::from(first) + u64::from(length);
    u64::from(a.0) < end(b) && u64::from(b.0) < end(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn parsed(text: &str) -> Result<Subids, Error> {
        parse("/etc/subuid", text, None)
    }

    #[test]
    fn the_ids_of_hull_come_before_those_of_podman_and_cri_o() {
        let both = "web:100000:65536\n\n# ours\ncontainers:200000:65536\nhull:1048576:131072\n";
        let of = parsed(both).unwrap();
        assert_eq!((of.user(), of.count()), ("hull", 2));
        assert_eq!(of.pick(&[]).unwrap(), 1_048_576);
        assert_eq!(parsed("containers:2147483647:2147483648\n").unwrap().count(), 32_768);
        assert_eq!(parse("f", both, Some("web")).unwrap().pick(&[]).unwrap(), 100_000);
        assert!(matches!(parse("f", both, Some("none")), Err(Error::NoLine { .. })));
        let said = parsed("web:100000:65536\n").unwrap_err().to_string();
        assert!(said.contains("user `hull` or user `containers`"), "{said}");
    }

    #[test]
    fn files_that_lie_give_no_ids() {
        for (text, says) in [
            ("hull:1048576:65536\nnonsense\n", "line 2, `nonsense`, is not NAME"),
            ("hull:1048576:65536:1\n", "line 1"),
            ("hull:1048576\n", "line 1"),
            ("hull:+1048576:65536\n", "line 1"),
            ("hull:-1:65536\n", "line 1"),
            ("hull:1048576:0\n", "line 1"),
            ("hull:4294967295:1\n", "line 1"),
            ("hull:4294901760:65536\n", "line 1"),
            (":1048576:65536\n", "line 1"),
            ("hull:99999999999:65536\n", "line 1"),
            ("hull:1048576:65536\n\u{1b}[31m\n", "\\u{1b}"),
            ("hull:1000:131072\n", "below 65536"),
            ("hull:1048576:65536\nweb:1114111:10\n", "lines 1 of `hull` and 2 of `web`"),
            ("web:1:4000000000\na:2:3\nhull:1048576:65536\n", "lines 1 of `web` and 3 of `hull`"),
            ("hull:1048576:65536\nhull:1048577:65536\n", "lines 1 of `hull` and 2 of `hull`"),
            ("hull:1048576:65535\nhull:2048576:7\n", "the longest has 65535"),
            ("", "no line"),
        ] {
            let err = parsed(text).unwrap_err();
            assert!(err.to_string().contains(says), "{text:?}: {err}");
            assert!(!err.to_string().contains('\u{1b}') && !err.hint().is_empty());
        }
        // Others may share with each other.
        parsed("a:1:9\nb:1:9\nhull:1048576:65536\nc:1114112:5\nd:1114112:5\n").unwrap();
    }

    #[test]
    fn only_regular_files_of_root_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subuid");
        let of = |path: &Path| Files { users: path, groups: path, user: None }.read();
        assert!(matches!(of(&path), Err(Error::File { .. })), "it is missing");
        assert!(matches!(of(dir.path()), Err(Error::File { .. })), "it is a directory");
        std::fs::write(&path, "hull:1048576:65536\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        mode(0o644).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(of(&path).unwrap().0.count(), 1);
        }
        mode(0o646).unwrap();
        let said = of(&path).unwrap_err().to_string();
        assert!(said.contains("others than root"), "{said}");
    }

    #[test]
    fn ranges_run_out() {
        let of = parsed("hull:1048576:131073\n").unwrap();
        let used = [(1_048_576, IDS), (1_114_112 + 65_535, 1)];
        let said = of.pick(&used).unwrap_err().to_string();
        assert!(said.contains("pods have all 2 ranges of user `hull`"), "{said}");
        assert_eq!(of.pick(&used[..1]).unwrap(), 1_114_112);
        assert_eq!(of.pick(&[(0, u32::MAX)]).ok(), None);
    }

    proptest! {
        /// For all ids that pods have, a picked range is the user's, and nobody's yet.
        #[test]
        fn a_picked_range_is_free_and_the_users(
            blocks in proptest::collection::vec((65_536..900_000u32, 1..400_000u32), 1..4),
            used in proptest::collection::vec((0..1_300_000u32, 1..200_000u32), 0..8),
        ) {
            let text: String =
                blocks.iter().map(|(first, count)| format!("hull:{first}:{count}\n")).collect();
            let Ok(of) = parsed(&text) else { return Ok(()) };
            if let Ok(first) = of.pick(&used) {
                prop_assert!(used.iter().all(|other| !overlap(*other, (first, IDS))));
                prop_assert!(blocks.iter().any(|(start, count)| *start <= first && first + IDS <= start + count));
            }
        }
    }
}
