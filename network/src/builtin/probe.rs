// SPDX-License-Identifier: Apache-2.0
//! Probes whether this kernel supports everything that pods need, in a temporary network namespace.
//!
//! It makes the real calls instead of looking for modules: that loads modules, tests capabilities, and
//! works for built-in features.

use crate::error::{Error, PROBE_BRIDGE, PROBE_IPVLAN, PROBE_MACVLAN, PROBE_NFT, PROBE_VETH};
use crate::nft::{Layout, Table};
use hull_netlink::link::LinkMode;
use hull_netlink::{Socket, link};
use hull_sys::{self as sys, netns};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, BorrowedFd};

const BRIDGE: &str = "probe";
const MTU: u32 = 1500;

/// Creates a bridge, a veth pair (or a sub-interface) and the table in a temporary namespace.
pub(crate) fn probe(
    table: &Table<'_>,
    layout: &Layout<'_>,
    link_mode: LinkMode,
) -> Result<(), Error> {
    let enter = |source| Error::Enter { source };
    let scratch = netns::create().map_err(enter)?;
    let inside = scratch.as_fd();
    netns::within(inside, || {
        make_links(inside, link_mode)?;
        let made = Socket::netfilter().and_then(|socket| table.replace(&socket, layout, &[]));
        made.map_err(|source| Error::Probe { what: PROBE_NFT, source })
    })
    .map_err(enter)?
}

fn make_links(netns: BorrowedFd<'_>, link_mode: LinkMode) -> Result<(), Error> {
    let socket = Socket::route().map_err(|source| Error::Socket { source })?;
    let bridge =
        make_bridge(&socket).map_err(|source| Error::Probe { what: PROBE_BRIDGE, source })?;
    let pair = link::VethPair {
        host: "probe0",
        bridge,
        alias: "probe",
        netns,
        inside: "probe1",
        mac: [2, 0, 0, 0, 0, 2],
        mtu: MTU,
    };
    let mut batch = socket.batch();
    link::make_pair(&mut batch, &pair);
    link::finish_pair(&mut batch, &pair);
    batch.run().map_err(|source| Error::Probe { what: PROBE_VETH, source })?;
    let what = match link_mode {
        LinkMode::Bridge => return Ok(()),
        LinkMode::Macvlan => PROBE_MACVLAN,
        LinkMode::Ipvlan => PROBE_IPVLAN,
    };
    let failed = |source| Error::Probe { what, source };
    let uplink = link::find(&socket, "probe1").map_err(failed)?.map_or(0, |link| link.index);
    let mut batch = socket.batch();
    let sub = link::SubInterface {
        name: "probe2",
        kind: link_mode,
        uplink,
        mac: [2, 0, 0, 0, 0, 3],
        mtu: MTU,
    };
    link::make_sub_interface(&mut batch, &sub, None);
    batch.run().map_err(failed)
}

fn make_bridge(socket: &Socket) -> sys::Result<u32> {
    let mut batch = socket.batch();
    link::make_bridge(&mut batch, BRIDGE, [2, 0, 0, 0, 0, 1], MTU);
    batch.run()?;
    let made = link::find(socket, BRIDGE)?;
    made.map(|link| link.index).ok_or_else(|| sys::Error::new(Errno::NODEV, "RTM_GETLINK(probe)"))
}
