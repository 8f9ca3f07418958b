// SPDX-License-Identifier: Apache-2.0
//! One entry of a file list, and its binary form: a tag, then fields; numbers as LEB128, bytes with
//! a length prefix.
//!
//! Pure. The rule: a length is checked against its limit before memory is allocated.

use rustix::fs::Stat;
use std::io::{self, Read, Write};

/// The longest field: an extended header, with some reserve.
const FIELD_BYTES_MAX: u64 = 4 << 20;
/// The first bytes of a file list. The number is its version; older versions stay readable.
pub(super) const MAGIC: &[u8] = b"hull layer inventory 3\n";
pub(super) const MAGIC_SECOND: &[u8] = b"hull layer inventory 2\n";
pub(super) const MAGIC_FIRST: &[u8] = b"hull layer inventory 1\n";
/// The largest number of data segments of a sparse file, as in archives.
const PIECES_MAX: u64 = 1 << 20;

/// An entry of a file list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes of the archive that are not content: headers, padding, the end.
    Raw(Vec<u8>),
    /// A file of any type, with its cleaned path. Hard links have no metadata of their own, and version 1
    /// had no metadata at all.
    Entry { path: Vec<u8>, kind: NodeKind, metadata: Option<Metadata> },
    /// The path of a directory that the archive implies but does not list. These follow all entries.
    Implied(Vec<u8>),
    /// The last entry. Exact: the archive can be rebuilt from the list.
    End { entries: u64, exact: bool },
}

/// The owner, group and mode (twelve bits) of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Metadata {
    /// The metadata of a file as it is.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
    }
}

/// The version of a file list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Without metadata and without implicit parent directories.
    V1,
    /// With metadata and implicit parent directories; since version 3 these are named too.
    V2,
}

/// The type of a file, with what is specific to the type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeKind {
    /// A regular file, whose content is at this place of the archive.
    File {
        size: u64,
        digest: [u8; 32],
    },
    /// A file with holes; the digest is that of its data segments, concatenated.
    Sparse {
        length: u64,
        map: Vec<(u64, u64)>,
        digest: [u8; 32],
    },
    Directory,
    Symlink(Vec<u8>),
    /// The same file as another one of the layer.
    Link(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// A whiteout of overlayfs: it hides this name of the layers below.
    Whiteout,
}

impl NodeKind {
    /// The number of content bytes at this place of the archive.
    pub(crate) fn content(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Sparse { map, .. } => {
                map.iter().fold(0, |sum, (_, bytes)| u64::saturating_add(sum, *bytes))
            }
            Self::Directory
            | Self::Symlink(_)
            | Self::Link(_)
            | Self::Char(..)
            | Self::Block(..)
            | Self::Fifo
            | Self::Whiteout => 0,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::File { .. } => b'f',
            Self::Sparse { .. } => b's',
            Self::Directory => b'd',
            Self::Symlink(_) => b'l',
            Self::Link(_) => b'h',
            Self::Char(..) => b'c',
            Self::Block(..) => b'b',
            Self::Fifo => b'p',
            Self::Whiteout => b'w',
        }
    }
}

const RAW: u8 = b'R';
const IMPLIED: u8 = b'I';
const END: u8 = b'E';

impl Item {
    /// Writes the entry, in version 3.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Raw(bytes) => {
                to.write_all(&[RAW])?;
                field(to, bytes)
            }
            Self::Implied(path) => {
                to.write_all(&[IMPLIED])?;
                field(to, path)
            }
            Self::End { entries, exact } => {
                to.write_all(&[END])?;
                number(to, *entries)?;
                to.write_all(&[u8::from(*exact)])
            }
            Self::Entry { path, kind, metadata } => {
                to.write_all(&[kind.tag()])?;
                field(to, path)?;
                write_kind(kind, to)?;
                write_metadata(metadata.as_ref(), to)
            }
        }
    }

    /// Reads the next entry.
    pub(super) fn read(from: &mut impl Read, version: Version) -> io::Result<Self> {
        let tag = byte(from)?;
        match tag {
            RAW => return Ok(Self::Raw(read_field(from)?)),
            IMPLIED => return Ok(Self::Implied(read_field(from)?)),
            END => return Ok(Self::End { entries: read_number(from)?, exact: byte(from)? == 1 }),
            _ => {}
        }
        let path = read_field(from)?;
        let kind = read_kind(tag, from)?;
        let metadata = match version {
            Version::V1 => None,
            Version::V2 => read_metadata(from)?,
        };
        Ok(Self::Entry { path, kind, metadata })
    }
}

/// Zero for none; else the mode plus one, uid and gid.
fn write_metadata(metadata: Option<&Metadata>, to: &mut impl Write) -> io::Result<()> {
    let Some(metadata) = metadata else { return number(to, 0) };
    number(to, u64::from(metadata.mode) + 1)?;
    number(to, u64::from(metadata.uid))?;
    number(to, u64::from(metadata.gid))
}

fn read_metadata(from: &mut impl Read) -> io::Result<Option<Metadata>> {
    let Some(mode) = read_u32(from)?.checked_sub(1) else { return Ok(None) };
    Ok(Some(Metadata { mode, uid: read_u32(from)?, gid: read_u32(from)? }))
}

fn write_kind(kind: &NodeKind, to: &mut impl Write) -> io::Result<()> {
    match kind {
        NodeKind::File { size, digest } => {
            number(to, *size)?;
            to.write_all(digest)
        }
        NodeKind::Sparse { length, map, digest } => {
            number(to, *length)?;
            number(to, map.len() as u64)?;
            for (offset, bytes) in map {
                number(to, *offset)?;
                number(to, *bytes)?;
            }
            to.write_all(digest)
        }
        NodeKind::Symlink(target) | NodeKind::Link(target) => field(to, target),
        NodeKind::Char(major, minor) | NodeKind::Block(major, minor) => {
            number(to, u64::from(*major))?;
            number(to, u64::from(*minor))
        }
        NodeKind::Directory | NodeKind::Fifo | NodeKind::Whiteout => Ok(()),
    }
}

fn read_kind(tag: u8, from: &mut impl Read) -> io::Result<NodeKind> {
    Ok(match tag {
        b'f' => NodeKind::File { size: read_number(from)?, digest: read_digest(from)? },
        b's' => {
            let (length, count) = (read_number(from)?, read_number(from)?);
            if count > PIECES_MAX {
                return Err(wrong("a sparse file has too many segments"));
            }
            let mut map = Vec::new();
            for _ in 0..count {
                map.push((read_number(from)?, read_number(from)?));
            }
            NodeKind::Sparse { length, map, digest: read_digest(from)? }
        }
        b'd' => NodeKind::Directory,
        b'l' => NodeKind::Symlink(read_field(from)?),
        b'h' => NodeKind::Link(read_field(from)?),
        b'c' => NodeKind::Char(read_u32(from)?, read_u32(from)?),
        b'b' => NodeKind::Block(read_u32(from)?, read_u32(from)?),
        b'p' => NodeKind::Fifo,
        b'w' => NodeKind::Whiteout,
        _ => return Err(wrong("an entry has an unknown type")),
    })
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn field(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    number(to, bytes.len() as u64)?;
    to.write_all(bytes)
}

fn number(to: &mut impl Write, mut value: u64) -> io::Result<()> {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return to.write_all(&[low]);
        }
        to.write_all(&[low | 0x80])?;
    }
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_number(from: &mut impl Read) -> io::Result<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = byte(from)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(wrong("a number is too long"))
}

fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    u32::try_from(read_number(from)?).map_err(|_| wrong("a number is too large"))
}

fn read_field(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = read_number(from)?;
    if length > FIELD_BYTES_MAX {
        return Err(wrong("a field is too long"));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn read_digest(from: &mut impl Read) -> io::Result<[u8; 32]> {
    let mut digest = [0; 32];
    from.read_exact(&mut digest)?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind() -> impl Strategy<Value = NodeKind> {
        prop_oneof![
            (any::<u64>(), any::<[u8; 32]>())
                .prop_map(|(size, digest)| NodeKind::File { size, digest }),
            (any::<u64>(), proptest::collection::vec(any::<(u64, u64)>(), 0..9), any::<[u8; 32]>())
                .prop_map(|(length, map, digest)| NodeKind::Sparse { length, map, digest }),
            Just(NodeKind::Directory),
            proptest::collection::vec(any::<u8>(), 0..99).prop_map(NodeKind::Symlink),
            proptest::collection::vec(any::<u8>(), 0..99).prop_map(NodeKind::Link),
            any::<(u32, u32)>().prop_map(|(major, minor)| NodeKind::Char(major, minor)),
            any::<(u32, u32)>().prop_map(|(major, minor)| NodeKind::Block(major, minor)),
            Just(NodeKind::Fifo),
            Just(NodeKind::Whiteout),
        ]
    }

    fn metadata() -> impl Strategy<Value = Option<Metadata>> {
        let owner_and_mode = (0_u32..0o10000, any::<u32>(), any::<u32>());
        proptest::option::of(owner_and_mode.prop_map(|(mode, uid, gid)| Metadata {
            mode,
            uid,
            gid,
        }))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            path in proptest::collection::vec(any::<u8>(), 0..300),
            kind in kind(),
            metadata in metadata(),
        ) {
            let all = [
                Item::Raw(path.clone()),
                Item::Implied(path.clone()),
                Item::Entry { path, kind, metadata },
                Item::End { entries: 1, exact: true },
            ];
            let mut bytes = Vec::new();
            for item in &all {
                item.write(&mut bytes).unwrap();
            }
            let mut from = bytes.as_slice();
            for item in &all {
                prop_assert_eq!(&Item::read(&mut from, Version::V2).unwrap(), item);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for version in [Version::V1, Version::V2] {
                let mut from = bytes.as_slice();
                while Item::read(&mut from, version).is_ok() {}
            }
        }
    }
}
