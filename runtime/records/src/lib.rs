// SPDX-License-Identifier: Apache-2.0
//! Records on disk: small files that are replaced as a whole, and versioned JSON documents in them.
//!
//! ```text
//! location   a file of Hull's own: a path, or a name in an open directory
//! replace    write a scratch file, sync it, rename it, sync the directory
//! json       one versioned document
//! folder     a directory with one document per file, and what becomes of an unusable one
//! ```
//!
//! Three rules. A reader finds the old content or the new content, never a part of one, also after a process was
//! killed while it wrote. Reading is bounded, follows no link and waits for nothing, whatever lies in the file's
//! place. A record that cannot be used never keeps a program from starting: it is set aside, for a person to see.
//!
//! The format is the caller's. Every document has a field `version`; beside that it has its own fields, or a field
//! `record` with all of them.

mod error;
mod folder;
mod json;
mod location;
mod replace;
#[cfg(test)]
mod tests;

pub use error::{Error, Unusable};
pub use folder::{Folder, Loaded, SetAside, create_dir, set_aside};
pub use json::{decode, encode, read_record, replace_record};
pub use location::{Location, sync_dir};
pub use replace::{Durability, PRIVATE, replace, sync, write_new};
