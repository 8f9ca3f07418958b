// SPDX-License-Identifier: Apache-2.0
//! The fields of a tar header: numbers, texts, the name, the checksum.
//!
//! Pure. The rule: a field that GNU tar, Go and Python read in the same way is read in that way; another one is
//! an error, never a guess.

use super::entry::Kind;
use std::ops::Range;
use tar::Header;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

/// A header of 512 bytes.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8; 512]);

impl<'a> Fields<'a> {
    pub(super) fn of(header: &'a Header) -> Self {
        Self(header.as_bytes())
    }

    /// The type flag.
    pub(super) fn kind(self) -> u8 {
        self.0[TYPE]
    }

    /// The name. POSIX archives split long ones; GNU's and older ones have other fields in that place.
    pub(super) fn path(self) -> Vec<u8> {
        let (name, prefix) = (text(&self.0[NAME]), text(&self.0[PREFIX]));
        if self.0[MAGIC] == *b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    pub(super) fn link(self) -> Vec<u8> {
        text(&self.0[LINK]).to_vec()
    }

    pub(super) fn size(self) -> Option<u64> {
        number(&self.0[SIZE]).and_then(|size| u64::try_from(size).ok())
    }

    /// The permissions: twelve bits, whatever a writer puts above them.
    pub(super) fn mode(self) -> Option<u32> {
        number(&self.0[MODE]).and_then(|mode| u32::try_from(mode & 0o7777).ok())
    }

    pub(super) fn uid(self) -> Option<u64> {
        number(&self.0[UID]).and_then(|uid| u64::try_from(uid).ok())
    }

    pub(super) fn gid(self) -> Option<u64> {
        number(&self.0[GID]).and_then(|gid| u64::try_from(gid).ok())
    }

    /// Seconds since 1970, which GNU tar also writes for the time before.
    pub(super) fn mtime(self) -> Option<i64> {
        number(&self.0[MTIME])
    }

    /// Major and minor number. Archives older than POSIX have none.
    pub(super) fn device(self) -> Option<(u32, u32)> {
        if !self.0[MAGIC].starts_with(b"ustar") {
            return Some((0, 0));
        }
        let part = |range: Range<usize>| u32::try_from(number(&self.0[range])?).ok();
        Some((part(MAJOR)?, part(MINOR)?))
    }

    /// Whether the checksum is right. Some old writers took the bytes for signed ones.
    pub(super) fn is_whole(self) -> bool {
        let blanks = 8 * i64::from(b' ');
        let rest = || self.0[..CHECKSUM.start].iter().chain(&self.0[CHECKSUM.end..]);
        let unsigned = rest().map(|byte| i64::from(*byte)).sum::<i64>() + blanks;
        let signed = rest().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + blanks;
        number(&self.0[CHECKSUM]).is_some_and(|sum| sum == unsigned || sum == signed)
    }
}

/// Whether entries of this type have no content, so that their size says nothing. `tar(5)`
pub(super) fn is_header_only(kind: &Kind) -> bool {
    match kind {
        Kind::File | Kind::Sparse { .. } => false,
        Kind::Directory
        | Kind::Symlink(_)
        | Kind::Link(_)
        | Kind::Char(..)
        | Kind::Block(..)
        | Kind::Fifo => true,
    }
}

/// A text up to its NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: octal digits among blanks, or of base 256 as GNU writes what has no room otherwise. An empty field
/// is zero.
fn number(field: &[u8]) -> Option<i64> {
    match field {
        [0x80, bytes @ ..] => big_endian(0, bytes),
        [0xff, bytes @ ..] => big_endian(-1, bytes),
        _ => octal(field),
    }
}

fn big_endian(start: i64, bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)))
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| matches!(byte, 0 | b' ');
    let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |sum, byte| {
        let digit = char::from(*byte).to_digit(8)?;
        sum.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling_that_writers_use() {
        for (field, wanted) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\x30\x31\0\0\0\0\0", Some(1)),
            (b"644 junk", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xff\0\0\0\0\0\0\0\0\0", None),
            (b"-0000001", None),
            (b"0000689\0", None),
            (b"\x81\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), wanted, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn a_name_has_a_prefix_in_posix_archives_only() {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..4].copy_from_slice(b"name");
        header.as_mut_bytes()[345..348].copy_from_slice(b"dir");
        assert_eq!(Fields::of(&header).path(), b"dir/name");
        header.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0");
        assert_eq!(Fields::of(&header).path(), b"name");
        header.as_mut_bytes()[257..265].fill(0);
        assert_eq!(Fields::of(&header).path(), b"name");
        assert_eq!(Fields::of(&header).device(), Some((0, 0)));
    }

    #[test]
    fn checksums_of_signed_bytes_are_right_too() {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..2].copy_from_slice(&[0xe9, 0xe8]);
        header.set_cksum();
        assert!(Fields::of(&header).is_whole());
        let sum = header.cksum().unwrap() - 512;
        header.as_mut_bytes()[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(Fields::of(&header).is_whole());
        header.as_mut_bytes()[148..156].copy_from_slice(b"0000000\0");
        assert!(!Fields::of(&header).is_whole());
    }
}
