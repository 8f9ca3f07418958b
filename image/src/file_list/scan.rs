// SPDX-License-Identifier: Apache-2.0
//! Whether everything of an inventory is there, of its type and size. No content is read: about two
//! microseconds per file, so that a layer can be looked through before it is first used after a boot.
//!
//! That finds what power cuts leave: files that are missing, empty or cut. It does not find bytes, modes
//! or owners that were altered, nor what was added; [`verify`](super::verify()) does.

use super::finding::{Finding, Mismatch};
use super::item::Item;
use super::lookup::Lookup;
use super::read::Reader;
use std::io;
use std::os::fd::BorrowedFd;

/// Finds the first thing that is not as it should be.
pub(crate) fn scan(root: BorrowedFd<'_>, items: Reader) -> io::Result<Option<Finding>> {
    let mut lookup = Lookup::new(root);
    for item in items {
        let Item::Entry { path, kind, .. } = item? else { continue };
        if let Err(why) = lookup.check_shape(&path, &kind) {
            return Ok(Some(Finding { path, why, mismatch: Mismatch::Content }));
        }
    }
    Ok(None)
}
