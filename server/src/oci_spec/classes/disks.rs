// SPDX-License-Identifier: Apache-2.0
//! Disks by patterns of their paths, as in `/dev/sd*` or `/dev/disk/by-id/*SSD*`: `glob(7)`, component by component.

use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Most paths that a pattern may stand for on its way.
const PATHS_MAX: usize = 4096;
/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

/// Major and minor number of a disk.
pub(super) type Number = (u32, u32);

/// Checks a pattern without looking for disks.
///
/// # Errors
/// The sentence says what is wrong with it.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let parts = parts(pattern)?;
    if parts.iter().any(|part| matches!(part, Part::Name(name) if name == "..")) {
        return Err(format!("`{pattern}` has `..` in it"));
    }
    Ok(())
}

/// The disks that a pattern stands for. Partitions and other devices are left out: the kernel limits whole disks.
pub(super) fn matching(pattern: &str) -> BTreeSet<Number> {
    expand(pattern).iter().filter_map(|path| disk(path)).collect()
}

fn disk(path: &Path) -> Option<Number> {
    // Names below /dev/disk are links.
    let found = fs::metadata(path).ok().filter(|of| of.file_type().is_block_device())?;
    let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    let of_kernel = PathBuf::from(format!("/sys/dev/block/{}:{}", number.0, number.1));
    let is_whole =
        fs::metadata(&of_kernel).is_ok() && fs::metadata(of_kernel.join("partition")).is_err();
    is_whole.then_some(number)
}

/// A component of a pattern.
enum Part {
    Name(String),
    Pattern(Regex),
}

fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("a pattern of devices is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let Some(rest) = pattern.strip_prefix("/dev/") else {
        return Err(format!("`{pattern}` is not a path below /dev"));
    };
    let dev = std::iter::once(Ok(Part::Name("dev".into())));
    let rest = rest.split('/').filter(|part| !matches!(*part, "" | "."));
    let rest = rest.map(|part| component(part).map_err(|why| format!("`{pattern}`: {why}")));
    dev.chain(rest).collect()
}

fn component(text: &str) -> Result<Part, String> {
    if !text.contains(['*', '?', '[', '\\']) {
        return Ok(Part::Name(text.into()));
    }
    let mut expression = String::from("^");
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => expression.push_str(&set(&mut rest)?),
            '\\' => {
                let escaped = rest.next().ok_or("it ends with a backslash")?;
                expression.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    let compiled = Regex::new(&expression);
    compiled.map(Part::Pattern).map_err(|_| "it has an invalid set `[…]`".to_owned())
}

/// A set of letters, after its `[`, as a regular expression.
fn set(rest: &mut std::str::Chars<'_>) -> Result<String, String> {
    let mut set = String::from("[");
    let mut letters = 0;
    while let Some(letter) = rest.next() {
        match letter {
            ']' if letters > 0 => return Ok(set + "]"),
            '^' | '!' if set == "[" => set.push('^'),
            '-' => {
                set.push('-');
                letters += 1;
            }
            '\\' => {
                let escaped = rest.next().ok_or("it ends with a backslash")?;
                set.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                letters += 1;
            }
            other => {
                set.push_str(&regex::escape(other.encode_utf8(&mut [0; 4])));
                letters += 1;
            }
        }
    }
    Err("it has a `[` without a `]`".into())
}

/// The paths that a pattern stands for, in order; none of one that is invalid.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in parts(pattern).unwrap_or_default() {
        found = match part {
            Part::Name(name) => found.iter().map(|at| at.join(&name)).collect(),
            Part::Pattern(of) => found.iter().flat_map(|at| entries(at, &of)).collect(),
        };
        found.truncate(PATHS_MAX);
    }
    found
}

fn entries(at: &Path, pattern: &Regex) -> Vec<PathBuf> {
    let entries = fs::read_dir(at).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| pattern.is_match(name)).collect();
    names.sort();
    names.into_iter().map(|name| at.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        match component(pattern).unwrap() {
            Part::Name(own) => own == name,
            Part::Pattern(of) => of.is_match(name),
        }
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, yes, no) in [
            ("sda", "sda", "sdaa"),
            ("sd*", "sdaa", "vda"),
            ("sd?", "sdb", "sdab"),
            ("sd[a-c]", "sdb", "sdd"),
            ("sd[^a]", "sdb", "sda"),
            ("sd[]x]", "sd]", "sda"),
            ("*SSD*", "ata-SSD-1", "ata-ssd"),
            ("a.b[+.]", "a.b+", "axb+"),
            ("sd\\*", "sd*", "sda"),
            ("[a&&b]*", "&x", "c"),
        ] {
            assert!(matches(pattern, yes) && !matches(pattern, no), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_one_of_a_disk_is_refused() {
        for (pattern, said) in [
            ("sd*", "below /dev"),
            ("/devices/x", "below /dev"),
            ("/dev/../etc/x", "`..`"),
            ("/dev/sd[a", "without a `]`"),
            ("/dev/sd[b-a]", "invalid set"),
            ("/dev/x\\", "backslash"),
        ] {
            let why = check(pattern).unwrap_err();
            assert!(why.contains(said), "{pattern}: {why}");
        }
        check(&format!("/dev/{}", "x".repeat(PATTERN_BYTES_MAX))).unwrap_err();
        check("/dev/disk/by-id/*SSD*").unwrap();
    }

    #[test]
    fn only_whole_disks_match() {
        assert!(matching("/dev/null").is_empty(), "a character device");
        assert!(matching("/dev/no-such-disk*").is_empty());
        let listed: BTreeSet<_> = fs::read_dir("/sys/block")
            .unwrap()
            .flatten()
            .filter_map(|of| of.file_name().into_string().ok())
            .filter(|name| fs::metadata(format!("/dev/{name}")).is_ok())
            .collect();
        assert_eq!(matching("/dev/*").len(), listed.len(), "{listed:?}");
    }
}
