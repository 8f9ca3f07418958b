// SPDX-License-Identifier: Apache-2.0
//! Pod network, built in: a bridge, a veth per pod, addresses, and one nftables table.
//!
//! ```text
//! pod netns            host
//!  eth0 ═══ veth ═══ hull<id> ── bridge hull0 (gateway) ── routed, masqueraded ──▶ elsewhere
//! ```
//!
//! The rule: everything of a pod is found by a name worked out from its id, and [`Bridge::detach`] is
//! the one way it goes, after a failed attach too. Addresses given out are small files, written
//! before anything is made. The host is not touched before the first attach.
//!
//! Knows nothing of CRI. Synchronous: every call is a few netlink messages.

mod bridge;
mod error;
mod ipam;
mod link;
mod netlink;
mod nft;

pub use bridge::{Attachment, Bridge, Config, Pod, interface_stats, loopback_up};
pub use error::Error;
pub use ipam::{PortMapping, Protocol};
pub use link::InterfaceStats;
