// SPDX-License-Identifier: Apache-2.0
//! An entry of a tar archive, as its headers describe it.

use super::pax::Xattr;
use crate::file_list::NodeKind;
use rustix::fs::FileType;

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

impl Kind {
    /// The type of the file for a device or a FIFO, and its entry in a file list. Other types have no node.
    pub(super) fn node(&self) -> (FileType, NodeKind) {
        match *self {
            // A device of these numbers is a mark of overlayfs, wherever it comes from.
            Self::Char(0, 0) => (FileType::CharacterDevice, NodeKind::Whiteout),
            Self::Char(major, minor) => (FileType::CharacterDevice, NodeKind::Char(major, minor)),
            Self::Block(major, minor) => (FileType::BlockDevice, NodeKind::Block(major, minor)),
            Self::Fifo
            | Self::File
            | Self::Sparse { .. }
            | Self::Directory
            | Self::Symlink(_)
            | Self::Link(_) => (FileType::Fifo, NodeKind::Fifo),
        }
    }
}
