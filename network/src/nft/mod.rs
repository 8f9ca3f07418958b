// SPDX-License-Identifier: Apache-2.0
//! Hull's nftables table: its layout ([`table`]), map elements for host ports ([`elements`]), expressions
//! ([`expr`]), messages ([`message`]), and the [`sockets`] that carry them.
//!
//! The rule: every change is one batch, which the kernel applies completely or not at all, and it refers
//! only to Hull's own table.

mod elements;
mod expr;
mod message;
mod sockets;
mod table;

pub(crate) use elements::Published;
pub(crate) use sockets::Sockets;
pub(crate) use table::{Layout, RuleCounts, Table};
