// SPDX-License-Identifier: Apache-2.0
//! Netlink: a blocking [`socket`] with batches, [`attributes`], and requests for [`link`]s, addresses and
//! [`route`]s, for a list of [`routes`], and for queues ([`qdisc`]).

mod attributes;
pub(crate) mod link;
pub(crate) mod qdisc;
pub(crate) mod route;
pub(crate) mod routes;
mod socket;

pub(crate) use attributes::Attributes;
pub(crate) use socket::{Response, Socket};

/// The index of the loopback link in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;
