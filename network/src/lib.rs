// SPDX-License-Identifier: Apache-2.0
//! Pod networks: the built-in network, or CNI plugins. [`Network`] has both, and decides who attaches a pod.
//!
//! ```text
//! network.rs ─┬─ builtin/ ─┬─ ipam/     addresses and host ports
//!             │            └─ nft/      the nftables table
//!             └─ cni/                   the runtime's side of CNI
//!                   both on netns.rs and hull-netlink
//! ```
//!
//! The rule: a pod's addresses and ports are on disk before anything of it exists on the host, and until
//! everything is gone. Names are derived from the pod's id, and there is one teardown:
//! [`BuiltinNetwork::detach`], or [`BuiltinNetwork::release`] for a pod whose processes have ended, which
//! leaves the wait for the kernel to a thread.
//!
//! Every call blocks, for about a millisecond; call from a thread that may block. Calls for the same
//! pod must not overlap; calls for different pods may run in parallel.
//!
//! Not here: creating network namespaces (`hull-sys`); pods beyond their ids, names and ports.

mod builtin;
pub mod cni;
mod error;
mod held_ports;
mod ipam;
pub mod limits;
mod listeners;
mod netns;
mod network;
mod nft;
mod ports_in_use;
mod records;
mod sync;
mod types;

pub use builtin::{Attachment, BuiltinNetwork, Config, has_records};
pub use cni::Cni;
pub use error::Error;
pub use held_ports::Holder;
pub use hull_netlink::link::LinkMode;
pub use listeners::{Listener, listeners};
pub use netns::{interface_stats, loopback_up};
pub use network::{Choice, Mode, Network};
pub use types::{
    Bandwidth, Dns, InterfaceStats, LinkState, Pod, PortMapping, Protocol, Provider, Request,
    RequestedNetwork,
};
