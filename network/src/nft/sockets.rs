// SPDX-License-Identifier: Apache-2.0
//! Keeps nftables sockets open between changes.
//!
//! The kernel destroys removed elements one RCU grace period later (10 to 20 ms), and closing *any*
//! nftables socket meanwhile waits for that. So a caller that removes a host port, or only reads, does not
//! close its socket.
//!
//! The rule: one caller uses a socket at a time, and it is kept only after a success: after an error it
//! may hold unread responses.

use crate::sync::lock_unpoisoned;
use hull_netlink::Socket;
use hull_sys::Result;
use std::sync::Mutex;

/// Most sockets that are kept.
const KEPT_MAX: usize = 4;

/// The idle sockets. They belong to the network namespace in which they were opened.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Vec<Socket>>);

impl Sockets {
    /// Runs `work` with an idle or a new socket.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Socket) -> Result<T>) -> Result<T> {
        let kept = lock_unpoisoned(&self.0).pop();
        let socket = kept.map_or_else(Socket::netfilter, Ok)?;
        let done = work(&socket)?;
        let mut kept = lock_unpoisoned(&self.0);
        if kept.len() < KEPT_MAX {
            kept.push(socket);
        }
        Ok(done)
    }
}
