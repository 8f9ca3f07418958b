// SPDX-License-Identifier: Apache-2.0
//! An entry of a tar archive, as its headers describe it.

use super::pax::Xattr;

/// An entry of an archive. Its bytes are read from [`Archive::data`](super::Archive::data).
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    pub(crate) xattrs: Vec<Xattr>,
    /// The offset of its data in the archive, and the size of the data.
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// The data segments, and the length of the file.
    Sparse {
        map: Vec<(u64, u64)>,
        length: u64,
    },
    Directory,
    Symlink(Vec<u8>),
    Link(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}
