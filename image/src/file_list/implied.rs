// SPDX-License-Identifier: Apache-2.0
//! Reads the directories that an archive implies but does not list.

use super::item::Item;
use super::read::Reader;
use std::io;

/// The paths of the implied directories of a list.
pub(crate) fn implied(items: Reader) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    items.filter_map(|item| match item {
        Ok(Item::Implied(path)) => Some(Ok(path)),
        Ok(Item::Raw(_) | Item::Entry { .. } | Item::End { .. }) => None,
        Err(err) => Some(Err(err)),
    })
}
