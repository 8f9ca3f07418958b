// SPDX-License-Identifier: Apache-2.0
//! Reads a tar archive entry by entry: ustar, GNU and PAX, sparse files of all four forms.
//!
//! The fields of a header are parsed by the `tar` crate; what spans headers (long names, extended
//! headers, sparse maps) is put together here, because every such part needs a limit, and values
//! need not be text.
//!
//! When it records, what is no content is kept until it is asked for: headers, padding, the end.
//!
//! Not here: what names mean. They are passed on as they are written.

use super::{Error, charge, pax, sparse};
use crate::limits::{HEADER_BYTES, LAYER_BYTES, LAYER_ENTRIES, Limits};
use std::io::{self, Read};
use tar::{EntryType, Header};

/// Size of a header, and what everything is padded to.
pub(crate) const BLOCK: u64 = 512;
/// Longest extended header or long name.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Longest content that nobody reads and that is recorded all the same.
const SKIPPED_BYTES_MAX: u64 = 64 << 10;
/// Longest that the archive may go on behind its end, and how much of that is recorded.
const TRAILER_BYTES_MAX: u64 = 64 << 20;
const TRAILER_RECORDED_MAX: u64 = 1 << 20;

/// An entry of an archive. Its bytes are read from [`Archive::data`].
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

/// An archive being read.
pub(crate) struct Archive<R> {
    reader: R,
    position: u64,
    /// Where the bytes of the current entry end.
    data_end: u64,
    /// Where the next header is.
    next: u64,
    entries: u64,
    /// Bytes before the current entry that are its names and extended headers, or nobody's.
    header_bytes: u64,
    limits: Limits,
    /// What passed and is no content, if it is wanted.
    raw: Option<Vec<u8>>,
    is_lossy: bool,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            position: 0,
            data_end: 0,
            next: 0,
            entries: 0,
            header_bytes: 0,
            limits: Limits::NONE,
            raw: None,
            is_lossy: false,
        }
    }

    /// The same within limits.
    pub(crate) fn within(reader: R, limits: Limits) -> Self {
        Self { limits, ..Self::new(reader) }
    }

    /// The same within limits, and keeps what is no content.
    pub(super) fn recording(reader: R, limits: Limits) -> Self {
        Self { limits, raw: Some(Vec::new()), ..Self::new(reader) }
    }

    /// What was no content since this was asked last.
    pub(super) fn take_raw(&mut self) -> Vec<u8> {
        self.raw.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether not everything was kept that would be needed to write the archive again.
    pub(super) fn is_lossy(&self) -> bool {
        self.is_lossy
    }

    fn record(&mut self, bytes: &[u8]) {
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(bytes);
        }
    }

    /// Reads what is behind the end.
    pub(super) fn trailer(&mut self) -> Result<(), Error> {
        let mut sink = Vec::new();
        let raw = self.raw.as_mut().unwrap_or(&mut sink);
        let part = (&mut self.reader).take(TRAILER_RECORDED_MAX).read_to_end(raw);
        if (part.map_err(read_failed)? as u64) < TRAILER_RECORDED_MAX {
            return Ok(());
        }
        self.is_lossy = true;
        let mut rest = (&mut self.reader).take(TRAILER_BYTES_MAX);
        io::copy(&mut rest, &mut io::sink()).map_err(read_failed)?;
        if rest.limit() == 0 {
            return Err(self.malformed("it goes on long after its end"));
        }
        Ok(())
    }

    /// Goes to the next entry, over what was not read of the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let (mut long_path, mut long_link, mut extended) = (None, None, None::<pax::Pax>);
        self.header_bytes = 0;
        loop {
            let Some(header) = self.header()? else {
                let is_dangling = long_path.is_some() || long_link.is_some() || extended.is_some();
                return if is_dangling {
                    Err(self.malformed("it ends where an entry should be"))
                } else {
                    Ok(None)
                };
            };
            self.count()?;
            let kind = header.entry_type();
            let size = or_empty(header.entry_size(), &header.as_old().size)
                .map_err(|_| self.malformed("the size of an entry is no number"))?;
            #[allow(
                clippy::wildcard_enum_match_arm,
                reason = "all others are entries, and the enum is open"
            )]
            match kind {
                EntryType::GNULongName => long_path = Some(self.name(size)?),
                EntryType::GNULongLink => long_link = Some(self.name(size)?),
                EntryType::XHeader => {
                    let at = self.position;
                    extended = Some(pax::parse(&self.extension(size)?, at)?);
                }
                // Comments of whoever made the archive: nothing that we need is in them.
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                }
                _ => {
                    let extended = extended.take().unwrap_or_default();
                    let size = extended.size.unwrap_or(size);
                    self.begin_data(size)?;
                    return self.entry(&header, long_path, long_link, extended, size).map(Some);
                }
            }
        }
    }

    /// The bytes of the current entry.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        Data { archive: self, is_content: true }
    }

    /// The bytes of an entry that belong to its header.
    pub(super) fn header_data(&mut self) -> Data<'_, R> {
        Data { archive: self, is_content: false }
    }

    /// The reader, wherever it stands.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// An error at this place.
    pub(crate) fn malformed(&self, why: &'static str) -> Error {
        Error::Malformed { at: self.position, why: why.into() }
    }

    fn entry(
        &mut self,
        header: &Header,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: pax::Pax,
        size: u64,
    ) -> Result<Entry, Error> {
        let bad = |this: &Self| this.malformed("a field of a header is no number");
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
            offset: self.position,
            size,
            path,
        };
        let device = |this: &Self| {
            let major = header.device_major().map_err(|_| bad(this))?;
            let minor = header.device_minor().map_err(|_| bad(this))?;
            Ok::<_, Error>((major.unwrap_or(0), minor.unwrap_or(0)))
        };
        entry.kind = match header.entry_type() {
            EntryType::GNUSparse => sparse::of_header(self, header)?,
            // Before there were types, a slash at the end meant a directory.
            EntryType::Regular | EntryType::Continuous if entry.path.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous if !sparse_pax.is_empty() => {
                sparse::of_pax(self, &mut entry, &sparse_pax)?
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
                return Err(Error::Malformed { at: self.position, why });
            }
        };
        entry.offset = self.position;
        Ok(entry)
    }

    /// The next header, or none at the end.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        self.skip_to(self.next)?;
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]).map_err(read_failed)? {
                0 => break,
                got => filled += got,
            }
        }
        self.position += filled as u64;
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(&bytes[..filled]);
        }
        // The end is a block of zeros. Some writers leave it out.
        if filled == 0 || (filled == bytes.len() && bytes.iter().all(|b| *b == 0)) {
            return Ok(None);
        }
        if filled < bytes.len() {
            return Err(self.malformed("it ends within a header"));
        }
        let sum: u32 =
            bytes[..148].iter().chain(&bytes[156..]).map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(self.malformed("the checksum of a header is wrong"));
        }
        self.next = self.position;
        self.data_end = self.position;
        Ok(Some(header))
    }

    fn begin_data(&mut self, size: u64) -> Result<(), Error> {
        let end = self.position.checked_add(size).filter(|end| end.checked_add(BLOCK).is_some());
        let end = end.ok_or_else(|| self.malformed("the size of an entry is too large"))?;
        if end > self.limits.bytes {
            return Err(Error::Limit { budget: &LAYER_BYTES, max: self.limits.bytes });
        }
        self.data_end = end;
        self.next = end.next_multiple_of(BLOCK);
        Ok(())
    }

    /// The bytes of a header's extension, whole.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > EXTENSION_BYTES_MAX {
            return Err(self.malformed("a name or an extended header is too long"));
        }
        charge(&HEADER_BYTES, &mut self.header_bytes, BLOCK + size, HEADER_BYTES.default)?;
        self.begin_data(size)?;
        let mut bytes = Vec::new();
        self.header_data().read_to_end(&mut bytes).map_err(read_failed)?;
        if bytes.len() as u64 != size {
            return Err(self.malformed("it ends within an extended header"));
        }
        Ok(bytes)
    }

    fn name(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut name = self.extension(size)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// One more block that belongs to the header, before the data.
    pub(crate) fn header_block(&mut self) -> Result<[u8; 512], Error> {
        let mut block = [0; 512];
        self.reader.read_exact(&mut block).map_err(read_failed)?;
        self.record(&block);
        self.position += BLOCK;
        self.data_end += BLOCK;
        self.next += BLOCK;
        self.count()?;
        Ok(block)
    }

    fn count(&mut self) -> Result<(), Error> {
        charge(&LAYER_ENTRIES, &mut self.entries, 1, self.limits.entries)
    }

    fn skip_to(&mut self, to: u64) -> Result<(), Error> {
        let left = to - self.position;
        let mut part = (&mut self.reader).take(left);
        let skipped = match &mut self.raw {
            Some(raw) if left <= SKIPPED_BYTES_MAX => {
                part.read_to_end(raw).map(|bytes| bytes as u64)
            }
            raw => {
                self.is_lossy |= raw.is_some();
                io::copy(&mut part, &mut io::sink())
            }
        };
        self.position += skipped.map_err(read_failed)?;
        // The padding of the last entry may be missing, its bytes not.
        if self.position < self.data_end {
            return Err(self.malformed("it ends within an entry"));
        }
        self.position = to;
        Ok(())
    }
}

/// Reads the current entry's bytes and no others.
pub(crate) struct Data<'a, R> {
    archive: &'a mut Archive<R>,
    is_content: bool,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.archive.data_end - self.archive.position;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self.archive.reader.read(&mut buffer[..want])?;
        self.archive.position += got as u64;
        if !self.is_content {
            self.archive.record(&buffer[..got]);
        }
        Ok(got)
    }
}

/// A number, or none at all: some writers leave fields empty that mean nothing for an entry.
fn or_empty<T: Default>(parsed: io::Result<T>, raw: &[u8]) -> io::Result<T> {
    if raw.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

/// Puts a failure of the underlying reader.
pub(crate) fn read_failed(error: io::Error) -> Error {
    Error::of_read(error)
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
            archive.data().read_to_end(&mut data).map_err(read_failed)?;
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
                b"this is no archive, and long enough to be taken for a header: "
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
