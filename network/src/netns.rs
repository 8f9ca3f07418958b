// SPDX-License-Identifier: Apache-2.0
//! Netlink requests inside a pod's network namespace.
//!
//! Each call enters the namespace on a thread of its own, so no other thread ever changes namespaces.

use crate::error::Error;
use crate::types::InterfaceStats;
use hull_netlink::{LOOPBACK, Socket, link};
use hull_sys::{self as sys, netns};
use std::os::fd::BorrowedFd;

/// Brings the loopback link up.
///
/// # Errors
/// When the descriptor is not a network namespace, or the caller lacks the capability.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<(), Error> {
    visit(netns, |socket| {
        let mut batch = socket.batch();
        link::switch_on(&mut batch, LOOPBACK, "lo");
        batch.run()
    })
}

/// Reads the traffic counters of every link in a network namespace.
///
/// # Errors
/// When the descriptor is not a network namespace, or the caller lacks the capability.
pub fn interface_stats(netns: BorrowedFd<'_>) -> Result<Vec<InterfaceStats>, Error> {
    let links = visit(netns, link::all)?;
    let stats = links.into_iter().map(|link| InterfaceStats {
        name: link.name,
        rx_bytes: link.counters.rx_bytes,
        rx_packets: link.counters.rx_packets,
        rx_errors: link.counters.rx_errors,
        rx_dropped: link.counters.rx_dropped,
        tx_bytes: link.counters.tx_bytes,
        tx_packets: link.counters.tx_packets,
        tx_errors: link.counters.tx_errors,
        tx_dropped: link.counters.tx_dropped,
    });
    Ok(stats.collect())
}

fn visit<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce(&Socket) -> sys::Result<T> + Send,
) -> Result<T, Error> {
    let done = netns::within(netns, || Socket::route().and_then(|socket| work(&socket)));
    done.map_err(|source| Error::Enter { source })?.map_err(|source| Error::Inside { source })
}
