// SPDX-License-Identifier: Apache-2.0
//! Pod networks: the built-in one, and CNI plugins. [`Network`] is either.
//!
//! The built-in one is a bridge, with a link and addresses per pod, host ports and masquerading:
//!
//! ```text
//!  pod netns            host netns
//!  eth0 ───── hull<11 hex> ─┐
//!  eth0 ───── hull<11 hex> ─┴─ hull0 (gateway) ── routed ── the node's other links
//!                               └ table `inet hull`: host ports, masquerade, guard
//! ```
//!
//! Instead of the bridge it can be links on the node's uplink, each in its pod (`sublink`).
//!
//! A pod with a rate has a token bucket on its link, and one on a link `hulq<11 hex>` for what it sends.
//!
//! The rule: a pod's addresses and ports are on disk before the first thing of it is on the host, and
//! until after the last is gone. Names are worked out from the pod's id, and there is one teardown:
//! [`Bridge::detach`], or [`Bridge::release`] for a pod whose processes are gone, which leaves the wait
//! for the kernel to a thread.
//!
//! Everything here blocks, for about a millisecond; callers use a thread that may. Calls for the same
//! pod must not overlap; calls for different pods may, in any number.
//!
//! Not here: making network namespaces (`hull-sys`), knowing what a pod is.

mod builtin;
pub mod cni;
mod error;
mod ipam;
mod netlink;
mod netns;
mod network;
mod nft;
mod records;
mod sync;
mod types;

pub use builtin::{Attachment, Bridge, Config};
pub use cni::Cni;
pub use error::Error;
pub use netns::{interface_stats, loopback_up};
pub use network::Network;
pub use types::{Bandwidth, Dns, InterfaceStats, Links, Pod, PortMapping, Protocol, Request};
