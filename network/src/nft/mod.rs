// SPDX-License-Identifier: Apache-2.0
//! Our nftables table: its messages ([`message`]), its expressions ([`expr`]), what leads ports to pods
//! ([`elements`]), its layout ([`table`]), the [`sockets`] that changes go out by.
//!
//! The rule: every change is one batch, which the kernel takes whole or not at all, and it only ever
//! names our own table.

mod elements;
mod expr;
mod message;
mod sockets;
mod table;

pub(crate) use elements::Published;
pub(crate) use sockets::Sockets;
pub(crate) use table::{Layout, RuleCounts, Table};
