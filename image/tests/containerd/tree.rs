// SPDX-License-Identifier: Apache-2.0
//! A tree as a container sees it, and the differences of two trees.

use hull_tests::image::digest;
use rustix::fs::{lgetxattr, llistxattr};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// A file of a tree with its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: &'static str,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, i64),
    pub(super) device: u64,
    pub(super) size: u64,
    /// The digest of a file, the target of a link.
    pub(super) content: String,
    /// The first name of the same file.
    pub(super) first: PathBuf,
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
}

/// All files, by their paths.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<PathBuf, Node>,
}

/// A property of a path that differs: its name, Hull's value and containerd's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) property: &'static str,
    pub(super) hull: String,
    pub(super) containerd: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} in Hull, {} in containerd", self.property, self.hull, self.containerd)
    }
}

/// The differences of two trees, by paths.
pub(super) fn differences(hull: &Tree, containerd: &Tree) -> Vec<(PathBuf, Vec<Difference>)> {
    let paths: BTreeSet<&PathBuf> = hull.nodes.keys().chain(containerd.nodes.keys()).collect();
    let of = |path: &PathBuf| match (hull.nodes.get(path), containerd.nodes.get(path)) {
        (Some(one), Some(other)) => of_nodes(one, other),
        (one, other) => {
            let shown = |of: Option<&Node>| of.map_or("nothing", |of| of.kind).to_owned();
            vec![Difference { property: "path", hull: shown(one), containerd: shown(other) }]
        }
    };
    let all = paths.into_iter().map(|path| (path.clone(), of(path)));
    all.filter(|(_, differences)| !differences.is_empty()).collect()
}

fn of_nodes(one: &Node, other: &Node) -> Vec<Difference> {
    let properties: [(&'static str, String, String); 9] = [
        ("kind", one.kind.into(), other.kind.into()),
        ("mode", format!("{:o}", one.mode), format!("{:o}", other.mode)),
        ("owner", format!("{:?}", one.owner), format!("{:?}", other.owner)),
        ("mtime", time(one.mtime), time(other.mtime)),
        ("device", one.device.to_string(), other.device.to_string()),
        ("size", one.size.to_string(), other.size.to_string()),
        ("content", one.content.clone(), other.content.clone()),
        ("first", format!("{:?}", one.first), format!("{:?}", other.first)),
        ("xattrs", format!("{:?}", one.xattrs), format!("{:?}", other.xattrs)),
    ];
    let differ = properties.into_iter().filter(|(_, one, other)| one != other);
    differ.map(|(property, hull, containerd)| Difference { property, hull, containerd }).collect()
}

/// A time; that of a directory that no entry lists is that of the pull.
fn time((seconds, nanoseconds): (i64, i64)) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    if i64::try_from(now.as_secs()).unwrap().abs_diff(seconds) < 3600 {
        return "now".into();
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// Reads a tree.
pub(super) fn read(root: &Path) -> Tree {
    let (mut tree, mut firsts) = (Tree::default(), BTreeMap::new());
    let mut left = vec![PathBuf::new()];
    while let Some(inside) = left.pop() {
        let path = root.join(&inside);
        // The root's path is a link to it.
        let path = if inside.as_os_str().is_empty() { path.join(".") } else { path };
        // The kernel lists whiteouts in a directory that only one layer has, and finds nothing there.
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        let kind = stat.file_type();
        let mut content = String::new();
        if kind.is_file() {
            content = digest(&fs::read(&path).unwrap());
        } else if kind.is_symlink() {
            content = fs::read_link(&path).unwrap().display().to_string();
        } else if kind.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            left.extend(names.into_iter().rev().map(|name| inside.join(name)));
        }
        let first = match firsts.entry(stat.ino()) {
            _ if kind.is_dir() => inside.clone(),
            std::collections::btree_map::Entry::Vacant(free) => free.insert(inside.clone()).clone(),
            std::collections::btree_map::Entry::Occupied(first) => first.get().clone(),
        };
        let node = Node {
            kind: match () {
                () if kind.is_file() => "file",
                () if kind.is_dir() => "directory",
                () if kind.is_symlink() => "symlink",
                () if kind.is_char_device() => "character device",
                () if kind.is_block_device() => "block device",
                () => "fifo",
            },
            mode: stat.mode() & 0o7777,
            owner: (stat.uid(), stat.gid()),
            mtime: (stat.mtime(), stat.mtime_nsec()),
            device: stat.rdev(),
            size: if kind.is_dir() { 0 } else { stat.size() },
            content,
            first,
            xattrs: xattrs(&path),
        };
        tree.nodes.insert(inside, node);
    }
    tree
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = llistxattr(path, list.as_mut_slice()).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let of = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let text = OsString::from_vec(name.to_vec());
        let length = lgetxattr(path, &text, value.as_mut_slice()).unwrap();
        value.truncate(length);
        (String::from_utf8_lossy(name).into_owned(), value)
    };
    names.map(of).collect()
}
