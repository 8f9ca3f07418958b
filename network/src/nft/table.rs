// SPDX-License-Identifier: Apache-2.0
//! The layout of Hull's nftables table, and changes to it.
//!
//! ```text
//! table inet hull
//!   map ports4, ports6         protocol . host port → pod . port       at any address of the node
//!   map ports4_at, ports6_at   address . protocol . host port → …      at that address only
//!   chain guard          drops forged packets from pods to the node's loopback
//!   chain prerouting     host ports, for traffic from other machines and from pods
//!   chain output         host ports, for traffic from the node itself
//!   chain postrouting    masquerades packets that leave from pods, unless they go to the cluster's pods, and
//!                        packets that a pod or loopback sends through a host port, because their replies must
//!                        return through the node
//! ```
//!
//! A packet from a pod to an address of the node carries [`MARK`], so that the last chain can tell host
//! ports from services that other rules direct to a pod. Those keep the pod's own address, which network
//! policies need.
//!
//! The rule: the layout is written completely or not at all; after that a pod's host ports are elements
//! that are added and removed. The table filters nothing: the operator's filter rules apply.

use super::elements::{
    Element, Family, Map, Published, all_elements, bytes, concatenated, elements, length,
};
use super::expr::{self, Comparison, Field, Meta, WORD};
use super::message::{
    self, DELETE_ELEMENT, DELETE_TABLE, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_SET, NEW_TABLE,
    Transaction, comment,
};
use hull_netlink::{Attributes, Socket};
use hull_sys::Result;
use ipnet::IpNet;

/// A mark bit that kube-proxy, common network plugins and service meshes do not use.
const MARK: u32 = 0x1000;
/// Most elements in one list attribute, whose length has 16 bits.
const ELEMENTS_MAX: usize = 256;

/// Each chain's name, type, hook and priority.
const CHAINS: [(&str, &str, u32, i32); 4] = {
    const PREROUTING: u32 = 0;
    const OUTPUT: u32 = 3;
    const POSTROUTING: u32 = 4;
    [
        // Before connection tracking: replies to the node's loopback still have another address of the
        // node as their destination here, so only a forged packet has a loopback destination.
        ("guard", "filter", PREROUTING, -300),
        ("prerouting", "nat", PREROUTING, -100),
        ("output", "nat", OUTPUT, -100),
        ("postrouting", "nat", POSTROUTING, 100),
    ]
};

/// How many rules the chains have, in the order of [`CHAINS`].
pub(crate) type RuleCounts = [u32; CHAINS.len()];

/// A rule: its chain, its purpose, its expressions.
type Rule = (&'static str, &'static str, Vec<Attributes>);

const HAIRPIN: &str = "pods to a host port of a pod";

/// The settings that the table is generated from.
#[derive(Debug)]
pub(crate) struct Layout<'l> {
    pub(crate) bridge: &'l str,
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) masquerade: bool,
    /// Destinations that are never masqueraded.
    pub(crate) cluster_cidrs: &'l [IpNet],
}

/// Hull's table, by name.
#[derive(Debug)]
pub(crate) struct Table<'t>(pub(crate) &'t str);

impl Table<'_> {
    /// Whether the table exists with this many rules: a flush removes rules and keeps the table.
    pub(crate) fn is_intact(&self, socket: &Socket, rules: RuleCounts) -> Result<bool> {
        let names = CHAINS.map(|(name, ..)| name);
        Ok(message::rule_counts(socket, self.0, &names)?.is_some_and(|found| found == rules))
    }

    /// Replaces the table with this layout and these host ports.
    pub(crate) fn replace(
        &self,
        socket: &Socket,
        layout: &Layout<'_>,
        all: &[Published<'_>],
    ) -> Result<()> {
        let mut changes = Transaction::default();
        // Created first so that the removal succeeds: removing a missing table would fail the batch.
        self.new_table(&mut changes);
        changes.change(DELETE_TABLE, self.call("DELTABLE", ""), &self.named());
        self.new_table(&mut changes);
        for family in layout.families() {
            self.sets(&mut changes, family);
        }
        self.chains(&mut changes, layout);
        for family in layout.families() {
            let elements: Vec<_> = all.iter().flat_map(|of| elements(of, family)).collect();
            self.put(&mut changes, NEW_ELEMENT, &elements);
        }
        changes.commit(socket)
    }

    /// Removes the table; succeeds if it does not exist.
    pub(crate) fn remove(&self, socket: &Socket) -> Result<()> {
        let mut changes = Transaction::default();
        changes.change(DELETE_TABLE, self.call("DELTABLE", ""), &self.named());
        match changes.commit(socket) {
            Err(err) if err.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Adds a pod's host ports.
    pub(crate) fn publish(&self, socket: &Socket, of: &Published<'_>) -> Result<()> {
        let mut changes = Transaction::default();
        self.put(&mut changes, NEW_ELEMENT, &all_elements(of));
        changes.commit(socket)
    }

    /// Removes a pod's host ports; succeeds for those that do not exist.
    pub(crate) fn unpublish(&self, socket: &Socket, of: &Published<'_>) -> Result<()> {
        let elements = all_elements(of);
        let mut changes = Transaction::default();
        self.put(&mut changes, DELETE_ELEMENT, &elements);
        match changes.commit(socket) {
            Err(err) if err.is_not_found() => {}
            other => return other,
        }
        // The table, a map or an element is missing: remove each element on its own.
        elements.into_iter().try_for_each(|element| {
            let mut change = Transaction::default();
            self.put(&mut change, DELETE_ELEMENT, &[element]);
            match change.commit(socket) {
                Err(err) if err.is_not_found() => Ok(()),
                other => other,
            }
        })
    }

    fn named(&self) -> Attributes {
        Attributes::default().text(1, self.0)
    }

    fn call(&self, verb: &str, object: &str) -> String {
        let gap = if object.is_empty() { "" } else { " " };
        format!("NFT_MSG_{verb}(inet {}{gap}{object})", self.0)
    }

    fn new_table(&self, changes: &mut Transaction) {
        let note = comment(0, "managed by hull: recreated when missing; manual changes are lost");
        changes.change(NEW_TABLE, self.call("NEWTABLE", ""), &self.named().bytes(6, &note));
    }

    fn sets(&self, changes: &mut Transaction, family: Family) {
        for map in [family.ports(), family.ports_at()] {
            self.map(changes, &map);
        }
    }

    fn map(&self, changes: &mut Transaction, map: &Map) {
        const IS_MAP: u32 = 8;
        let attributes = self
            .named()
            .text(2, map.name)
            .number(3, IS_MAP)
            .number(4, concatenated(&map.key))
            .number(5, length(&map.key))
            .number(6, concatenated(&map.data))
            .number(7, length(&map.data))
            // An id to refer to the map within the batch; names are used instead.
            .number(10, 1);
        changes.change(NEW_SET, self.call("NEWSET", map.name), &attributes);
    }

    fn put(&self, changes: &mut Transaction, kind: u16, elements: &[Element]) {
        let verb = if kind == NEW_ELEMENT { "NEWSETELEM" } else { "DELSETELEM" };
        let mut names: Vec<_> = elements.iter().map(|element| element.map).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of_map: Vec<_> = elements.iter().filter(|element| element.map == name).collect();
            for some in of_map.chunks(ELEMENTS_MAX) {
                let list = Attributes::list(some.iter().map(|element| element.attributes(kind)));
                let attributes = self.named().text(2, name).nested(3, list);
                changes.change(kind, self.call(verb, name), &attributes);
            }
        }
    }

    fn chains(&self, changes: &mut Transaction, layout: &Layout<'_>) {
        for (name, kind, hook, priority) in CHAINS {
            self.chain(changes, name, kind, hook, priority);
        }
        for (chain, why, expressions) in layout.rules() {
            self.rule(changes, chain, why, expressions);
        }
    }

    fn chain(&self, changes: &mut Transaction, name: &str, kind: &str, hook: u32, priority: i32) {
        const ACCEPT: u32 = 1;
        let hook = Attributes::default().number(1, hook).bytes(2, &priority.to_be_bytes());
        let attributes = self.named().text(3, name).nested(4, hook).number(5, ACCEPT).text(7, kind);
        changes.change(NEW_CHAIN, self.call("NEWCHAIN", name), &attributes);
    }

    fn rule(
        &self,
        changes: &mut Transaction,
        chain: &str,
        why: &str,
        expressions: Vec<Attributes>,
    ) {
        let attributes = self
            .named()
            .text(2, chain)
            .nested(4, Attributes::list(expressions))
            .bytes(7, &comment(0, why));
        changes.change(NEW_RULE, self.call("NEWRULE", &format!("{chain}: {why}")), &attributes);
    }
}

impl Layout<'_> {
    /// The number of rules in each chain.
    pub(crate) fn rule_counts(&self) -> RuleCounts {
        let rules = self.rules();
        CHAINS.map(|(name, ..)| {
            let of_chain = rules.iter().filter(|(chain, ..)| *chain == name).count();
            u32::try_from(of_chain).unwrap_or(u32::MAX)
        })
    }

    /// All rules in order.
    fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.families().contains(&Family::V4) {
            rules.push(("guard", "keep pods out of the node's loopback", guard(self.bridge)));
        }
        for subnet in &self.subnets {
            rules.push(("prerouting", "pods to the node", mark_to_node(*subnet)));
        }
        for family in self.families() {
            for chain in ["prerouting", "output"] {
                rules.push((chain, "host ports at one address", family.dnat_at_address()));
                rules.push((chain, "host ports", family.dnat()));
            }
        }
        for subnet in &self.subnets {
            rules.push(("postrouting", HAIRPIN, masquerade_hairpin(self.bridge, *subnet)));
        }
        if self.families().contains(&Family::V4) {
            let rule = masquerade_loopback(self.bridge);
            rules.push(("postrouting", "loopback to a host port", rule));
        }
        if self.masquerade {
            rules.extend(self.masquerade_rules());
        }
        rules
    }

    /// Packets to the cluster's pods end the chain before the rules that masquerade the others.
    fn masquerade_rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for subnet in &self.subnets {
            let family = Family::of(subnet.addr());
            for cluster in self.cluster_cidrs.iter().filter(|net| Family::of(net.addr()) == family)
            {
                let mut rule = from(*subnet);
                rule.extend(within(family.destination(), *cluster));
                rule.push(expr::return_verdict());
                rules.push(("postrouting", "pods to the cluster's pods", rule));
            }
        }
        for subnet in &self.subnets {
            let rule = masquerade_outbound(self.bridge, *subnet);
            rules.push(("postrouting", "pods to other networks", rule));
        }
        rules
    }

    /// The address families of the subnets; while subnets change, several have the same one.
    fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for family in self.subnets.iter().map(|subnet| Family::of(subnet.addr())) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }
}

impl Family {
    fn is(self) -> [Attributes; 2] {
        [expr::meta(Meta::Family, WORD), expr::compare(WORD, Comparison::Equal, &[self.number()])]
    }

    /// `fib daddr type local dnat to meta l4proto . th dport map @ports`
    fn dnat(self) -> Vec<Attributes> {
        let mut rule = Vec::from(self.is());
        rule.extend(expr::is_local_destination());
        rule.push(expr::meta(Meta::Protocol, WORD));
        rule.push(expr::payload(expr::DESTINATION_PORT, WORD + 1));
        rule.push(expr::lookup(self.ports().name));
        rule.push(expr::dnat(self.number(), WORD + self.words()));
        rule
    }

    /// `dnat to ip daddr . meta l4proto . th dport map @ports_at`
    fn dnat_at_address(self) -> Vec<Attributes> {
        let mut rule = Vec::from(self.is());
        rule.push(expr::payload(self.destination(), WORD));
        rule.push(expr::meta(Meta::Protocol, WORD + self.words()));
        rule.push(expr::payload(expr::DESTINATION_PORT, WORD + self.words() + 1));
        rule.push(expr::lookup(self.ports_at().name));
        rule.push(expr::dnat(self.number(), WORD + self.words()));
        rule
    }
}

/// `ip saddr SUBNET fib daddr type local meta mark set meta mark | MARK`
///
/// By source address and not by link: packets from a pod with an ipvlan link arrive on the uplink.
fn mark_to_node(subnet: IpNet) -> Vec<Attributes> {
    let mut rule = from(subnet);
    rule.extend(expr::is_local_destination());
    rule.extend(expr::add_mark(MARK));
    rule
}

/// `ip saddr SUBNET oifname BRIDGE ct status dnat meta mark & MARK == MARK masquerade`
fn masquerade_hairpin(bridge: &str, subnet: IpNet) -> Vec<Attributes> {
    let mut rule = from(subnet);
    rule.extend(by(Meta::OutName, Comparison::Equal, bridge));
    rule.extend(expr::is_redirected());
    rule.extend(expr::has_mark(MARK));
    rule.push(expr::masquerade());
    rule
}

/// `iifname BRIDGE ip daddr 127.0.0.0/8 drop`
fn guard(bridge: &str) -> Vec<Attributes> {
    let mut rule = Vec::from(by(Meta::InName, Comparison::Equal, bridge));
    rule.extend(Family::V4.is());
    rule.extend(is_loopback(Family::V4.destination()));
    rule.push(expr::drop_packet());
    rule
}

/// `ip saddr SUBNET oifname != BRIDGE oifname != lo masquerade`
fn masquerade_outbound(bridge: &str, subnet: IpNet) -> Vec<Attributes> {
    let mut rule = from(subnet);
    rule.extend(by(Meta::OutName, Comparison::Not, bridge));
    // Traffic of the node to its own address on the bridge.
    rule.extend(by(Meta::OutName, Comparison::Not, "lo"));
    rule.push(expr::masquerade());
    rule
}

/// `oifname BRIDGE ip saddr 127.0.0.0/8 masquerade`
fn masquerade_loopback(bridge: &str) -> Vec<Attributes> {
    let mut rule = Vec::from(by(Meta::OutName, Comparison::Equal, bridge));
    rule.extend(Family::V4.is());
    rule.extend(is_loopback(Family::V4.source()));
    rule.push(expr::masquerade());
    rule
}

fn is_loopback(field: Field) -> [Attributes; 2] {
    // Loading the first byte is enough for 127.0.0.0/8.
    let (base, offset, _) = field;
    [expr::payload((base, offset, 1), WORD), expr::compare(WORD, Comparison::Equal, &[127])]
}

fn by(meta: Meta, is: Comparison, link: &str) -> [Attributes; 2] {
    // Names are compared in full length, padded with zeros.
    let mut name = link.as_bytes().to_vec();
    name.resize(16, 0);
    [expr::meta(meta, WORD), expr::compare(WORD, is, &name)]
}

fn from(subnet: IpNet) -> Vec<Attributes> {
    let family = Family::of(subnet.addr());
    let mut rule = Vec::from(family.is());
    rule.extend(within(family.source(), subnet));
    rule
}

/// Matches packets whose address in this field is within the network.
fn within(field: Field, net: IpNet) -> [Attributes; 3] {
    [
        expr::payload(field, WORD),
        expr::mask(WORD, &bytes(net.netmask())),
        expr::compare(WORD, Comparison::Equal, &bytes(net.network())),
    ]
}
