// SPDX-License-Identifier: Apache-2.0
//! Unpacks a layer's archive into its own directory, in the form that overlayfs stacks.
//!
//! ```text
//! archive   blocks → entries (fields, pax, sparse)  names    cleaned names, whiteouts
//! tree      entries → files beneath a descriptor    links    hard links into layers below
//! metadata  owner, mode, attributes, times          replace  removes conflicting files
//! implied   directories that no entry lists        parents  their creation
//! nodes     symlinks, FIFOs and devices            copy_up  what links into layers below get
//! compression  the names of forms that are not unpacked
//! ```
//!
//! The rule: no archive can create, change or read anything outside of the directory. Every
//! name is resolved by the kernel beneath the directory's descriptor, and the last part of a name is
//! never followed. A name that climbs out is an error: its author meant harm. Where a link leads stops at
//! the root, as it does in the container.

mod archive;
mod blocks;
mod compression;
mod content;
mod copy_up;
mod entry;
mod error;
mod fields;
mod implied;
mod links;
mod metadata;
mod names;
mod nodes;
mod parents;
mod pax;
mod replace;
mod sparse;
mod tree;
mod unpacked;

pub(crate) use archive::Archive;
pub(crate) use copy_up::{CopyCost, copy_up};
pub(crate) use entry::Kind;
pub use error::Error;
pub(crate) use error::charge;
pub(crate) use implied::cost;
pub(crate) use links::Links;
pub(crate) use names::{clean, split, target};
pub(crate) use unpacked::Unpacked;

use crate::file_list::Writer;
use crate::limits::{ImpliedNames, Limits};
use hull_sys as sys;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Unpacks an archive into the empty directory `root`, and returns the reader at the end of the
/// archive. Every file is added to `file_list`. `names` is the memory for implied directories.
pub(crate) fn unpack<R: Read>(
    reader: R,
    root: OwnedFd,
    (limits, names): (Limits, ImpliedNames),
    file_list: &mut Writer,
) -> Result<(Unpacked, R), Error> {
    let failed = |source| Error::Make {
        entry: "its file list".into(),
        source: sys::Error::of_io(|| "write(file list)")(source),
    };
    let mut archive = Archive::recording(reader, limits);
    let mut tree = tree::Tree::new(root, limits, names);
    while let Some(entry) = archive.next()? {
        file_list.raw(&archive.take_raw()).map_err(failed)?;
        for (path, kind, metadata) in tree.add(&entry, &mut archive.data())? {
            file_list.entry(path, kind, metadata).map_err(failed)?;
        }
    }
    while archive.trailer()? {
        file_list.raw(&archive.take_raw()).map_err(failed)?;
    }
    file_list.raw(&archive.take_raw()).map_err(failed)?;
    if archive.is_lossy() {
        file_list.not_exact();
    }
    let unpacked = tree.finish()?;
    file_list.implied(&unpacked.implied).map_err(failed)?;
    Ok((unpacked, archive.into_inner()))
}

#[cfg(test)]
mod below;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
