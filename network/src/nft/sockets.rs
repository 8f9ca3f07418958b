// SPDX-License-Identifier: Apache-2.0
//! Sockets to nftables that stay open from one change to the next.
//!
//! The kernel ends what a change took out a grace period of RCU later (10 to 20 ms), and whoever closes
//! *any* socket of its kind meanwhile waits for that. So nobody closes one who takes out a host port, or
//! who only looks while others do.
//!
//! The rule: a socket is one caller's at a time, and kept only when all went well: after a refusal there
//! may be answers on it that nobody took.

use crate::netlink::Socket;
use crate::sync::alone;
use hull_sys::Result;
use std::sync::Mutex;

/// As many as are kept at most.
const KEPT_MAX: usize = 4;

/// Those that nobody uses now. They belong to the network namespace of who first needed them.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Vec<Socket>>);

impl Sockets {
    /// Does something with one.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Socket) -> Result<T>) -> Result<T> {
        let kept = alone(&self.0).pop();
        let socket = kept.map_or_else(Socket::netfilter, Ok)?;
        let done = work(&socket)?;
        let mut kept = alone(&self.0);
        if kept.len() < KEPT_MAX {
            kept.push(socket);
        }
        Ok(done)
    }
}
