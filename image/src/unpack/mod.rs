// SPDX-License-Identifier: Apache-2.0
//! Unpacks a layer's archive into a directory of its own, in the form that overlayfs stacks.
//!
//! ```text
//! archive  bytes → entries                         names  what a name asks for
//! tree     entries → files beneath one descriptor  links  hard links to what lies in layers below
//! ```
//!
//! The rule: whatever the archive says, nothing outside the directory is made, changed or read. Every
//! name is resolved by the kernel beneath the directory's descriptor, and the last part of a name is
//! never followed. A name that climbs out is an error: its author meant harm.

mod archive;
mod links;
mod names;
mod pax;
mod sparse;
mod tree;

pub(crate) use archive::{Archive, Kind};
pub(crate) use links::copy_up;
pub(crate) use names::clean;

use crate::error::SharedIo;
use hull_sys as sys;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Why a layer could not be unpacked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The archive's form is wrong.
    #[error("the archive is malformed near byte {at}: {why}")]
    Malformed {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// An entry that must not be unpacked.
    #[error("entry `{entry}` is refused: {why}")]
    Refused {
        /// Its name.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes could not be read or inflated.
    #[error("read the archive")]
    Read {
        /// Why.
        source: SharedIo,
    },
    /// The filesystem.
    #[error("make entry `{entry}`")]
    Make {
        /// Its name.
        entry: String,
        /// Why.
        source: sys::Error,
    },
    /// A hard link to something that no layer has.
    #[error(
        "make entry `{entry}`: it is a hard link to `{target}`, which neither this layer nor one below has"
    )]
    LinkToNothing {
        /// Its name.
        entry: String,
        /// What it links to.
        target: String,
    },
}

impl Error {
    /// Whether the archive is to blame, not this machine.
    pub(crate) fn is_archives_fault(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::Refused { .. }
            | Self::Read { .. }
            | Self::LinkToNothing { .. } => true,
            Self::Make { source, .. } => {
                use rustix::io::Errno;
                matches!(
                    source.errno(),
                    Errno::NOTDIR | Errno::LOOP | Errno::INVAL | Errno::NAMETOOLONG
                )
            }
        }
    }

    /// The failure of a system call, if that is what it was.
    pub(crate) fn system(&self) -> Option<&sys::Error> {
        match self {
            Self::Make { source, .. } => Some(source),
            Self::Malformed { .. }
            | Self::Refused { .. }
            | Self::Read { .. }
            | Self::LinkToNothing { .. } => None,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// About what it takes on disk.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Hard links to what this layer does not have: name and target, in the order written.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Unpacks an archive into the directory `root`, which must be empty, and gives back the reader where
/// the archive ends.
pub(crate) fn unpack<R: Read>(reader: R, root: OwnedFd) -> Result<(Unpacked, R), Error> {
    let mut archive = Archive::new(reader);
    let mut tree = tree::Tree::new(root);
    while let Some(entry) = archive.next()? {
        tree.add(&entry, &mut archive.data())?;
    }
    Ok((tree.finish()?, archive.into_inner()))
}

/// A name as it may be shown.
fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    let cut = &name[..name.len().min(SHOWN_BYTES)];
    let more = if cut.len() < name.len() { "…" } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut).escape_debug())
}

#[cfg(test)]
mod tests;
