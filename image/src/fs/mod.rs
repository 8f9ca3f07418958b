// SPDX-License-Identifier: Apache-2.0
//! File system access of the store, with errors that name the path.
//!
//! ```text
//! files   create, read, rename, sync and remove files and directories
//! walk    visit every entry of a tree of any depth; measure its disk usage
//! holes   find the data segments of a sparse file
//! spill   keep a list that is too long for memory in an unnamed file
//! ```

pub(crate) mod files;
pub(crate) mod holes;
pub(crate) mod spill;
pub(crate) mod walk;
