// SPDX-License-Identifier: Apache-2.0
//! Removes conntrack entries of UDP flows when a host port gets another target.
//!
//! The kernel evaluates host ports only for the first packet of a flow. A UDP flow has no end: a client
//! that keeps sending keeps it alive, towards the node itself from before the pod existed, or towards the
//! address of a removed pod. So those entries are deleted, and the next packet starts a new flow.
//!
//! The rule: only flows to an address of this node and to the port in question, and of those only stale
//! ones. TCP and SCTP flows end by themselves.
//!
//! Numbers are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h; big-endian on the wire, but
//! for the filter's flags.

use crate::types::{PortMapping, Protocol};
use hull_netlink::{Attributes, Socket};
use hull_sys::Result;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NlasIterator};
use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use tracing::warn;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const FAMILIES: [u8; 2] = [2, 10];

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

/// A flow: the destination of its first packet, and the source of its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    to: IpAddr,
    port: u16,
    answered_by: IpAddr,
}

/// Deletes flows to these host ports that go anywhere but to `pods`, the addresses of their new target.
pub(crate) fn forget_stale(socket: &Socket, ports: &[PortMapping], pods: &[IpAddr]) {
    went_on(forget(socket, ports, |flow| !pods.contains(&flow.answered_by)));
}

/// Deletes flows to these host ports that go to `pods`, the addresses of their former target.
pub(crate) fn forget_pod(socket: &Socket, ports: &[PortMapping], pods: &[IpAddr]) {
    went_on(forget(socket, ports, |flow| pods.contains(&flow.answered_by)));
}

/// The pod works without this, so a failure is only logged.
fn went_on(forgotten: Result<()>) {
    if let Err(err) = forgotten {
        warn!(
            error = %err,
            "cannot delete old UDP flows to a host port: packets of existing flows may reach the wrong target (hint: modprobe nf_conntrack_netlink)"
        );
    }
}

fn forget(socket: &Socket, ports: &[PortMapping], stale: impl Fn(&Flow) -> bool) -> Result<()> {
    let mut local = HashMap::new();
    for port in ports.iter().filter(|port| port.protocol == Protocol::Udp) {
        for family in FAMILIES {
            for answer in list(socket, family, port)? {
                let Some((flow, named)) = read(&answer) else { continue };
                let ours = flow.port == port.host_port
                    && port.only_at().is_none_or(|ip| ip == flow.to)
                    && *local.entry(flow.to).or_insert_with(|| is_local(flow.to));
                if ours && stale(&flow) {
                    delete(socket, family, &named)?;
                }
            }
        }
    }
    Ok(())
}

/// Lists the flows to a port. Kernels before Linux 5.8 ignore the filter and list all.
fn list(socket: &Socket, family: u8, port: &PortMapping) -> Result<Vec<Vec<u8>>> {
    const PROTOCOL_AND_PORT: u32 = 1 << 3 | 1 << 5;
    let protocol = Attributes::default()
        .bytes(1, &[port.protocol.number()])
        .bytes(3, &port.host_port.to_be_bytes());
    let flags = Attributes::default().bytes(1, &PROTOCOL_AND_PORT.to_ne_bytes());
    let wanted = Attributes::default()
        .nested(ORIGINAL, Attributes::default().nested(2, protocol))
        .nested(FILTER, flags);
    let mut batch = socket.batch();
    let call = format!("IPCTNL_MSG_CT_GET({port})");
    batch.push_raw(GET, NLM_F_DUMP, call, &body(family, wanted.as_ref()));
    Ok(batch.dump()?.into_iter().map(|answer| answer.body).collect())
}

fn delete(socket: &Socket, family: u8, named: &[u8]) -> Result<()> {
    let mut batch = socket.batch();
    batch.push_raw(DELETE, NLM_F_ACK, "IPCTNL_MSG_CT_DELETE()", &body(family, named));
    match batch.run() {
        // The flow has already ended.
        Err(err) if err.is_not_found() => Ok(()),
        other => other,
    }
}

fn body(family: u8, attributes: &[u8]) -> Vec<u8> {
    [&[family, 0, 0, 0], attributes].concat()
}

/// Parses a flow, and the attributes that identify it.
fn read(answer: &[u8]) -> Option<(Flow, Vec<u8>)> {
    const HEADER: usize = 4;
    let attributes = answer.get(HEADER..)?;
    let original = value(attributes, ORIGINAL)?;
    let flow = Flow {
        to: address(original, false)?,
        port: u16::from_be_bytes(*value(value(original, 2)?, 3)?.first_chunk()?),
        answered_by: address(value(attributes, REPLY)?, true)?,
    };
    let mut named = Attributes::default().bytes(ORIGINAL | 0x8000, original);
    if let Some(zone) = value(attributes, ZONE) {
        named = named.bytes(ZONE, zone);
    }
    Some((flow, named.as_ref().to_vec()))
}

/// The source or destination address of one direction.
fn address(tuple: &[u8], source: bool) -> Option<IpAddr> {
    let ip = value(tuple, 1)?;
    let (four, six) = if source { (1, 3) } else { (2, 4) };
    if let Some(four) = value(ip, four) {
        return Some(IpAddr::from(*four.first_chunk::<4>()?));
    }
    Some(IpAddr::from(*value(ip, six)?.first_chunk::<16>()?))
}

/// The value of the first attribute of this kind.
fn value(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut left = attributes;
    loop {
        let found = NlasIterator::new(left).next()?.ok()?;
        let length = usize::from(u16::from_ne_bytes(*left.first_chunk()?));
        let inner = left.get(4..length)?;
        if found.kind() == kind {
            return Some(inner);
        }
        left = left.get(length.next_multiple_of(4)..)?;
    }
}

/// Whether this node has the address: only local addresses can be bound.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(source: [u8; 4], destination: [u8; 4], port: u16) -> Attributes {
        let ip = Attributes::default().bytes(1, &source).bytes(2, &destination);
        let protocol = Attributes::default().bytes(1, &[17]).bytes(3, &port.to_be_bytes());
        Attributes::default().nested(1, ip).nested(2, protocol)
    }

    #[test]
    fn a_flow_is_read_and_named_by_its_first_direction() {
        let original = tuple([10, 1, 0, 9], [10, 1, 0, 1], 53);
        let reported = Attributes::default()
            .bytes(3, &[0; 4])
            .nested(ORIGINAL, original)
            .nested(REPLY, tuple([10, 88, 0, 2], [10, 1, 0, 9], 4000))
            .bytes(ZONE, &[0, 7]);
        let (flow, named) = read(&body(2, reported.as_ref())).unwrap();
        let wanted =
            Flow { to: [10, 1, 0, 1].into(), port: 53, answered_by: [10, 88, 0, 2].into() };
        assert_eq!(flow, wanted);
        let again = Attributes::default()
            .nested(ORIGINAL, tuple([10, 1, 0, 9], [10, 1, 0, 1], 53))
            .bytes(ZONE, &[0, 7]);
        assert_eq!(named, again.as_ref());
    }

    #[test]
    fn what_is_cut_short_is_no_flow() {
        let reported = Attributes::default().nested(ORIGINAL, tuple([1; 4], [2; 4], 1));
        let whole = body(2, reported.as_ref());
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None);
        }
        assert!(is_local([127, 0, 0, 1].into()));
        assert!(!is_local([192, 0, 2, 200].into()));
    }
}
