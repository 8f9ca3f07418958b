// SPDX-License-Identifier: Apache-2.0
//! Why a layer could not be unpacked, and whose fault it is.

use crate::error::text;
use crate::limits::{self, Budget, Ended, LAYER_SECONDS};
use hull_sys as sys;
use std::io;
use std::sync::Arc;

/// An I/O error that every caller of a shared pull receives.
pub(crate) type SharedIo = Arc<io::Error>;

/// Why a layer could not be unpacked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The archive is malformed.
    #[error("the archive is malformed near byte {at}: {why}")]
    Malformed {
        /// The offset in the archive.
        at: u64,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The layer is compressed in a form that layers of images do not have.
    #[error("it is not a tar archive but {format}")]
    Compression {
        /// The name of the form.
        format: &'static str,
    },
    /// An entry was refused.
    #[error("entry `{entry}` is refused: {why}")]
    Refused {
        /// The name of the entry.
        entry: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The archive could not be read or decompressed.
    #[error("read the archive")]
    Read {
        /// The underlying error.
        source: SharedIo,
    },
    /// A limit was exceeded.
    #[error("it has more than the {max} {} that are allowed (`{}`)", budget.what, budget.name)]
    Limit {
        /// The limit that was exceeded.
        budget: &'static Budget,
        /// The largest value that is allowed.
        max: u64,
    },
    /// The caller no longer waits for the layer.
    #[error("cancelled: the caller left, or another part failed")]
    Unwanted,
    /// An entry could not be created.
    #[error("make entry `{entry}`")]
    Make {
        /// The name of the entry.
        entry: String,
        /// The underlying error.
        source: sys::Error,
    },
    /// A hard link has a target that no layer has.
    #[error(
        "make entry `{entry}`: it is a hard link to `{target}`, which neither this layer nor a lower one has"
    )]
    LinkToNothing {
        /// The name of the entry.
        entry: String,
        /// The target of the link.
        target: String,
    },
}

impl Error {
    /// The error with the name of the entry where the archive is malformed.
    pub(super) fn at_entry(mut self, name: &[u8]) -> Self {
        if let Self::Malformed { why, .. } = &mut self
            && !name.is_empty()
        {
            why.push_str(&format!(", at entry `{}`", shown(name)));
        }
        self
    }

    /// Whether the archive caused the error, not this machine.
    pub(crate) fn is_archives_fault(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::Compression { .. }
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

    /// The failed system call, if there was one.
    pub(crate) fn system(&self) -> Option<&sys::Error> {
        match self {
            Self::Make { source, .. } => Some(source),
            Self::Malformed { .. }
            | Self::Compression { .. }
            | Self::Refused { .. }
            | Self::Read { .. }
            | Self::Limit { .. }
            | Self::Unwanted
            | Self::LinkToNothing { .. } => None,
        }
    }

    /// Advice for the operator, where there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Limit { budget, .. } => Some(limits::hint(budget)),
            Self::Compression { format } => Some(format!(
                "layers may be compressed with gzip or zstd, as the OCI image specification says: push the image \
                 again without {format}"
            )),
            Self::Read { source } if is_of_format(source) => Some(
                "its data is damaged, truncated, or followed by extra bytes: pull it from another registry; if it is the same \
                 there, build the image again and push it"
                    .into(),
            ),
            Self::Malformed { .. } | Self::Refused { .. } | Self::LinkToNothing { .. } => Some(
                "if the layer is the same in other registries, build the image again, with another tool if the error stays"
                    .into(),
            ),
            Self::Read { .. } | Self::Make { .. } | Self::Unwanted => None,
        }
    }

    /// The error for a failed read.
    pub(crate) fn of_read(error: io::Error) -> Self {
        Self::of_work(error).unwrap_or_else(|error| Self::Read { source: SharedIo::new(error) })
    }

    /// The cancellation in an I/O error, if it is one; else the I/O error.
    pub(crate) fn of_work(error: io::Error) -> Result<Self, io::Error> {
        match Ended::of(&error) {
            Some(Ended::Unwanted) => Ok(Self::Unwanted),
            Some(Ended::Seconds { max }) => Ok(Self::Limit { budget: &LAYER_SECONDS, max }),
            None => error.downcast(),
        }
    }
}

/// Whether a decoder refused what it read. Errors of reading itself have a number of the system.
fn is_of_format(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    error.raw_os_error().is_none()
        && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
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
