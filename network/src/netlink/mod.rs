// SPDX-License-Identifier: Apache-2.0
//! Netlink: the [`socket`], [`attributes`], and what is asked for by them: [`link`]s, addresses and
//! [`route`]s, the [`routes`] that there are, queues ([`qdisc`]).

mod attributes;
pub(crate) mod link;
pub(crate) mod qdisc;
pub(crate) mod route;
pub(crate) mod routes;
mod socket;

pub(crate) use attributes::Attributes;
pub(crate) use socket::{Answer, Socket};

/// The index of the loopback link in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;
