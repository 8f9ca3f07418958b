// SPDX-License-Identifier: Apache-2.0
//! One thing of a layer, and its binary form: a tag, then fields; numbers as LEB128, bytes with
//! their length before them.
//!
//! Pure. The rule: what is read is bounded before it is kept.

use rustix::fs::Stat;
use std::io::{self, Read, Write};

/// Longest field that is read: a header's extension with some room.
const FIELD_BYTES_MAX: u64 = 4 << 20;
/// Most pieces of a sparse file, as in archives.
const PIECES_MAX: u64 = 1 << 20;

/// A line of an inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// Bytes of the archive that are no content: headers, padding, the end.
    Raw(Vec<u8>),
    /// Something that is there. The path is cleaned. What links to something else wears nothing of its
    /// own, and the first form of inventories did not say what anything wears.
    Entry { path: Vec<u8>, what: What, dress: Option<Dress> },
    /// The last line. Exact: the archive can be rebuilt from this.
    End { entries: u64, exact: bool },
}

/// Whose a thing is, and what may be done with it: the twelve bits of its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dress {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Dress {
    /// What something wears now.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
    }
}

/// How an inventory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Without what things wear, and without directories that the archive only implies.
    First,
    /// With everything.
    Second,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Its content was in the archive at this place.
    File {
        size: u64,
        digest: [u8; 32],
    },
    /// Pieces with their content; the digest is of the pieces, one after the other.
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
    /// A mark of overlayfs: what the layers below have under this name is gone.
    Whiteout,
}

impl What {
    /// Bytes that the archive has at this place.
    pub(crate) fn content(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Sparse { map, .. } => map.iter().map(|(_, bytes)| bytes).sum(),
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
const END: u8 = b'E';

impl Item {
    /// Appends the binary form, which is the second.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Raw(bytes) => {
                to.write_all(&[RAW])?;
                field(to, bytes)
            }
            Self::End { entries, exact } => {
                to.write_all(&[END])?;
                number(to, *entries)?;
                to.write_all(&[u8::from(*exact)])
            }
            Self::Entry { path, what, dress } => {
                to.write_all(&[what.tag()])?;
                field(to, path)?;
                write_what(what, to)?;
                write_dress(dress.as_ref(), to)
            }
        }
    }

    /// Reads the next item.
    pub(super) fn read(from: &mut impl Read, form: Form) -> io::Result<Self> {
        let tag = byte(from)?;
        match tag {
            RAW => return Ok(Self::Raw(read_field(from)?)),
            END => return Ok(Self::End { entries: read_number(from)?, exact: byte(from)? == 1 }),
            _ => {}
        }
        let path = read_field(from)?;
        let what = read_what(tag, from)?;
        let dress = match form {
            Form::First => None,
            Form::Second => read_dress(from)?,
        };
        Ok(Self::Entry { path, what, dress })
    }
}

/// Nothing is a zero; else the mode and one.
fn write_dress(dress: Option<&Dress>, to: &mut impl Write) -> io::Result<()> {
    let Some(dress) = dress else { return number(to, 0) };
    number(to, u64::from(dress.mode) + 1)?;
    number(to, u64::from(dress.uid))?;
    number(to, u64::from(dress.gid))
}

fn read_dress(from: &mut impl Read) -> io::Result<Option<Dress>> {
    let Some(mode) = read_u32(from)?.checked_sub(1) else { return Ok(None) };
    Ok(Some(Dress { mode, uid: read_u32(from)?, gid: read_u32(from)? }))
}

fn write_what(what: &What, to: &mut impl Write) -> io::Result<()> {
    match what {
        What::File { size, digest } => {
            number(to, *size)?;
            to.write_all(digest)
        }
        What::Sparse { length, map, digest } => {
            number(to, *length)?;
            number(to, map.len() as u64)?;
            for (offset, bytes) in map {
                number(to, *offset)?;
                number(to, *bytes)?;
            }
            to.write_all(digest)
        }
        What::Symlink(target) | What::Link(target) => field(to, target),
        What::Char(major, minor) | What::Block(major, minor) => {
            number(to, u64::from(*major))?;
            number(to, u64::from(*minor))
        }
        What::Directory | What::Fifo | What::Whiteout => Ok(()),
    }
}

fn read_what(tag: u8, from: &mut impl Read) -> io::Result<What> {
    Ok(match tag {
        b'f' => What::File { size: read_number(from)?, digest: read_digest(from)? },
        b's' => {
            let (length, count) = (read_number(from)?, read_number(from)?);
            if count > PIECES_MAX {
                return Err(wrong("a sparse file has too many pieces"));
            }
            let mut map = Vec::new();
            for _ in 0..count {
                map.push((read_number(from)?, read_number(from)?));
            }
            What::Sparse { length, map, digest: read_digest(from)? }
        }
        b'd' => What::Directory,
        b'l' => What::Symlink(read_field(from)?),
        b'h' => What::Link(read_field(from)?),
        b'c' => What::Char(read_u32(from)?, read_u32(from)?),
        b'b' => What::Block(read_u32(from)?, read_u32(from)?),
        b'p' => What::Fifo,
        b'w' => What::Whiteout,
        _ => return Err(wrong("an item is of no known kind")),
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

    fn what() -> impl Strategy<Value = What> {
        prop_oneof![
            (any::<u64>(), any::<[u8; 32]>())
                .prop_map(|(size, digest)| What::File { size, digest }),
            (any::<u64>(), proptest::collection::vec(any::<(u64, u64)>(), 0..9), any::<[u8; 32]>())
                .prop_map(|(length, map, digest)| What::Sparse { length, map, digest }),
            Just(What::Directory),
            proptest::collection::vec(any::<u8>(), 0..99).prop_map(What::Symlink),
            proptest::collection::vec(any::<u8>(), 0..99).prop_map(What::Link),
            any::<(u32, u32)>().prop_map(|(major, minor)| What::Char(major, minor)),
            any::<(u32, u32)>().prop_map(|(major, minor)| What::Block(major, minor)),
            Just(What::Fifo),
            Just(What::Whiteout),
        ]
    }

    fn dress() -> impl Strategy<Value = Option<Dress>> {
        let worn = (0_u32..0o10000, any::<u32>(), any::<u32>());
        proptest::option::of(worn.prop_map(|(mode, uid, gid)| Dress { mode, uid, gid }))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            path in proptest::collection::vec(any::<u8>(), 0..300),
            what in what(),
            dress in dress(),
        ) {
            let all = [
                Item::Raw(path.clone()),
                Item::Entry { path, what, dress },
                Item::End { entries: 1, exact: true },
            ];
            let mut bytes = Vec::new();
            for item in &all {
                item.write(&mut bytes).unwrap();
            }
            let mut from = bytes.as_slice();
            for item in &all {
                prop_assert_eq!(&Item::read(&mut from, Form::Second).unwrap(), item);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for form in [Form::First, Form::Second] {
                let mut from = bytes.as_slice();
                while Item::read(&mut from, form).is_ok() {}
            }
        }
    }
}
