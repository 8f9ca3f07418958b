// SPDX-License-Identifier: Apache-2.0
//! Reads a tar archive entry by entry: ustar, GNU and PAX, sparse files of all four forms.
//!
//! The fields of a header are parsed by the `tar` crate; what spans headers (long names, extended
//! headers, sparse maps) is assembled here, because every such part needs a limit, and values
//! need not be text.
//!
//! Not here: the meaning of names, which are passed on as they are.

use super::blocks::{Blocks, Data};
use super::entry::{Entry, Kind};
use super::error::Error;
use super::{pax, sparse};
use crate::limits::Limits;
use std::io::{self, Read};
use tar::{EntryType, Header};

/// Reads an archive.
pub(crate) struct Archive<R> {
    blocks: Blocks<R>,
}

impl<R: Read> Archive<R> {
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn new(reader: R) -> Self {
        Self::within(reader, Limits::NONE)
    }

    /// Reads an archive within limits.
    pub(crate) fn within(reader: R, limits: Limits) -> Self {
        Self { blocks: Blocks::new(reader, limits, false) }
    }

    /// Reads an archive within limits, and records every byte that is not content.
    pub(super) fn recording(reader: R, limits: Limits) -> Self {
        Self { blocks: Blocks::new(reader, limits, true) }
    }

    /// The bytes recorded since the last call.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        self.blocks.take_raw()
    }

    /// Whether bytes were dropped that writing the same archive would need.
    pub(super) fn is_lossy(&self) -> bool {
        self.blocks.is_lossy()
    }

    /// Reads what follows the end of the archive.
    pub(super) fn trailer(&mut self) -> Result<(), Error> {
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
            let kind = header.entry_type();
            let size = or_empty(header.entry_size(), &header.as_old().size)
                .map_err(|_| self.blocks.malformed("the size of an entry is not a number"))?;
            #[allow(
                clippy::wildcard_enum_match_arm,
                reason = "all others are entries, and the enum is open"
            )]
            match kind {
                EntryType::GNULongName => long_path = Some(self.blocks.name(size)?),
                EntryType::GNULongLink => long_link = Some(self.blocks.name(size)?),
                EntryType::XHeader => {
                    let at = self.blocks.position();
                    extended = Some(pax::parse(&self.blocks.extension(size)?, at)?);
                }
                // Comments by the author of the archive, with nothing that Hull needs.
                EntryType::XGlobalHeader => {
                    self.blocks.extension(size)?;
                }
                _ => {
                    let extended = extended.take().unwrap_or_default();
                    let size = extended.size.unwrap_or(size);
                    self.blocks.begin_data(size)?;
                    return self.entry(&header, long_path, long_link, extended, size).map(Some);
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: pax::Pax,
        size: u64,
    ) -> Result<Entry, Error> {
        let bad = |this: &Self| this.blocks.malformed("a field of a header is not a number");
        let old = header.as_old();
        let sparse_pax = std::mem::take(&mut pax.sparse);
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax
            .link
            .or(long_link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let mut entry = Entry {
            kind: Kind::File,
            mode: or_empty(header.mode(), &old.mode).map_err(|_| bad(self))?,
            uid: pax
                .uid
                .map_or_else(|| or_empty(header.uid(), &old.uid), Ok)
                .map_err(|_| bad(self))?,
            gid: pax
                .gid
                .map_or_else(|| or_empty(header.gid(), &old.gid), Ok)
                .map_err(|_| bad(self))?,
            mtime: pax.mtime.unwrap_or_else(|| mtime(header)),
            xattrs: pax.xattrs,
            offset: self.blocks.position(),
            size,
            path,
        };
        let device = |this: &Self| {
            let major = header.device_major().map_err(|_| bad(this))?;
            let minor = header.device_minor().map_err(|_| bad(this))?;
            Ok::<_, Error>((major.unwrap_or(0), minor.unwrap_or(0)))
        };
        entry.kind = match header.entry_type() {
            EntryType::GNUSparse => sparse::of_header(&mut self.blocks, header)?,
            // Before there were types, a slash at the end meant a directory.
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous if !sparse_pax.is_empty() => {
                sparse::of_pax(&mut self.blocks, &mut entry, &sparse_pax)?
            }
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link.unwrap_or_default()),
            EntryType::Link => Kind::Link(link.unwrap_or_default()),
            EntryType::Char => device(self).map(|(major, minor)| Kind::Char(major, minor))?,
            EntryType::Block => device(self).map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other @ (EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XGlobalHeader
            | EntryType::XHeader
            | _) => {
                let why = format!(
                    "an entry has type `{}`, which is unknown",
                    char::from(other.as_byte()).escape_debug()
                );
                return Err(Error::Malformed { at: self.blocks.position(), why });
            }
        };
        entry.offset = self.blocks.position();
        Ok(entry)
    }
}

/// A number, or zero for an empty field: some writers leave unused fields empty.
fn or_empty<T: Default>(parsed: io::Result<T>, raw: &[u8]) -> io::Result<T> {
    if raw.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

fn mtime(header: &Header) -> (i64, i64) {
    (header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0), 0)
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
