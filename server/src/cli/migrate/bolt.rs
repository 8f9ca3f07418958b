// SPDX-License-Identifier: Apache-2.0
//! Reads a bbolt database, the form of containerd's metadata.
//!
//! ```text
//! page:  id u64, flags u16, count u16, overflow u32, then elements: of a branch {pos u32, ksize u32, page u64},
//!        of a leaf {flags u32, pos u32, ksize u32, vsize u32}, at `pos` from the element its key and value
//! meta (pages 0 and 1): magic, version, page size, flags, root bucket {page u64, sequence u64}, freelist,
//!        pages, transaction, FNV-1a of all before; the one with the higher transaction counts
//! bucket: a value {page u64, sequence u64}; page 0: the page follows in the value itself
//! ```
//!
//! The rule: every number is checked against the bytes that are there, and no page is visited twice, so that any
//! file ends in a result or an error. The database may be in use: a writer never changes a page that the last
//! transaction needs until the next one is complete. So what was read is one state if the transaction is the
//! same before and after.

use super::super::error::{Error, Result};
use super::root::Root;
use std::io::Read as _;
use std::path::Path;

/// Largest database, in bytes: 100000 images have 100 MiB.
const BYTES_MAX: u64 = 512 << 20;
/// Number of times that a database in use is read until its state stays the same meanwhile.
const READS_MAX: usize = 16;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
const META_BYTES: usize = 64;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const IS_BUCKET: u32 = 1;
/// Page sizes that bbolt uses: 1 KiB to 64 KiB.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=16;
/// Deepest tree: of pages with two elements each, which is more than any file has.
const DEPTH_MAX: usize = 48;

/// An error in words.
pub(crate) type Malformed = &'static str;

/// A database in memory.
#[derive(Debug)]
pub(crate) struct Database {
    bytes: Vec<u8>,
    meta: Meta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    page_size: usize,
    root: u64,
    transaction: u64,
}

/// A bucket: a map of keys to values and further buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket<'d> {
    database: &'d Database,
    at: At<'d>,
}

#[derive(Debug, Clone, Copy)]
enum At<'d> {
    Page(u64),
    /// The page within the value.
    Inline(&'d [u8]),
}

/// A value of a bucket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'d> {
    Bytes(&'d [u8]),
    Bucket(Bucket<'d>),
}

/// The entries of a bucket, in the order of their keys.
pub(crate) type Entries<'d> = Vec<(&'d [u8], Value<'d>)>;

impl Database {
    /// Reads a database, which may be in use; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be read, or is not a database.
    pub(crate) fn read(root: &Root, path: &Path) -> Result<Option<Self>> {
        let malformed = |why: Malformed| {
            let hint = Some("see whether the runtime itself starts with it".to_owned());
            Error::Peer { what: root.shown(path), why: why.to_owned(), hint }
        };
        for _ in 0..READS_MAX {
            let Some(bytes) = root.bytes(path, BYTES_MAX)? else { return Ok(None) };
            let database = Self::of(bytes).map_err(malformed)?;
            if newest(&start(root, path)?) == Some(database.meta) {
                return Ok(Some(database));
            }
        }
        let hint = Some("stop the runtime, then run the command again".to_owned());
        Err(Error::Peer { what: root.shown(path), why: "it changes all the time".into(), hint })
    }

    /// The database with these bytes.
    ///
    /// # Errors
    /// They are not a database.
    pub(crate) fn of(bytes: Vec<u8>) -> std::result::Result<Self, Malformed> {
        let meta = newest(&bytes).ok_or("it is not a bbolt database")?;
        Ok(Self { bytes, meta })
    }

    /// The bucket with all others.
    pub(crate) fn root(&self) -> Bucket<'_> {
        Bucket { database: self, at: At::Page(self.meta.root) }
    }

    /// The bytes of a page, with its overflow.
    fn page(&self, id: u64) -> std::result::Result<&[u8], Malformed> {
        const OUTSIDE: Malformed = "a page of it is not in the file";
        let size = self.meta.page_size;
        let start = usize::try_from(id).ok().and_then(|id| id.checked_mul(size)).ok_or(OUTSIDE)?;
        let header = self.bytes.get(start..).ok_or(OUTSIDE)?;
        let overflow = usize::try_from(u32_at(header, 12).ok_or(OUTSIDE)?).map_err(|_| OUTSIDE)?;
        let length = overflow.checked_add(1).and_then(|pages| pages.checked_mul(size));
        header.get(..length.ok_or(OUTSIDE)?).ok_or(OUTSIDE)
    }
}

impl<'d> Bucket<'d> {
    /// All entries of the bucket.
    ///
    /// # Errors
    /// The database is damaged.
    pub(crate) fn entries(&self) -> std::result::Result<Entries<'d>, Malformed> {
        let mut entries = Vec::new();
        let mut visits = self.database.bytes.len() / self.database.meta.page_size + 1;
        match self.at {
            At::Inline(page) => self.elements(page, 0, &mut visits, &mut entries)?,
            At::Page(id) => {
                self.elements(self.database.page(id)?, 0, &mut visits, &mut entries)?;
            }
        }
        Ok(entries)
    }

    /// The bucket with this name in it.
    ///
    /// # Errors
    /// The database is damaged.
    pub(crate) fn bucket(&self, name: &str) -> std::result::Result<Option<Self>, Malformed> {
        let entries = self.entries()?;
        let found = entries.into_iter().find(|(key, _)| *key == name.as_bytes());
        Ok(found.and_then(|(_, value)| match value {
            Value::Bucket(bucket) => Some(bucket),
            Value::Bytes(_) => None,
        }))
    }

    fn elements(
        &self,
        page: &'d [u8],
        depth: usize,
        visits: &mut usize,
        into: &mut Entries<'d>,
    ) -> std::result::Result<(), Malformed> {
        const CUT: Malformed = "a page of it is cut off";
        *visits = visits.checked_sub(1).ok_or("its pages form a circle")?;
        if depth > DEPTH_MAX {
            return Err("its pages form a circle");
        }
        let (flags, count) = (u16_at(page, 8).ok_or(CUT)?, u16_at(page, 10).ok_or(CUT)?);
        for number in 0..usize::from(count) {
            let element = page.get(PAGE_HEADER + number * ELEMENT..).ok_or(CUT)?;
            if flags & BRANCH != 0 {
                let child = u64_at(element, 8).ok_or(CUT)?;
                self.elements(self.database.page(child)?, depth + 1, visits, into)?;
            } else if flags & LEAF != 0 {
                let [kind, at, key, value] =
                    [0, 4, 8, 12].map(|offset| u32_at(element, offset).map(|of| of as usize));
                let (at, key) = (at.ok_or(CUT)?, key.ok_or(CUT)?);
                let (key, rest) =
                    element.get(at..).and_then(|of| of.split_at_checked(key)).ok_or(CUT)?;
                let bytes = rest.get(..value.ok_or(CUT)?).ok_or(CUT)?;
                let is_bucket = kind.is_some_and(|kind| kind & IS_BUCKET as usize != 0);
                into.push((key, if is_bucket { self.inner(bytes)? } else { Value::Bytes(bytes) }));
            } else {
                return Err("a page of it is neither a branch nor a leaf");
            }
        }
        Ok(())
    }

    fn inner(&self, value: &'d [u8]) -> std::result::Result<Value<'d>, Malformed> {
        let page = u64_at(value, 0).ok_or("a bucket of it is cut off")?;
        let at = match page {
            0 => At::Inline(value.get(BUCKET_HEADER..).ok_or("a bucket of it is cut off")?),
            page => At::Page(page),
        };
        Ok(Value::Bucket(Self { database: self.database, at }))
    }
}

/// The bytes up to the end of the second meta page, of whatever size.
fn start(root: &Root, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some((file, _)) = root.file(path)? {
        let read = file.take(2 << PAGE_SIZES.end()).read_to_end(&mut bytes);
        read.map_err(Error::io(format!("read {}", root.shown(path))))?;
    }
    Ok(bytes)
}

/// The valid meta page with the last transaction.
fn newest(bytes: &[u8]) -> Option<Meta> {
    let first = meta_at(bytes, 0);
    let second = PAGE_SIZES.filter_map(|shift| {
        let size = 1_usize << shift;
        meta_at(bytes, size).filter(|meta| meta.page_size == size)
    });
    first.into_iter().chain(second).max_by_key(|meta| meta.transaction)
}

fn meta_at(bytes: &[u8], page: usize) -> Option<Meta> {
    let meta = bytes.get(page + PAGE_HEADER..)?.get(..META_BYTES)?;
    let page_size = usize::try_from(u32_at(meta, 8)?).ok()?;
    let is_valid = u32_at(meta, 0)? == MAGIC
        && u32_at(meta, 4)? == VERSION
        && PAGE_SIZES.into_iter().any(|shift| 1 << shift == page_size)
        && u64_at(meta, 56)? == fnv(&meta[..56]);
    is_valid.then_some(Meta { page_size, root: u64_at(meta, 16)?, transaction: u64_at(meta, 48)? })
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|of| u16::from_le_bytes(*of))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|of| u32::from_le_bytes(*of))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|of| u64::from_le_bytes(*of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: usize = 4096;

    /// A page with these elements: key, whether it is a bucket, value.
    fn leaf(elements: &[(&[u8], bool, &[u8])]) -> Vec<u8> {
        let mut page = vec![0; PAGE_HEADER];
        page[8..10].copy_from_slice(&LEAF.to_le_bytes());
        page[10..12].copy_from_slice(&u16::try_from(elements.len()).unwrap().to_le_bytes());
        let mut data = Vec::new();
        for (number, (key, is_bucket, value)) in elements.iter().enumerate() {
            let at = (elements.len() - number) * ELEMENT + data.len();
            for number in [usize::from(*is_bucket), at, key.len(), value.len()] {
                page.extend(u32::try_from(number).unwrap().to_le_bytes());
            }
            data.extend_from_slice(key);
            data.extend_from_slice(value);
        }
        page.extend(data);
        page
    }

    fn branch(children: &[u64]) -> Vec<u8> {
        let mut page = vec![0; PAGE_HEADER];
        page[8..10].copy_from_slice(&BRANCH.to_le_bytes());
        page[10..12].copy_from_slice(&u16::try_from(children.len()).unwrap().to_le_bytes());
        for child in children {
            page.extend([0; 8]);
            page.extend(child.to_le_bytes());
        }
        page
    }

    fn meta(root: u64, transaction: u64) -> Vec<u8> {
        let mut meta = Vec::new();
        for number in [MAGIC, VERSION, u32::try_from(SIZE).unwrap(), 0] {
            meta.extend(number.to_le_bytes());
        }
        for number in [root, 0, 0, 9, transaction] {
            meta.extend(number.to_le_bytes());
        }
        let sum = fnv(&meta);
        meta.extend(sum.to_le_bytes());
        let mut page = vec![0; PAGE_HEADER];
        page.extend(meta);
        page
    }

    fn file(pages: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, page) in pages.iter().enumerate() {
            bytes.extend_from_slice(page);
            bytes.resize((number + 1) * SIZE, 0);
        }
        bytes
    }

    fn keys(bucket: Bucket<'_>) -> Vec<String> {
        let entries = bucket.entries().unwrap();
        entries.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn the_last_transaction_counts_and_buckets_are_inline_or_pages() {
        let mut inline = vec![0; BUCKET_HEADER];
        inline.extend(leaf(&[(b"x", false, b"1")]));
        let mut paged = 4_u64.to_le_bytes().to_vec();
        paged.extend([0; 8]);
        let bytes = file(&[
            meta(5, 6),
            meta(2, 7),
            leaf(&[(b"a", true, &inline), (b"b", true, &paged), (b"c", false, b"value")]),
            Vec::new(),
            branch(&[5, 6]),
            leaf(&[(b"y", false, b"2")]),
            leaf(&[(b"z", false, b"3")]),
        ]);
        let database = Database::of(bytes.clone()).unwrap();
        let root = database.root();
        assert_eq!(keys(root), ["a", "b", "c"]);
        assert_eq!(keys(root.bucket("a").unwrap().unwrap()), ["x"]);
        assert_eq!(keys(root.bucket("b").unwrap().unwrap()), ["y", "z"]);
        assert!(root.bucket("c").unwrap().is_none() && root.bucket("d").unwrap().is_none());
        // A transaction that was cut short while its meta page was written.
        let mut cut = bytes;
        cut[SIZE + PAGE_HEADER + 20] ^= 1;
        assert_eq!(keys(Database::of(cut).unwrap().root()), ["y"]);
    }

    #[test]
    fn damage_is_an_error() {
        let of = |page: Vec<u8>| {
            let database = Database::of(file(&[meta(2, 1), meta(2, 1), page])).unwrap();
            database.root().entries().map(|entries| entries.len())
        };
        assert_eq!(of(branch(&[2])), Err("its pages form a circle"));
        assert_eq!(of(branch(&[99])), Err("a page of it is not in the file"));
        assert_eq!(of(branch(&[u64::MAX])), Err("a page of it is not in the file"));
        assert!(of(vec![0; 20]).is_ok_and(|count| count == 0));
        let mut long = leaf(&[(b"a", false, b"b")]);
        long[PAGE_HEADER + 8..PAGE_HEADER + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(of(long), Err("a page of it is cut off"));
        assert_eq!(Database::of(vec![0; 9000]).unwrap_err(), "it is not a bbolt database");
        assert_eq!(Database::of(Vec::new()).unwrap_err(), "it is not a bbolt database");
    }

    proptest! {
            #[test]
            fn no_page_makes_it_panic(page in prop::collection::vec(any::<u8>(), 16..400)) {
                for kind in [BRANCH, LEAF] {
                    let mut page = page.clone();
    let count = page[10] % 8;
                    page[8..12].copy_from_slice(&[kind.to_le_bytes()[0], 0, count, 0]);
                    let database = Database::of(file(&[meta(2, 1), meta(2, 1), page])).unwrap();
                    let _either = database.root().entries();
                }
            }
        }
}
