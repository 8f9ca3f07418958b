// SPDX-License-Identifier: Apache-2.0
//! An entry of a tar archive, as the archive states it.

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
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// Where in the archive its bytes begin, and how many there are.
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// Where the bytes go, and how long the file is.
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
