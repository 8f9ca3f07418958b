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

mod auth;
mod credentials;
mod digest;
mod document;
mod error;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod holes;
mod inventory;
mod layer;
pub mod limits;
mod pipe;
mod platform;
mod policy;
mod reference;
mod registry;
mod spill;
mod store;
mod tree;
mod unpack;
mod view;
mod watch;

pub use auth::Auth;
pub use error::{Cause, Error, Fault, Unreachable};
pub use limits::Limits;
pub use reference::Reference;
pub use store::{
    Config, FsUsage, Image, Imported, Measure, Problem, Progress, ProgressState, Registry, Remote,
    Room, Rootfs, Spool, Store, Verified,
};
pub use unpack::Error as UnpackError;
pub use view::{Kind, kind_inside, read_inside, view};
pub use watch::Wait;
