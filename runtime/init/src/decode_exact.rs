// SPDX-License-Identifier: Apache-2.0
//! Decodes lists into as much memory as they need. A list that grows as it is read leaves freed blocks behind, and in the
//! monitor they stay resident, once per pod.

use borsh::BorshDeserialize;
use borsh::io::{Read, Result};

/// Most items for which memory is reserved before any was read: the length is not believed beyond that.
const RESERVED_MAX: usize = 256;

/// Reads a list as borsh writes it: its length as `u32`, then its items.
pub(crate) fn items<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>> {
    let count = usize::try_from(u32::deserialize_reader(reader)?).unwrap_or(usize::MAX);
    let mut items = Vec::with_capacity(count.min(RESERVED_MAX));
    for _ in 0..count {
        items.push(T::deserialize_reader(reader)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_what_it_needs_and_a_false_length_reserves_little() {
        let list: Vec<String> = (0..100).map(|number| format!("item {number}")).collect();
        let bytes = borsh::to_vec(&list).unwrap();
        let read: Vec<String> = items(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, list);
        assert_eq!(read.capacity(), 100);
        for length in [101, u32::MAX] {
            let mut long = bytes.clone();
            long[..4].copy_from_slice(&length.to_le_bytes());
            items::<String, _>(&mut long.as_slice()).unwrap_err();
        }
    }
}
