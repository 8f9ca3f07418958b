// SPDX-License-Identifier: Apache-2.0
//! Makes stacks of layers: files of every type, and upper layers that change, hide and replace what is below.

use hull_tests::random::Random;
use std::collections::BTreeSet;
use std::path::PathBuf;
use tar::{Builder, EntryType, Header};

/// The layers of an image, their entries in words, and their traits.
pub(super) struct Generated {
    pub(super) layers: Vec<Vec<u8>>,
    pub(super) notes: Vec<String>,
    pub(super) traits: Traits,
}

/// Traits of the entries that explain differences.
#[derive(Debug, Clone, Default)]
pub(super) struct Traits {
    /// Names that one layer both removes and has.
    pub(super) removed_and_there: BTreeSet<PathBuf>,
    /// Files that a hard link with metadata of its own names, and such links.
    pub(super) links: BTreeSet<PathBuf>,
    /// Names that a layer lists as directories and then as something else.
    pub(super) were_directories: BTreeSet<PathBuf>,
    /// Names that a layer lists as something else and then as directories.
    pub(super) became_directories: BTreeSet<PathBuf>,
    /// Directories in which a layer hides what is below.
    pub(super) opaque: BTreeSet<PathBuf>,
    /// Whether a layer hides all layers below.
    pub(super) hides_all: bool,
    /// Whether a layer lists its root.
    pub(super) lists_root: bool,
}

const PARTS: [&str; 8] = ["a", "b", "c", "d e", "caf\u{e9}", "UPPER", ".hidden", "x%41=y"];
const LAYERS_MAX: usize = 5;
const ENTRIES_MAX: usize = 12;

/// A file that an earlier entry made.
#[derive(Clone)]
struct Known {
    path: String,
    kind: EntryType,
    layer: usize,
}

struct Maker<'a> {
    random: &'a mut Random,
    known: Vec<Known>,
    layer: usize,
    tar: Builder<Vec<u8>>,
    /// Names that the current layer has, and those that it removes.
    own: BTreeSet<String>,
    removed: BTreeSet<String>,
    notes: Vec<String>,
    traits: Traits,
}

/// Makes an image.
pub(super) fn image(random: &mut Random) -> Generated {
    let count = 1 + random.below(LAYERS_MAX);
    let mut maker = Maker {
        random,
        known: Vec::new(),
        layer: 0,
        tar: Builder::new(Vec::new()),
        own: BTreeSet::new(),
        removed: BTreeSet::new(),
        notes: Vec::new(),
        traits: Traits::default(),
    };
    let mut layers = Vec::new();
    for layer in 0..count {
        maker.layer = layer;
        maker.notes.push(format!("layer {layer}"));
        if maker.random.once_in(6) {
            maker.root();
        }
        for _ in 0..2 + maker.random.below(ENTRIES_MAX) {
            maker.entry();
        }
        let tar = std::mem::replace(&mut maker.tar, Builder::new(Vec::new()));
        layers.push(tar.into_inner().unwrap());
        let both = maker.own.intersection(&maker.removed);
        maker.traits.removed_and_there.extend(both.map(PathBuf::from));
        maker.own.clear();
        maker.removed.clear();
    }
    Generated { layers, notes: maker.notes, traits: maker.traits }
}

impl Maker<'_> {
    fn root(&mut self) {
        self.traits.lists_root = true;
        let mut header = self.header(EntryType::Directory, 0);
        header.set_path("./").unwrap();
        self.put(header, &[], &[], "./");
    }

    fn header(&mut self, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        let mode = *self.random.pick(&[
            0o644, 0o755, 0o600, 0o700, 0o4755, 0o2755, 0o1777, 0o6711, 0o444, 0o000, 0o777,
        ]);
        header.set_mode(mode);
        header.set_uid(*self.random.pick(&[0, 0, 0, 1, 1000, 65_534, 2_000_000]));
        header.set_gid(*self.random.pick(&[0, 0, 5, 1000, 65_534]));
        header.set_size(size);
        header.set_mtime(*self.random.pick(&[0, 1, 1_000_000_000, 1_700_000_000]));
        header
    }

    /// Adds an entry with a name of any length and further records.
    fn put(&mut self, mut header: Header, records: &[(String, Vec<u8>)], data: &[u8], path: &str) {
        let mut records = records.to_vec();
        if path.len() <= 100 {
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        } else {
            records.push(("path".into(), path.as_bytes().to_vec()));
            header.set_path("long").unwrap();
        }
        header.set_cksum();
        let shown: Vec<String> =
            records.iter().map(|(key, value)| format!("{key}={}", value.escape_ascii())).collect();
        self.notes.push(format!(
            "{:?} {path:?} {:o} {}:{} {}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            shown.join(" ")
        ));
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(records).unwrap();
        }
        self.tar.append(&header, data).unwrap();
    }

    /// A new name, mostly in a directory that is there.
    fn name(&mut self) -> String {
        let directories: Vec<String> = self.of_kind(EntryType::Directory);
        let part = if self.random.once_in(15) {
            "long".repeat(30 + self.random.below(33))
        } else {
            (*self.random.pick(&PARTS)).to_owned()
        };
        let above = match self.random.below(8) {
            0..=4 if !directories.is_empty() => self.random.pick(&directories).clone(),
            5 => format!("{}/{}", self.random.pick(&PARTS), self.random.pick(&PARTS)),
            _ => return part,
        };
        let path = format!("{above}/{part}");
        // Both refuse most of those, so only some are tried.
        let is_file = |of: &Known| {
            let beneath = path.strip_prefix(of.path.as_str());
            of.kind != EntryType::Directory && beneath.is_some_and(|rest| rest.starts_with('/'))
        };
        if self.known.iter().any(is_file) && !self.random.once_in(8) {
            return part;
        }
        path
    }

    fn of_kind(&self, kind: EntryType) -> Vec<String> {
        let of = self.known.iter().filter(|known| known.kind == kind);
        of.map(|known| known.path.clone()).collect()
    }

    /// The path as it is written.
    fn written(&mut self, path: &str) -> String {
        match self.random.below(6) {
            0 => format!("./{path}"),
            1 => format!("/{path}"),
            _ => path.to_owned(),
        }
    }

    fn entry(&mut self) {
        let is_upper = self.layer > 0;
        match self.random.below(if is_upper { 20 } else { 14 }) {
            0..=4 => self.file(),
            5..=8 => self.directory(),
            9 | 10 => self.symlink(),
            11 => self.hard_link(),
            12 => self.device(),
            13 => self.sparse(),
            14..=16 => self.whiteout(),
            17 => self.opaque(),
            // A name of a lower layer again.
            _ => {
                let known: Vec<String> = self.known.iter().map(|of| of.path.clone()).collect();
                if known.is_empty() {
                    return self.file();
                }
                let path = self.random.pick(&known).clone();
                let kind = *self.random.pick(&[EntryType::Regular, EntryType::Directory]);
                self.make(&path, kind);
            }
        }
    }

    fn know(&mut self, path: &str, kind: EntryType) {
        self.own.insert(path.to_owned());
        let layer = self.layer;
        let beneath = format!("{path}/");
        let is_directory = |of: &Known| {
            let is_there = of.path == path || of.path.starts_with(&beneath);
            is_there && of.layer == layer && of.kind == EntryType::Directory
        };
        if kind != EntryType::Directory && self.known.iter().any(is_directory) {
            self.traits.were_directories.insert(PathBuf::from(path));
        }
        let is_other = |of: &Known| {
            let is_above = path.strip_prefix(&of.path).is_some_and(|rest| rest.starts_with('/'));
            let is_same = of.path == path && kind == EntryType::Directory;
            (is_above || is_same) && of.layer == layer && of.kind != EntryType::Directory
        };
        let others = self.known.iter().filter(|of| is_other(of));
        self.traits.became_directories.extend(others.map(|of| PathBuf::from(&of.path)));
        self.known.retain(|known| known.path != path);
        self.known.push(Known { path: path.to_owned(), kind, layer });
    }

    fn make(&mut self, path: &str, kind: EntryType) {
        let mut records = self.records();
        let mut data = Vec::new();
        if kind == EntryType::Regular {
            let size = *self.random.pick(&[0, 1, 511, 512, 5000, 70_000]);
            data = (0..size).map(|_| u8::try_from(self.random.below(256)).unwrap()).collect();
            if self.random.once_in(8) {
                // VFS_CAP_REVISION_2, effective, permitted: cap_net_bind_service.
                let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
                capability.resize(20, 0);
                records.push(("SCHILY.xattr.security.capability".into(), capability));
            }
        }
        let header = self.header(kind, data.len() as u64);
        let mut written = self.written(path);
        if kind == EntryType::Directory {
            written.push('/');
        }
        self.put(header, &records, &data, &written);
        self.know(path, kind);
    }

    fn records(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut records = Vec::new();
        if self.random.once_in(5) {
            let times = ["1234567890.123456789", "-5.75", "77", "1.5"];
            let time = self.random.pick(&times).as_bytes().to_vec();
            records.push(("mtime".into(), time));
        }
        if self.random.once_in(6) {
            records.push(("SCHILY.xattr.user.one".into(), b"value\n\xff".to_vec()));
        }
        if self.random.once_in(12) {
            records.push(("uid".into(), b"3000000000".to_vec()));
        }
        records
    }

    fn file(&mut self) {
        let path = self.name();
        self.make(&path, EntryType::Regular);
    }

    fn directory(&mut self) {
        let path = self.name();
        self.make(&path, EntryType::Directory);
    }

    fn symlink(&mut self) {
        let path = self.name();
        let known: Vec<String> = self.known.iter().map(|of| of.path.clone()).collect();
        let target = match self.random.below(4) {
            0 | 1 if !known.is_empty() => format!("/{}", self.random.pick(&known)),
            2 => "../nowhere".to_owned(),
            _ => "t".repeat(1 + self.random.below(99)),
        };
        let mut header = self.header(EntryType::Symlink, 0);
        let target = &target[..target.floor_char_boundary(100)];
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.notes.push(format!("to {target:?}"));
        self.put(header, &[], &[], &path);
        self.know(&path, EntryType::Symlink);
    }

    fn hard_link(&mut self) {
        let is_file = |of: &&Known| of.kind == EntryType::Regular && of.path.len() <= 100;
        let files: Vec<Known> = self.known.iter().filter(is_file).cloned().collect();
        if files.is_empty() {
            return self.file();
        }
        let target = self.random.pick(&files).clone();
        let path = self.name();
        if path == target.path || self.removed.contains(&target.path) {
            return;
        }
        let mut header = self.header(EntryType::Link, 0);
        let written = self.written(&target.path);
        let written = if written.len() > 100 { target.path.clone() } else { written };
        header.as_old_mut().linkname[..written.len()].copy_from_slice(written.as_bytes());
        self.notes.push(format!("to {written:?} of layer {}", target.layer));
        self.put(header, &[], &[], &path);
        self.traits.links.insert(PathBuf::from(&path));
        self.traits.links.insert(PathBuf::from(&target.path));
        self.know(&path, EntryType::Regular);
    }

    fn device(&mut self) {
        let path = self.name();
        let kind = *self.random.pick(&[EntryType::Char, EntryType::Block, EntryType::Fifo]);
        let mut header = self.header(kind, 0);
        if kind != EntryType::Fifo {
            header.set_device_major(1 + u32::try_from(self.random.below(200)).unwrap()).unwrap();
            header.set_device_minor(u32::try_from(self.random.below(200)).unwrap()).unwrap();
        }
        self.put(header, &[], &[], &path);
        self.know(&path, kind);
    }

    /// GNU's form 1.0 in an extended header.
    fn sparse(&mut self) {
        let path = self.name();
        let (hole, bytes) = (512 * (1 + self.random.below(500)), 512 * (1 + self.random.below(4)));
        let length = hole + bytes + 512 * self.random.below(3);
        let mut map = format!("2\n{hole}\n{bytes}\n{length}\n0\n").into_bytes();
        map.resize(512, 0);
        map.resize(512 + bytes, b's');
        let records = [
            ("major", "1".to_owned()),
            ("minor", "0".to_owned()),
            ("name", path.clone()),
            ("realsize", length.to_string()),
        ];
        let records = records.map(|(key, value)| (format!("GNU.sparse.{key}"), value.into_bytes()));
        let header = self.header(EntryType::Regular, map.len() as u64);
        self.put(header, &records, &map, "GNUSparseFile.0/f");
        self.know(&path, EntryType::Regular);
    }

    fn whiteout(&mut self) {
        let lower = |of: &&Known| of.layer < self.layer;
        let lower: Vec<String> =
            self.known.iter().filter(lower).map(|of| of.path.clone()).collect();
        let path = if lower.is_empty() || self.random.once_in(8) {
            self.name()
        } else {
            self.random.pick(&lower).clone()
        };
        let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
        if last.len() > 200 || self.removed.contains(&path) {
            return;
        }
        let slash = if above.is_empty() { "" } else { "/" };
        let written = format!("{above}{slash}.wh.{last}");
        let header = self.header(EntryType::Regular, 0);
        self.put(header, &[], &[], &written);
        self.removed.insert(path.clone());
        let beneath = format!("{path}/");
        let layer = self.layer;
        self.known
            .retain(|of| of.layer == layer || (of.path != path && !of.path.starts_with(&beneath)));
    }

    fn opaque(&mut self) {
        let directories = self.of_kind(EntryType::Directory);
        if directories.is_empty() {
            return;
        }
        let header = self.header(EntryType::Regular, 0);
        if self.random.once_in(4) {
            self.traits.hides_all = true;
            self.put(header, &[], &[], ".wh..wh..opq");
            let layer = self.layer;
            return self.known.retain(|of| of.layer == layer);
        }
        let path = self.random.pick(&directories).clone();
        self.put(header, &[], &[], &format!("{path}/.wh..wh..opq"));
        self.traits.opaque.insert(PathBuf::from(&path));
        let (beneath, layer) = (format!("{path}/"), self.layer);
        self.known.retain(|of| of.layer == layer || !of.path.starts_with(&beneath));
    }
}
