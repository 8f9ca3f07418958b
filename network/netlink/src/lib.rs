// SPDX-License-Identifier: Apache-2.0
//! Netlink: a blocking [`Socket`] with batches, [`Attributes`], and requests for [`link`]s, addresses and
//! [`route`]s, for the [`address`]es of a link, for a list of [`routes`], and for queues ([`qdisc`]). [`devices`] moves
//! links between network namespaces.
//!
//! Every call blocks, until the kernel has answered. Not here: pods, and what their network is made of.

pub mod address;
mod attributes;
pub mod devices;
pub mod link;
pub mod qdisc;
pub mod route;
pub mod routes;
mod socket;

pub use attributes::Attributes;
pub use socket::{Response, Socket};

/// The index of the loopback link in every network namespace.
pub const LOOPBACK: u32 = 1;
