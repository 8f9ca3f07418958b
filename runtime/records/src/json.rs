// SPDX-License-Identifier: Apache-2.0
//! Versioned JSON documents.

use crate::error::{Error, Unusable};
use crate::location::Location;
use crate::replace::{Durability, PRIVATE, replace};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The field that every document has.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

/// Encodes a document. `location` is only for the error.
///
/// # Errors
/// [`Error::Encode`]: a map has keys that are not strings, or a `Serialize` failed.
pub fn encode<T: Serialize>(record: &T, location: Location<'_>) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|source| Error::Encode { path: location.path(), source })
}

/// Decodes a document whose version is at most `newest`. The version is read first: the other fields of a newer
/// document may have any form.
///
/// # Errors
/// [`Unusable::Version`] for a newer document, else [`Unusable::Syntax`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8], newest: u32) -> Result<T, Unusable> {
    let syntax = |cause| Unusable::Syntax { cause };
    let Head { version } = serde_json::from_slice(bytes).map_err(syntax)?;
    if version > newest {
        return Err(Unusable::Version { found: version, newest });
    }
    serde_json::from_slice(bytes).map_err(syntax)
}

/// Reads a document of at most `bytes_max` bytes.
///
/// # Errors
/// [`Error::Read`]; [`Error::is_not_found`] if there is no file.
pub fn read_record<T: DeserializeOwned>(
    location: Location<'_>,
    bytes_max: u64,
    newest: u32,
) -> Result<T, Error> {
    location
        .read(bytes_max)
        .and_then(|bytes| decode(&bytes, newest))
        .map_err(|source| Error::Read { path: location.path(), source })
}

/// Replaces a document that only its owner reads, as [`replace`] does.
///
/// # Errors
/// [`Error::Encode`] or [`Error::Write`]; the file then has its old content.
pub fn replace_record<T: Serialize>(
    location: Location<'_>,
    scratch: Location<'_>,
    record: &T,
    durability: Durability,
) -> Result<(), Error> {
    let bytes = encode(record, location)?;
    replace(location, scratch, &bytes, PRIVATE, durability)
        .map_err(|source| Error::Write { path: location.path(), source })
}
