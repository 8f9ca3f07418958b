// SPDX-License-Identifier: Apache-2.0
//! A coarse classification of errors, from which a protocol derives its codes.

/// A class of errors, for the codes of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The name or the credentials are invalid.
    BadReference,
    /// The image does not exist, or not for this platform.
    NotFound,
    /// The registry refuses access.
    Denied,
    /// The registry cannot be reached.
    Unreachable,
    /// A container uses the image.
    InUse,
    /// Another image has the name.
    Taken,
    /// The content does not match its digest, or is malformed or hostile.
    Corrupt,
    /// The image policy refuses the image.
    Policy,
    /// A failure on this machine.
    Other,
}
