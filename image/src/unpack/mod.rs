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
mod dress;
mod links;
mod names;
mod pax;
mod sparse;
mod tree;
mod way;

pub(crate) use archive::{Archive, Kind};
pub(crate) use links::{Copied, Links, copy_up};
pub(crate) use names::{clean, split, target};

use crate::error::SharedIo;
use crate::inventory::Writer;
use crate::limits::{self, Budget, Ended, LAYER_SECONDS, Limits};
use hull_sys as sys;
use std::io::{self, Read};
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
    /// More than is allowed: it may be a bomb.
    #[error("it has more than the {max} {} that are allowed (`{}`)", budget.what, budget.name)]
    Limit {
        /// Of what.
        budget: &'static Budget,
        /// How much is allowed.
        max: u64,
    },
    /// Nobody wants it any more.
    #[error("given up: who asked for it has left, or it failed elsewhere")]
    Unwanted,
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
            | Self::Limit { .. }
            | Self::LinkToNothing { .. } => true,
            Self::Unwanted => false,
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
            | Self::Limit { .. }
            | Self::Unwanted
            | Self::LinkToNothing { .. } => None,
        }
    }

    /// What the operator can do about it, where we know.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Limit { budget, .. } => Some(limits::hint(budget)),
            Self::Malformed { .. }
            | Self::Refused { .. }
            | Self::Read { .. }
            | Self::Make { .. }
            | Self::Unwanted
            | Self::LinkToNothing { .. } => None,
        }
    }

    /// What a failed read means.
    pub(crate) fn of_read(error: io::Error) -> Self {
        Self::of_work(error).unwrap_or_else(|error| Self::Read { source: SharedIo::new(error) })
    }

    /// Why work was given up, if that is what the error is; else the error.
    pub(crate) fn of_work(error: io::Error) -> Result<Self, io::Error> {
        match Ended::of(&error) {
            Some(Ended::Unwanted) => Ok(Self::Unwanted),
            Some(Ended::Seconds { max }) => Ok(Self::Limit { budget: &LAYER_SECONDS, max }),
            None => error.downcast(),
        }
    }
}

/// Adds to what was counted, unless that is more than is allowed.
pub(crate) fn charge(
    budget: &'static Budget,
    counted: &mut u64,
    more: u64,
    max: u64,
) -> Result<(), Error> {
    *counted = counted.saturating_add(more);
    if *counted > max { Err(Error::Limit { budget, max }) } else { Ok(()) }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// About what it takes on disk.
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Entries took the place of others: the inventory that was written is not what is there.
    pub(crate) replaced: bool,
    /// Bytes that its sparse files are long.
    pub(crate) apparent_bytes: u64,
    /// Hard links to what this layer does not have.
    pub(crate) links: Option<Links>,
}

/// Unpacks an archive into the directory `root`, which must be empty, and gives back the reader where
/// the archive ends. What is in it goes into `notes`.
pub(crate) fn unpack<R: Read>(
    reader: R,
    root: OwnedFd,
    limits: Limits,
    notes: &mut Writer,
) -> Result<(Unpacked, R), Error> {
    let noted = |source| Error::Make {
        entry: "its inventory".into(),
        source: sys::Error::of_io(|| "write(inventory)")(source),
    };
    let mut archive = Archive::recording(reader, limits);
    let mut tree = tree::Tree::new(root, limits);
    while let Some(entry) = archive.next()? {
        notes.raw(&archive.take_raw()).map_err(noted)?;
        for (path, what, dress) in tree.add(&entry, &mut archive.data())? {
            notes.entry(path, what, dress).map_err(noted)?;
        }
    }
    archive.trailer()?;
    notes.raw(&archive.take_raw()).map_err(noted)?;
    if archive.is_lossy() {
        notes.not_exact();
    }
    Ok((tree.finish()?, archive.into_inner()))
}

/// A name as it may be shown.
fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    crate::error::shown(name, SHOWN_BYTES)
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
