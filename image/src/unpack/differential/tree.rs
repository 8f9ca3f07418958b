// SPDX-License-Identifier: Apache-2.0
//! Compares two trees: path, type, mode, owner, time, content, links, devices and extended attributes.

use rustix::fs::{lgetxattr, llistxattr};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

#[derive(PartialEq, Eq)]
struct Node {
    kind: String,
    is_directory: bool,
    mode: u32,
    owner: (u32, u32),
    /// None for a directory that no entry lists: it has the time at which it was made.
    time: Option<(i64, i64)>,
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    fn shown(&self) -> String {
        let Self { kind, is_directory: _, mode, owner, time, content, xattrs } = self;
        let start = content[..content.len().min(60)].escape_ascii();
        let bytes = content.len();
        format!("{kind} {mode:o} {owner:?} {time:?} {xattrs:?}, {bytes} bytes: {start}")
    }
}

/// An error with all differences.
pub(super) fn same(one: &Path, other: &Path, loose: &BTreeSet<PathBuf>) -> Result<(), String> {
    let (mut one, mut other) = (nodes(one), nodes(other));
    for tree in [&mut one, &mut other] {
        tree.retain(|path, _| !loose.contains(path));
    }
    for (path, node) in &mut one {
        // No generated entry has the time of now. GNU tar leaves it at directories that no entry lists, and at
        // those into which a later entry went under another spelling of their name.
        if let Some(twin) = other.get_mut(path)
            && node.is_directory
            && node.time.is_some_and(|(seconds, _)| is_now(seconds))
        {
            (node.time, twin.time) = (None, None);
            // One that no entry lists, in a directory with set-group-id, which the kernel hands on.
            if node.mode == 0o2755 {
                (node.mode, node.owner) = (0o755, twin.owner);
            }
        }
    }
    let paths: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter(|path| one.get(*path) != other.get(*path))
        .map(|path| {
            let shown = |of: Option<&Node>| of.map_or_else(|| "nothing".to_owned(), Node::shown);
            format!(
                "{path:?}\n  GNU tar {}\n  Hull    {}",
                shown(one.get(path)),
                shown(other.get(path))
            )
        })
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}

fn is_now(seconds: i64) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap().abs_diff(seconds) < 3600
}

fn nodes(root: &Path) -> BTreeMap<PathBuf, Node> {
    let (mut nodes, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let stat = fs::symlink_metadata(&path).unwrap();
            let inside = path.strip_prefix(root).unwrap().to_owned();
            let kind = stat.file_type();
            let mut content = Vec::new();
            if kind.is_file() {
                content = fs::read(&path).unwrap();
            } else if kind.is_symlink() {
                content = fs::read_link(&path).unwrap().into_os_string().into_vec();
            } else if kind.is_block_device() || kind.is_char_device() {
                content = stat.rdev().to_string().into_bytes();
            }
            if kind.is_dir() {
                left.push(path.clone());
            }
            let mut name = format!("{kind:?}");
            if !kind.is_dir() && stat.nlink() > 1 {
                name += &format!(" of {} names", stat.nlink());
            }
            nodes.insert(
                inside,
                Node {
                    kind: name,
                    is_directory: kind.is_dir(),
                    mode: stat.mode() & 0o7777,
                    owner: (stat.uid(), stat.gid()),
                    time: Some((stat.mtime(), stat.mtime_nsec())),
                    content,
                    xattrs: xattrs(&path),
                },
            );
        }
    }
    nodes
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 64 << 10];
    let length = llistxattr(path, list.as_mut_slice()).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user."));
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let name_text = OsString::from_vec(name.to_vec());
            let length = lgetxattr(path, &name_text, value.as_mut_slice()).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect();
    all.sort();
    all
}
