// SPDX-License-Identifier: Apache-2.0
//! A coarse classification of errors, from which a protocol derives its codes.

/// Whose fault something is, coarsely, for codes of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The name or the credentials make no sense.
    BadReference,
    /// There is no such image, or none for this machine.
    NotFound,
    /// The registry does not give it.
    Denied,
    /// The registry cannot be talked to now.
    Unreachable,
    /// A container uses it.
    InUse,
    /// Another image has the name.
    Taken,
    /// What came is not what was announced, or hostile.
    Corrupt,
    /// The operator does not want it here.
    Policy,
    /// This machine.
    Other,
}
