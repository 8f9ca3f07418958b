// SPDX-License-Identifier: Apache-2.0
//! Images: from a registry or an archive to directories that overlayfs can stack.
//!
//! ```text
//! Store::pull ── registry  HTTP, tokens, resume ┐
//!                                               ├ layer → unpack → layers/<diff id>/ + file_list
//! Store::import ─ archives of images            ┘
//!
//! store → registry, layer, policy → unpack → file_list → fs, limits, error
//! ```
//!
//! The rule: an image is listed only after every byte was checked against its digest, is in its
//! place and is durable. Every layer is unpacked into its own directory, so layers can be pulled in
//! any order, and no compressed copy is stored.
//!
//! Not here: mounting root file systems (the monitor does that), and everything about pods.

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
pub use credentials::docker;
pub use digest::sha256;
pub use error::{ArchiveFault, Cause, Error, ErrorKind, Object, Unreachable};
pub use layer::progress::WaitReason;
pub use limits::Limits;
pub use reference::Reference;
pub use registry::{BreakerStates, HostFigures, PullFigures, check_hosts, tls_client};
pub use store::{
    Measure, NewSettings, Progress, ProgressState, Rootfs, Spool, Store, check_quotas,
};
pub use types::{
    Config, DiskCapacity, FsUsage, Image, Imported, Imports, LayerQuota, Left, Platform, Problem,
    Registry, Remote, Verified,
};
pub use unpack::Error as UnpackError;
pub use view::{Kind, kind_inside, read_inside, read_start_inside, view};
