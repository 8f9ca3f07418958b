// SPDX-License-Identifier: Apache-2.0
//! Reads a tar archive entry by entry: ustar, GNU and PAX, sparse files of all four forms.
//!
//! What spans headers (long names, extended headers, sparse maps) is assembled here: every such part needs a
//! limit, and values need not be text. The rule: an archive gives the same entries as GNU tar has of it, or an
//! error that names the entry.
//!
//! Not here: the meaning of names, which are passed on as they are.

use super::blocks::{Blocks, Data};
use super::entry::{Entry, Kind};
use super::error::{Error, shown};
use super::fields::{Fields, is_header_only};
use super::{pax, sparse};
use crate::limits::Limits;
use std::io::Read;
use tar::Header;

/// Reads an archive.
pub(crate) struct Archive<R> {
    blocks: Blocks<R>,
    /// The fields that a global header sets for all entries after it.
    global: pax::Pax,
    /// The name of the last header, for errors.
    near: Vec<u8>,
}

impl<R: Read> Archive<R> {
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn new(reader: R) -> Self {
        Self::within(reader, Limits::NONE)
    }

    /// Reads an archive within limits.
    pub(crate) fn within(reader: R, limits: Limits) -> Self {
        Self::of(Blocks::new(reader, limits, false))
    }

    /// Reads an archive within limits, and records every byte that is not content.
    pub(super) fn recording(reader: R, limits: Limits) -> Self {
        Self::of(Blocks::new(reader, limits, true))
    }

    fn of(blocks: Blocks<R>) -> Self {
        Self { blocks, global: pax::Pax::default(), near: Vec::new() }
    }

    /// The bytes recorded since the last call.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        self.blocks.take_raw()
    }

    /// Whether bytes were dropped that writing the same archive would need.
    pub(super) fn is_lossy(&self) -> bool {
        self.blocks.is_lossy()
    }

    /// Reads the next part of what follows the end of the archive; false once there is no more.
    pub(super) fn trailer(&mut self) -> Result<bool, Error> {
        self.blocks.trailer()
    }

    /// The bytes of the current entry.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        self.blocks.data()
    }

    /// The reader, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.blocks.into_inner()
    }

    /// Continues with the next entry, and skips unread data of the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.read().map_err(|error| error.at_entry(&self.near))
    }

    fn read(&mut self) -> Result<Option<Entry>, Error> {
        let (mut long_path, mut long_link, mut extended) = (None, None, None::<pax::Pax>);
        self.blocks.start_headers();
        loop {
            let Some(header) = self.blocks.header()? else {
                let is_dangling = long_path.is_some() || long_link.is_some() || extended.is_some();
                return if is_dangling {
                    Err(self.blocks.malformed("it ends where an entry should be"))
                } else {
                    Ok(None)
                };
            };
            self.blocks.count()?;
            let fields = Fields::of(&header);
            self.near = fields.path();
            let size = fields.size();
            let size =
                size.ok_or_else(|| self.blocks.malformed("the size of an entry is not a number"))?;
            match fields.kind() {
                b'L' => long_path = Some(self.blocks.name(size)?),
                b'K' => long_link = Some(self.blocks.name(size)?),
                // `X` is Solaris' own form of it.
                b'x' | b'X' => {
                    let at = self.blocks.position();
                    let bytes = self.blocks.extension(size)?;
                    extended = Some(pax::parse(&bytes, at, &self.global)?);
                }
                b'g' => {
                    let at = self.blocks.position();
                    let bytes = self.blocks.extension(size)?;
                    self.global = pax::parse(&bytes, at, &self.global)?.into_global(at)?;
                }
                // The name of the volume, which is not a file.
                b'V' => {
                    self.blocks.begin_data(size)?;
                    (long_path, long_link, extended) = (None, None, None);
                }
                _ => {
                    let mut pax = extended.take().unwrap_or_else(|| self.global.clone());
                    pax.path = pax.path.or(long_path.filter(|name| !name.is_empty()));
                    pax.link = pax.link.or(long_link.filter(|name| !name.is_empty()));
                    return self.entry(&header, pax, size).map(Some);
                }
            }
        }
    }

    fn entry(&mut self, header: &Header, pax: pax::Pax, size: u64) -> Result<Entry, Error> {
        let fields = Fields::of(header);
        let bad = |this: &Self| this.blocks.malformed("a field of a header is not a number");
        let mtime = pax.mtime.or_else(|| fields.mtime().map(|seconds| (seconds, 0)));
        let mut entry = Entry {
            kind: Kind::File,
            path: pax.path.unwrap_or_else(|| fields.path()),
            mode: fields.mode().ok_or_else(|| bad(self))?,
            uid: pax.uid.or_else(|| fields.uid()).ok_or_else(|| bad(self))?,
            gid: pax.gid.or_else(|| fields.gid()).ok_or_else(|| bad(self))?,
            mtime: mtime.ok_or_else(|| bad(self))?,
            xattrs: pax.xattrs,
            offset: self.blocks.position(),
            size: pax.size.unwrap_or(size),
        };
        self.near.clone_from(&entry.path);
        let link = || pax.link.unwrap_or_else(|| fields.link());
        let device = || fields.device().ok_or_else(|| bad(self));
        entry.kind = match fields.kind() {
            b'S' => Kind::Sparse { map: Vec::new(), length: 0 },
            // Before there were types, a slash at the end meant a directory.
            0 | b'0' | b'7' if entry.path.ends_with(b"/") => {
                if fields.kind() != 0 && entry.size > 0 {
                    let why = "it is a file by its type and a directory by its name";
                    return Err(Error::Refused { entry: shown(&entry.path), why: why.into() });
                }
                Kind::Directory
            }
            0 | b'0' | b'7' => Kind::File,
            // `D` is one of GNU's incremental archives; its data is a list of names.
            b'5' | b'D' => Kind::Directory,
            b'2' => Kind::Symlink(link()),
            b'1' => Kind::Link(link()),
            b'3' => device().map(|(major, minor)| Kind::Char(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'6' => Kind::Fifo,
            other => {
                let kind = char::from(other).escape_debug();
                let why = format!("it has type `{kind}`, which is unknown");
                return Err(Error::Refused { entry: shown(&entry.path), why });
            }
        };
        if is_header_only(&entry.kind) && fields.kind() != b'D' {
            entry.size = 0;
        }
        self.blocks.begin_data(entry.size)?;
        if fields.kind() == b'S' {
            entry.kind = sparse::of_header(&mut self.blocks, header, entry.size)?;
        } else if entry.kind == Kind::File && !pax.sparse.is_empty() {
            entry.kind = sparse::of_pax(&mut self.blocks, &mut entry, &pax.sparse)?;
        }
        entry.offset = self.blocks.position();
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tar::Builder;

    fn entries(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Error> {
        let mut archive = Archive::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = archive.next()? {
            let mut data = Vec::new();
            archive.data().read_to_end(&mut data).map_err(Error::of_read)?;
            all.push((entry, data));
        }
        Ok(all)
    }

    fn written(path: &str, data: &[u8]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        builder.append_data(&mut header, path, data).unwrap();
        builder
            .append_pax_extensions([("path", b"from/pax".as_slice()), ("mtime", b"7.5")])
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_path("short").unwrap();
        header.set_size(3);
        header.set_uid(5);
        header.set_mtime(1);
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn long_names_and_extended_headers_belong_to_the_next_entry() {
        let long = "d/".repeat(100) + "file";
        let all = entries(&written(&long, b"hello")).unwrap();
        assert_eq!(all[0].0.path, long.as_bytes());
        assert_eq!((all[0].0.mode, all[0].1.as_slice()), (0o640, &b"hello"[..]));
        assert_eq!(all[1].0.path, b"from/pax");
        assert_eq!((all[1].0.uid, all[1].0.mtime), (5, (7, 500_000_000)));
        assert_eq!(all[1].1, b"abc");
    }

    #[test]
    fn entries_may_be_skipped() {
        let bytes = written("one", &[7; 1000]);
        let mut archive = Archive::new(&bytes[..]);
        let mut paths = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            paths.push(entry.path);
        }
        assert_eq!(paths, [&b"one"[..], b"from/pax"]);
    }

    #[test]
    fn an_archive_that_was_cut_is_an_error() {
        let bytes = written("one", &[7; 1000]);
        for cut in [100, 600, 1500, 2100] {
            assert!(entries(&bytes[..cut]).is_err() || cut == 1536, "cut at {cut}");
        }
        assert!(entries(&[]).unwrap().is_empty());
        assert!(
            entries(
                b"this is not an archive, and long enough to be taken for a header: "
                    .repeat(10)
                    .as_slice()
            )
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..3000, with: u8, fix: bool) {
            let mut bytes = written(&("d/".repeat(60) + "file"), &[7; 700]);
            let at = at % bytes.len();
            bytes[at] = with;
            if fix {
                // A right checksum lets the damage through to what reads the fields.
                let start = at / 512 * 512;
                let block: &mut [u8] = &mut bytes[start..start + 512];
                let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 256;
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let _either = entries(&bytes);
        }
    }
}
