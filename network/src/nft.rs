// SPDX-License-Identifier: Apache-2.0
//! Our nftables table, in netlink batches: `nft(8)`, include/uapi/linux/netfilter/nf_tables.h.
//!
//! ```text
//! table inet hull {
//!   map ports      { inet_proto . inet_service : ipv4_addr . inet_service }
//!   map ports_at   { ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   chain guard          nothing from a pod to the node's 127.0.0.1
//!   chain prerouting, output   local destination → dnat to the maps' pod
//!   chain postrouting          pods going elsewhere, and what was led to a pod from the host
//!                              itself or a pod, is masqueraded
//! }
//! ```
//!
//! A batch is taken whole or not at all. A host port is one element of a map.

use crate::ipam::{Lease, PortMapping};
use crate::netlink::{ACK, Attrs, CREATE, Message};
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;
/// NFPROTO_INET, and NFPROTO_IPV4 inside rules.
const INET: u8 = 1;
const IPV4: u32 = 2;
const APPEND: u16 = 0x800;

/// Names of the maps, with the bytes of their keys and nft's number of the keys' types.
const PORTS: (&str, u32, u32) = ("ports", 8, 12 << 6 | 13);
const PORTS_AT: (&str, u32, u32) = ("ports_at", 12, (7 << 6 | 12) << 6 | 13);
/// `ipv4_addr . inet_service`.
const TARGET_TYPE: u32 = 7 << 6 | 13;
const TARGET_BYTES: u32 = 8;

/// Registers of four bytes each.
const REG_1: u32 = 1;
const REG_32_01: u32 = 9;
const REG_32_02: u32 = 10;

fn message(kind: u16, flags: u16, what: impl Into<String>) -> Message {
    Message::new(kind, flags, what).raw(&[INET, 0, 0, 0])
}

fn batch_mark(kind: u16) -> Message {
    // struct nfgenmsg with the subsystem's number, big-endian.
    Message::new(kind, 0, "nftables batch").raw(&[0, 0, 0, 10])
}

/// Wraps messages so that they are taken together.
pub(crate) fn batch(messages: Vec<Message>) -> Vec<Message> {
    let mut all = vec![batch_mark(BATCH_BEGIN)];
    all.extend(messages);
    all.push(batch_mark(BATCH_END));
    all
}

/// Asks whether the table is there.
pub(crate) fn get_table(table: &str) -> Message {
    message(GETTABLE, 0, format!("look at nftables table `{table}`")).text(1, table)
}

fn new_table(table: &str) -> Message {
    message(NEWTABLE, ACK | CREATE, format!("make nftables table `{table}`")).text(1, table)
}

/// Takes the table away; it is made first, so that it is there.
pub(crate) fn delete(table: &str) -> Vec<Message> {
    let gone = message(DELTABLE, ACK, format!("remove nftables table `{table}`")).text(1, table);
    batch(vec![new_table(table), gone])
}

/// The whole table anew, with the ports of all leases.
pub(crate) fn rebuild<'a>(
    table: &str,
    bridge: &str,
    subnets: &[IpNet],
    masquerade: bool,
    leases: impl Iterator<Item = &'a Lease>,
) -> Vec<Message> {
    let gone = message(DELTABLE, ACK, format!("replace nftables table `{table}`")).text(1, table);
    let mut all = vec![new_table(table), gone, new_table(table)];
    for (id, (name, key_bytes, key_type)) in (1..).zip([PORTS, PORTS_AT]) {
        all.push(new_map(table, name, id, key_bytes, key_type));
    }
    for (name, hook, priority) in
        [("prerouting", 0, -100), ("output", 3, -100), ("postrouting", 4, 100)]
    {
        all.push(new_chain(table, name, hook, priority));
    }
    all.push(new_guard(table));
    all.push(rule(table, "guard", to_loopback(bridge)));
    for chain in ["prerouting", "output"] {
        all.push(rule(table, chain, dnat_at()));
        all.push(rule(table, chain, dnat()));
    }
    let v4 = subnets.iter().filter_map(|subnet| match subnet {
        IpNet::V4(subnet) => Some(*subnet),
        IpNet::V6(_) => None,
    });
    for subnet in v4 {
        if masquerade {
            all.push(rule(table, "postrouting", masquerade_outside(subnet)));
        }
        all.push(rule(table, "postrouting", masquerade_back(subnet)));
    }
    all.push(rule(table, "postrouting", masquerade_loopback(bridge)));
    for lease in leases {
        all.extend(elements(table, lease, true));
    }
    batch(all)
}

/// The elements of a lease's ports, to add or to delete.
pub(crate) fn elements(table: &str, lease: &Lease, add: bool) -> Vec<Message> {
    let pod = lease.addresses.iter().find_map(|address| match address.addr() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let Some(pod) = pod else { return Vec::new() };
    lease.ports.iter().map(|port| element(table, port, pod, add)).collect()
}

fn element(table: &str, port: &PortMapping, pod: Ipv4Addr, add: bool) -> Message {
    let mut key = Vec::new();
    let map = match port.host_ip {
        Some(IpAddr::V4(ip)) => {
            key.extend(ip.octets());
            PORTS_AT.0
        }
        Some(IpAddr::V6(_)) | None => PORTS.0,
    };
    // Every part of a key takes four bytes.
    key.extend([port.protocol.number(), 0, 0, 0]);
    key.extend(port.host_port.to_be_bytes());
    key.extend([0, 0]);
    let mut target = pod.octets().to_vec();
    target.extend(port.container_port.to_be_bytes());
    target.extend([0, 0]);
    let mut item = Attrs::new().nest(1, Attrs::new().attr(1, &key));
    if add {
        item = item.nest(2, Attrs::new().attr(1, &target));
    }
    let (kind, flags) = if add { (NEWSETELEM, ACK | CREATE) } else { (DELSETELEM, ACK) };
    let what = format!(
        "{} host port {}/{}",
        if add { "open" } else { "close" },
        port.host_port,
        port.protocol.name()
    );
    message(kind, flags, what).text(1, table).text(2, map).nest(3, Attrs::new().nest(1, item))
}

fn new_map(table: &str, name: &str, id: u32, key_bytes: u32, key_type: u32) -> Message {
    const MAP: u32 = 0x8;
    message(NEWSET, ACK | CREATE, format!("make nftables map `{name}`"))
        .text(1, table)
        .text(2, name)
        .attr(3, &MAP.to_be_bytes())
        .attr(4, &key_type.to_be_bytes())
        .attr(5, &key_bytes.to_be_bytes())
        .attr(6, &TARGET_TYPE.to_be_bytes())
        .attr(7, &TARGET_BYTES.to_be_bytes())
        .attr(10, &id.to_be_bytes())
}

fn new_chain(table: &str, name: &str, hook: u32, priority: i32) -> Message {
    let hook = Attrs::new().be32(1, hook).attr(2, &priority.to_be_bytes());
    message(NEWCHAIN, ACK | CREATE, format!("make nftables chain `{name}`"))
        .text(1, table)
        .text(3, name)
        .nest(4, hook)
        .text(7, "nat")
}

/// A chain before connection tracking, where packets can be dropped.
fn new_guard(table: &str) -> Message {
    const RAW: i32 = -300;
    let hook = Attrs::new().be32(1, 0).attr(2, &RAW.to_be_bytes());
    message(NEWCHAIN, ACK | CREATE, "make nftables chain `guard`")
        .text(1, table)
        .text(3, "guard")
        .nest(4, hook)
        .text(7, "filter")
}

/// `route_localnet` on the bridge is for what the host itself sends. A pod must not reach what
/// listens on the node's 127.0.0.1.
fn to_loopback(bridge: &str) -> Vec<Attrs> {
    const META_IIFNAME: u32 = 6;
    const DROP: u32 = 0;
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    let mut all = is_ipv4();
    all.extend([meta(META_IIFNAME, REG_1), compare(REG_1, true, &name)]);
    all.extend([
        payload(1, 16, 4, REG_1),
        mask(REG_1, &[255, 0, 0, 0]),
        compare(REG_1, true, &[127, 0, 0, 0]),
    ]);
    let verdict = Attrs::new().nest(2, Attrs::new().be32(1, DROP));
    all.push(expression("immediate", Attrs::new().be32(1, 0).nest(2, verdict)));
    all
}

fn rule(table: &str, chain: &str, expressions: Vec<Attrs>) -> Message {
    let list =
        expressions.into_iter().fold(Attrs::new(), |list, expression| list.nest(1, expression));
    message(NEWRULE, ACK | CREATE | APPEND, format!("make a rule in nftables chain `{chain}`"))
        .text(1, table)
        .text(2, chain)
        .nest(4, list)
}

fn expression(name: &str, data: Attrs) -> Attrs {
    Attrs::new().text(1, name).nest(2, data)
}

fn meta(key: u32, register: u32) -> Attrs {
    expression("meta", Attrs::new().be32(1, register).be32(2, key))
}

/// Bytes of the packet: base 1 is the network header, 2 the transport header.
fn payload(base: u32, offset: u32, length: u32, register: u32) -> Attrs {
    expression(
        "payload",
        Attrs::new().be32(1, register).be32(2, base).be32(3, offset).be32(4, length),
    )
}

fn compare(register: u32, equal: bool, value: &[u8]) -> Attrs {
    let value = Attrs::new().attr(1, value);
    expression("cmp", Attrs::new().be32(1, register).be32(2, u32::from(!equal)).nest(3, value))
}

fn mask(register: u32, mask: &[u8]) -> Attrs {
    let length = u32::try_from(mask.len()).unwrap_or(0);
    let none = vec![0; mask.len()];
    let data = Attrs::new()
        .be32(1, register)
        .be32(2, register)
        .be32(3, length)
        .nest(4, Attrs::new().attr(1, mask))
        .nest(5, Attrs::new().attr(1, &none));
    expression("bitwise", data)
}

const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_OIFNAME: u32 = 7;

fn is_ipv4() -> Vec<Attrs> {
    vec![meta(META_NFPROTO, REG_1), compare(REG_1, true, &[2])]
}

/// The destination is an address of this host.
fn to_this_host() -> Vec<Attrs> {
    const DADDR: u32 = 2;
    const ADDRTYPE: u32 = 3;
    const LOCAL: u32 = 2;
    vec![
        expression("fib", Attrs::new().be32(1, REG_1).be32(2, ADDRTYPE).be32(3, DADDR)),
        compare(REG_1, true, &LOCAL.to_ne_bytes()),
    ]
}

fn look_up(map: &str) -> Attrs {
    expression("lookup", Attrs::new().text(1, map).be32(2, REG_1).be32(3, REG_1))
}

/// To the address in the first register, the port in the second.
fn nat() -> Attrs {
    const DNAT: u32 = 1;
    let data = Attrs::new()
        .be32(1, DNAT)
        .be32(2, IPV4)
        .be32(3, REG_1)
        .be32(4, REG_1)
        .be32(5, REG_32_01)
        .be32(6, REG_32_01);
    expression("nat", data)
}

fn dnat() -> Vec<Attrs> {
    let mut all = is_ipv4();
    all.extend(to_this_host());
    all.extend([meta(META_L4PROTO, REG_1), payload(2, 2, 2, REG_32_01), look_up(PORTS.0), nat()]);
    all
}

fn dnat_at() -> Vec<Attrs> {
    let mut all = is_ipv4();
    all.extend(to_this_host());
    all.extend([
        payload(1, 16, 4, REG_1),
        meta(META_L4PROTO, REG_32_01),
        payload(2, 2, 2, REG_32_02),
        look_up(PORTS_AT.0),
        nat(),
    ]);
    all
}

fn in_subnet(subnet: Ipv4Net, offset: u32, inside: bool) -> Vec<Attrs> {
    vec![
        payload(1, offset, 4, REG_1),
        mask(REG_1, &subnet.netmask().octets()),
        compare(REG_1, inside, &subnet.network().octets()),
    ]
}

fn masquerade() -> Attrs {
    expression("masq", Attrs::new())
}

/// Pods that speak to anybody but pods.
fn masquerade_outside(subnet: Ipv4Net) -> Vec<Attrs> {
    let mut all = is_ipv4();
    all.extend(in_subnet(subnet, 12, true));
    all.extend(in_subnet(subnet, 16, false));
    // To a group or the broadcast address it must keep its own.
    all.extend([
        expression("fib", Attrs::new().be32(1, REG_1).be32(2, 3).be32(3, 2)),
        compare(REG_1, true, &1u32.to_ne_bytes()),
    ]);
    all.push(masquerade());
    all
}

/// A pod led back to a pod, perhaps itself, by a host port: the answer must come back this way.
fn masquerade_back(subnet: Ipv4Net) -> Vec<Attrs> {
    const CT_STATUS: u32 = 2;
    const DNATTED: u32 = 1 << 5;
    let mut all = is_ipv4();
    all.extend(in_subnet(subnet, 12, true));
    all.extend(in_subnet(subnet, 16, true));
    all.extend([
        expression("ct", Attrs::new().be32(1, REG_1).be32(2, CT_STATUS)),
        mask(REG_1, &DNATTED.to_ne_bytes()),
        compare(REG_1, false, &0u32.to_ne_bytes()),
        masquerade(),
    ]);
    all
}

/// The host's own 127.0.0.1 means nothing to a pod.
fn masquerade_loopback(bridge: &str) -> Vec<Attrs> {
    let mut name = bridge.as_bytes().to_vec();
    name.resize(16, 0);
    let mut all = is_ipv4();
    all.extend([meta(META_OIFNAME, REG_1), compare(REG_1, true, &name)]);
    all.extend([
        payload(1, 12, 4, REG_1),
        mask(REG_1, &[255, 0, 0, 0]),
        compare(REG_1, true, &[127, 0, 0, 0]),
    ]);
    all.push(masquerade());
    all
}
