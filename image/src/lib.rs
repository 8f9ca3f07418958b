// SPDX-License-Identifier: Apache-2.0
//! Images: from a registry or an archive to directories that overlayfs can stack.
//!
//! ```text
//! Reference ─┐              ┌ registry  (HTTP, tokens, resume) ┐
//!            ├─ Store::pull ┤                                  ├ layer → unpack → layers/<diff id>/
//! Auth ──────┘              └ import    (archives)             ┘
//! ```
//!
//! The rule: nothing is listed before every byte of it was checked against its digest, lies in its
//! place and was made durable. Every layer is unpacked into a directory of its own, so layers need
//! no order, and no compressed copy is kept.
//!
//! Not here: mounting root filesystems (the monitor does), and anything about pods.

mod credentials;
mod digest;
mod error;
mod file_list;
mod fs;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod layer;
pub mod limits;
mod manifest;
mod policy;
mod reference;
mod registry;
mod store;
mod types;
mod unpack;
mod view;

pub use credentials::auth::Auth;
pub use error::{Cause, Error, Fault, Unreachable};
pub use layer::progress::Wait;
pub use limits::Limits;
pub use reference::Reference;
pub use store::{Measure, Progress, ProgressState, Rootfs, Spool, Store};
pub use types::{
    Config, DiskCapacity, FsUsage, Image, Imported, Problem, Registry, Remote, Verified,
};
pub use unpack::Error as UnpackError;
pub use view::{Kind, kind_inside, read_inside, view};
