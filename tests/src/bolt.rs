// SPDX-License-Identifier: Apache-2.0
//! Writes a bbolt database, the form of containerd's metadata: all buckets in one page, each within the value of
//! the one above.

use crate::expect::ExpectExt;

const PAGE_BYTES: usize = 4096;
const ELEMENT_BYTES: usize = 16;
const LEAF: u16 = 2;
const META: u16 = 4;

/// A value of a bucket.
#[derive(Debug, Clone)]
pub enum Value {
    /// Bytes without a structure.
    Bytes(Vec<u8>),
    /// A bucket with these entries.
    Bucket(Vec<(String, Value)>),
}

impl Value {
    /// A text as a value.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

/// A bucket with one entry.
#[must_use]
pub fn bucket(name: &str, value: Value) -> Value {
    Value::Bucket(vec![(name.to_owned(), value)])
}

/// The database with these entries at its root.
#[must_use]
pub fn database(entries: Vec<(String, Value)>) -> Vec<u8> {
    let mut leaf = page(entries);
    let overflow = leaf.len() / PAGE_BYTES;
    leaf[12..16].copy_from_slice(&number(overflow));
    leaf[0] = 2;
    let mut bytes = Vec::new();
    for (id, page) in [meta(0), meta(1), leaf].into_iter().enumerate() {
        bytes.resize(id * PAGE_BYTES, 0);
        bytes.extend(page);
    }
    bytes.resize((3 + overflow) * PAGE_BYTES, 0);
    bytes
}

fn number(of: usize) -> [u8; 4] {
    u32::try_from(of).or_fail("fit a number into 32 bits").to_le_bytes()
}

/// A leaf page with the entries in the order of their names.
fn page(mut entries: Vec<(String, Value)>) -> Vec<u8> {
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    let mut page = vec![0; 16];
    page[8..10].copy_from_slice(&LEAF.to_le_bytes());
    let count = u16::try_from(entries.len()).or_fail("count the entries of a page");
    page[10..12].copy_from_slice(&count.to_le_bytes());
    let mut data = Vec::new();
    let all = entries.len();
    for (at, (name, value)) in entries.into_iter().enumerate() {
        let (is_bucket, value) = match value {
            Value::Bytes(bytes) => (0, bytes),
            Value::Bucket(inner) => {
                // The root page 0 and a sequence: the page follows.
                let mut bytes = vec![0; 16];
                bytes.extend(self::page(inner));
                (1, bytes)
            }
        };
        let offset = (all - at) * ELEMENT_BYTES + data.len();
        for part in [is_bucket, offset, name.len(), value.len()] {
            page.extend(number(part));
        }
        data.extend(name.into_bytes());
        data.extend(value);
    }
    page.extend(data);
    page
}

/// A meta page of the transaction with this number.
fn meta(transaction: u8) -> Vec<u8> {
    let mut meta = Vec::new();
    for part in [0xED0C_DAED, 2, 4096, 0_u32] {
        meta.extend(part.to_le_bytes());
    }
    for part in [2_u64, 0, u64::MAX, 3, u64::from(transaction)] {
        meta.extend(part.to_le_bytes());
    }
    let sum = meta.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    meta.extend(sum.to_le_bytes());
    let mut page = vec![transaction, 0, 0, 0, 0, 0, 0, 0];
    page.extend(META.to_le_bytes());
    page.resize(16, 0);
    page.extend(meta);
    page
}
