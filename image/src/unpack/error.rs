// SPDX-License-Identifier: Apache-2.0
//! Why a layer could not be unpacked, and whose fault it is.

use crate::error::text;
use crate::limits::{Budget, Ended, LAYER_SECONDS};
use hull_sys as sys;
use std::io;
use std::sync::Arc;

/// An I/O error that every caller of a shared pull receives.
pub(crate) type SharedIo = Arc<io::Error>;

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
            Self::Limit { budget, .. } => Some(budget.hint()),
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

/// Adds `more` to a counter; an error if the sum exceeds `max`.
pub(crate) fn charge(
    budget: &'static Budget,
    counted: &mut u64,
    more: u64,
    max: u64,
) -> Result<(), Error> {
    *counted = counted.saturating_add(more);
    if *counted > max { Err(Error::Limit { budget, max }) } else { Ok(()) }
}

/// An entry's name for a message: escaped, on one line, cut to a bounded length.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN_BYTES: usize = 200;
    text::shown(name, SHOWN_BYTES)
}
