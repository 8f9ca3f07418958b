// SPDX-License-Identifier: Apache-2.0
//! Netlink requests inside a network namespace.
//!
//! Each call visits the namespace with a thread of its own, so that no other thread is ever elsewhere.

use crate::error::Error;
use crate::netlink::{LOOPBACK, Socket, link};
use crate::types::InterfaceStats;
use hull_sys::{self as sys, netns};
use std::os::fd::BorrowedFd;

/// Switches loopback on.
///
/// # Errors
/// When the descriptor is no network namespace or we lack the right.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<(), Error> {
    visit(netns, |socket| {
        let mut batch = socket.batch();
        link::switch_on(&mut batch, LOOPBACK, "lo");
        batch.run()
    })
}

/// What the links of a network namespace have let through.
///
/// # Errors
/// When the descriptor is no network namespace or we lack the right.
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
