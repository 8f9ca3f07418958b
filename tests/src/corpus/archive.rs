// SPDX-License-Identifier: Apache-2.0
//! Archives as the programs of builders write them, to the byte where readers could tell: the format, names as they
//! are, extended headers, and the end.
//!
//! ```text
//! Go's archive/tar    ustar, or PAX for what does not fit; ends with two blocks of zeros
//! bsdtar              the same
//! Python's tarfile    PAX or GNU; the end fills a record of 20 blocks
//! GNU tar             GNU; the end fills a record of 20 blocks
//! ```

use crate::expect::ExpectExt as _;
use std::ops::Range;
use tar::{EntryType, Header};

const BLOCK: usize = 512;
const RECORD: usize = 20 * BLOCK;
/// The longest name in a header.
const NAME_MAX: usize = 100;

/// An archive being written.
pub(super) struct Tar {
    bytes: Vec<u8>,
    is_gnu: bool,
    /// The name of extended headers; none for Go's, which have that of the entry.
    extended: Option<&'static str>,
    mtime: u64,
    owner: (u64, u64),
    /// The name of user and group.
    named: &'static str,
    /// Extended headers of the next entry.
    records: Vec<(String, Vec<u8>)>,
    entries: Vec<Written>,
}

/// An entry that was written.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) link: String,
    /// Where the content is in the archive.
    pub(super) content: Range<usize>,
}

impl Tar {
    /// An archive by Go's archive/tar or bsdtar.
    pub(super) fn ustar() -> Self {
        Self {
            bytes: Vec::new(),
            is_gnu: false,
            extended: None,
            mtime: 0,
            owner: (0, 0),
            named: "",
            records: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// An archive in GNU's format.
    pub(super) fn gnu() -> Self {
        Self { is_gnu: true, ..Self::ustar() }
    }

    /// An archive in PAX format by Python.
    pub(super) fn python() -> Self {
        Self { extended: Some("././@PaxHeader"), ..Self::ustar() }
    }

    /// Continues an archive without its end, as `tar -r` does.
    pub(super) fn after(mut self, bytes: &[u8]) -> Self {
        self.bytes = bytes.to_vec();
        self
    }

    /// Sets the time of the entries that follow, in seconds since the epoch.
    pub(super) fn at(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }

    /// Sets the owner of the entries that follow.
    pub(super) fn of(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Sets the name of user and group of the entries that follow.
    pub(super) fn named(self, named: &'static str) -> Self {
        Self { named, ..self }
    }

    /// Sets extended headers of the next entry.
    pub(super) fn records(mut self, records: &[(&str, &[u8])]) -> Self {
        let owned = records.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec()));
        self.records.extend(owned);
        self
    }

    pub(super) fn dir(self, name: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, name, mode, "", b"", (0, 0))
    }

    pub(super) fn file(self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.add(EntryType::Regular, name, mode, "", content.as_ref(), (0, 0))
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, 0o777, target, b"", (0, 0))
    }

    pub(super) fn hard_link(self, name: &str, mode: u32, target: &str) -> Self {
        self.add(EntryType::Link, name, mode, target, b"", (0, 0))
    }

    pub(super) fn char_device(self, name: &str, mode: u32, numbers: (u32, u32)) -> Self {
        self.add(EntryType::Char, name, mode, "", b"", numbers)
    }

    /// Adds a whiteout as Go programs do that give a name and nothing else: no mode, no time.
    pub(super) fn bare_whiteout(self, name: &str) -> Self {
        let mtime = self.mtime;
        self.at(0).file(name, 0, "").at(mtime)
    }

    fn add(
        mut self,
        kind: EntryType,
        name: &str,
        mode: u32,
        link: &str,
        content: &[u8],
        (major, minor): (u32, u32),
    ) -> Self {
        if name.len() > NAME_MAX {
            self.records.push(("path".to_owned(), name.as_bytes().to_vec()));
        }
        self.extend(name);
        let mut header = self.header(kind, name, content.len());
        header.set_mode(mode);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        // GNU tar leaves out the numbers of a device for what is not one; the others write zeros.
        if !self.is_gnu || kind == EntryType::Char {
            header.set_device_major(major).or_fail("write an archive");
            header.set_device_minor(minor).or_fail("write an archive");
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        let start = self.bytes.len();
        self.bytes.extend_from_slice(content);
        let content = start..self.bytes.len();
        self.pad(BLOCK);
        let (name, link) = (name.to_owned(), link.to_owned());
        self.entries.push(Written { name, kind, mode, link, content });
        self
    }

    /// A header without mode, link and checksum.
    fn header(&self, kind: EntryType, name: &str, bytes: usize) -> Header {
        let mut header = if self.is_gnu { Header::new_gnu() } else { Header::new_ustar() };
        header.set_entry_type(kind);
        header.set_size(bytes as u64);
        header.set_mtime(self.mtime);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_username(self.named).or_fail("write an archive");
        header.set_groupname(self.named).or_fail("write an archive");
        let kept = name.len().min(NAME_MAX);
        header.as_old_mut().name[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        header
    }

    /// Writes the extended headers of the entry `name`.
    fn extend(&mut self, name: &str) {
        let mut records = std::mem::take(&mut self.records);
        if records.is_empty() {
            return;
        }
        records.sort();
        let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let by_go = format!("PaxHeaders.0/{last}");
        let (mtime, owner) = (std::mem::take(&mut self.mtime), std::mem::take(&mut self.owner));
        let named = std::mem::take(&mut self.named);
        let mut header =
            self.header(EntryType::XHeader, self.extended.unwrap_or(&by_go), text.len());
        (self.mtime, self.owner, self.named) = (mtime, owner, named);
        header.set_mode(0);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(&text);
        self.pad(BLOCK);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn entries(&self) -> &[Written] {
        &self.entries
    }

    /// The archive without its end.
    pub(super) fn open_end(&self) -> &[u8] {
        &self.bytes
    }

    /// The archive, ending with two blocks of zeros.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.extend([0; 2 * BLOCK]);
        self.bytes
    }

    /// The archive, its last record filled with zeros.
    pub(super) fn end_of_record(mut self) -> Vec<u8> {
        self.bytes.extend([0; 2 * BLOCK]);
        self.pad(RECORD);
        self.bytes
    }
}

/// A record of an extended header: `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A file capability in version 2 (`struct vfs_cap_data`, capabilities(7)), permitted and effective.
pub(super) fn file_capability(number: u32) -> Vec<u8> {
    let words = [0x0200_0001_u32, 1 << number, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
