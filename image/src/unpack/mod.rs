// SPDX-License-Identifier: Apache-2.0
//! Unpacks a layer's archive into a directory of its own, in the form that overlayfs stacks.
//!
//! ```text
//! archive  bytes → entries                         names  what a name asks for
//! tree     entries → files beneath one descriptor  links  hard links to what lies in layers below
//! dress    what they wear                          way    what is in an entry's way
//! ```
//!
//! The rule: whatever the archive says, nothing outside the directory is made, changed or read. Every
//! name is resolved by the kernel beneath the directory's descriptor, and the last part of a name is
//! never followed. A name that climbs out is an error: its author meant harm. Where a link leads stops at
//! the root, as it does in the container.

mod archive;
mod blocks;
mod entry;
mod error;
mod links;
mod metadata;
mod names;
mod pax;
mod replace;
mod sparse;
mod tree;
mod unpacked;

pub(crate) use archive::Archive;
pub(crate) use entry::Kind;
pub use error::Error;
pub(crate) use error::charge;
pub(crate) use links::{Copied, Links, copy_up};
pub(crate) use names::{clean, split, target};
pub(crate) use unpacked::Unpacked;

use crate::file_list::Writer;
use crate::limits::Limits;
use hull_sys as sys;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Unpacks an archive into the directory `root`, which must be empty, and gives back the reader where
/// the archive ends. What is in it goes into `notes`.
pub(crate) fn unpack<R: Read>(
    reader: R,
    root: OwnedFd,
    limits: Limits,
    file_list: &mut Writer,
) -> Result<(Unpacked, R), Error> {
    let failed = |source| Error::Make {
        entry: "its inventory".into(),
        source: sys::Error::of_io(|| "write(inventory)")(source),
    };
    let mut archive = Archive::recording(reader, limits);
    let mut tree = tree::Tree::new(root, limits);
    while let Some(entry) = archive.next()? {
        file_list.raw(&archive.take_raw()).map_err(failed)?;
        for (path, kind, metadata) in tree.add(&entry, &mut archive.data())? {
            file_list.entry(path, kind, metadata).map_err(failed)?;
        }
    }
    archive.trailer()?;
    file_list.raw(&archive.take_raw()).map_err(failed)?;
    if archive.is_lossy() {
        file_list.not_exact();
    }
    Ok((tree.finish()?, archive.into_inner()))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
