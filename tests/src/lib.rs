// SPDX-License-Identifier: Apache-2.0
//! The library of tests that need a whole node: images made here, a registry to pull them from, and
//! [`Node`], the real daemon with everything of its own.
//!
//! The rule: a test sees Hull only as a kubelet or a person does, over the socket and the command
//! line, and looks at the host for what is left behind. Nothing here links the daemon.
//!
//! A helper that cannot do its part panics with what it tried: in a test that is the report.

pub mod bolt;
pub mod book;
pub mod bundle;
pub mod calls;
pub mod certificates;
pub mod corpus;
pub mod cri;
pub mod crictl;
pub mod debian;
pub mod disk;
pub mod eventually;
pub mod expect;
pub mod fixture;
pub mod host;
pub mod hostile;
pub mod image;
pub mod kubernetes;
pub mod layer;
pub mod memory;
pub mod node;
pub mod paths;
pub mod plugin;
pub mod process;
pub mod random;
pub mod registry;
pub mod rust_source;
pub mod scrape;
pub mod session;
pub mod shell;
pub mod storage;
pub mod suite;
pub mod terminal;

pub use cri::{Cri, Exec};
pub use eventually::eventually;
pub use expect::ExpectExt;
pub use node::Node;
