// SPDX-License-Identifier: Apache-2.0
//! Allocates addresses and host ports to pods, in memory.
//!
//! The rule: no two pods have the same address, and no packet matches the host ports of two pods. A pod
//! gets the next free address after the one allocated last, so a freed address is reused as late as
//! possible.
//!
//! The subnets may change while pods have addresses: new pods get addresses of the current subnets, and the
//! former subnets stay, with their gateways, until no pod has an address of them.
//!
//! An allocation costs the same with any number of pods: free addresses are found with
//! [intervals](super::interval_set) of allocated ones, the holders of a port by its number.
//!
//! Pure: no disk, no kernel. [`leases`](super::leases) persists it across restarts.

use super::interval_set::IntervalSet;
use super::subnet::{Subnet, bits};
use crate::error::Error;
use crate::types::{PortMapping, Protocol};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The addresses and host ports of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Increases with every lease: the highest is the newest.
    pub(crate) sequence: u64,
    pub(crate) addresses: Vec<IpAddr>,
    /// The subnet of each address, which decides its gateway and prefix length.
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) ports: Vec<PortMapping>,
    /// Whether the pod's host ports are being removed. It keeps its addresses until everything is gone.
    pub(crate) releasing: bool,
}

/// The allocator, with all leases.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    subnets: Vec<Subnet>,
    /// Subnets from before a change that the bridge still has.
    former: Vec<Subnet>,
    leases: BTreeMap<String, Lease>,
    taken_v4: IntervalSet,
    taken_v6: IntervalSet,
    /// The pods that have a host port, on any address.
    ports: HashMap<(Protocol, u16), Vec<(String, PortMapping)>>,
    /// The address allocated last, by subnet.
    last: Vec<Option<IpAddr>>,
    sequence: u64,
}

impl Ipam {
    pub(crate) fn new(subnets: Vec<Subnet>) -> Self {
        let last = vec![None; subnets.len()];
        Self { subnets, last, ..Self::default() }
    }

    pub(crate) fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    /// The subnets from before a change that the bridge still has.
    pub(crate) fn former(&self) -> &[Subnet] {
        &self.former
    }

    /// The current and the former subnets.
    pub(crate) fn all_subnets(&self) -> Vec<Subnet> {
        self.subnets.iter().chain(&self.former).copied().collect()
    }

    /// Changes the subnets for new pods; the replaced ones become former subnets. If a pod has an address that the
    /// bridge would get, changes nothing and returns that pod.
    pub(crate) fn set_subnets(&mut self, subnets: Vec<Subnet>) -> Result<(), String> {
        for gateway in subnets.iter().map(Subnet::gateway) {
            if let Some(pod) = self.holder(gateway) {
                return Err(pod.clone());
            }
        }
        let replaced = std::mem::replace(&mut self.subnets, subnets);
        let former = self.former.iter().chain(&replaced).copied().collect();
        self.set_former(former);
        self.last = vec![None; self.subnets.len()];
        self.resume();
        Ok(())
    }

    /// Adds subnets from before a restart that the bridge may still have.
    pub(crate) fn add_former(&mut self, subnets: &[Subnet]) {
        let former = self.former.iter().chain(subnets).copied().collect();
        self.set_former(former);
    }

    /// Whether a pod has an address of a current subnet.
    pub(crate) fn has_leases_of_current(&self) -> bool {
        let is_current = |of: &Subnet| self.subnets.contains(of);
        self.leases.values().any(|lease| lease.subnets.iter().any(is_current))
    }

    /// The former subnets that no pod has an address of.
    pub(crate) fn unused_former(&self) -> Vec<Subnet> {
        self.unused(&self.former)
    }

    /// The current subnets that no pod has an address of.
    pub(crate) fn unused_current(&self) -> Vec<Subnet> {
        self.unused(&self.subnets)
    }

    /// Those of these subnets that a pod has an address of.
    pub(crate) fn used(&self, subnets: &[Subnet]) -> Vec<Subnet> {
        subnets.iter().filter(|of| self.is_used(of)).copied().collect()
    }

    fn unused(&self, subnets: &[Subnet]) -> Vec<Subnet> {
        subnets.iter().filter(|of| !self.is_used(of)).copied().collect()
    }

    fn is_used(&self, subnet: &Subnet) -> bool {
        self.leases.values().any(|lease| lease.subnets.contains(subnet))
    }

    /// Forgets former subnets that the bridge no longer has.
    pub(crate) fn forget_former(&mut self, gone: &[Subnet]) {
        let former = self.former.iter().filter(|of| !gone.contains(of)).copied().collect();
        self.set_former(former);
    }

    /// Replaces the former subnets, and reserves their gateways: the bridge has those addresses, and a current
    /// subnet may contain them.
    fn set_former(&mut self, former: Vec<Subnet>) {
        for gateway in self.former.iter().map(Subnet::gateway).collect::<Vec<_>>() {
            if self.holder(gateway).is_none() {
                self.taken_mut(gateway).remove(bits(gateway));
            }
        }
        self.former.clear();
        for subnet in former {
            if !self.subnets.contains(&subnet) && !self.former.contains(&subnet) {
                self.former.push(subnet);
            }
        }
        for gateway in self.former.iter().map(Subnet::gateway).collect::<Vec<_>>() {
            self.taken_mut(gateway).insert(bits(gateway));
        }
    }

    /// The pod that has the address.
    fn holder(&self, ip: IpAddr) -> Option<&String> {
        self.leases.iter().find(|(_, lease)| lease.addresses.contains(&ip)).map(|(pod, _)| pod)
    }

    /// Adopts a lease from before a restart. If one of its addresses is taken, returns who has it.
    pub(crate) fn adopt(&mut self, pod: String, lease: Lease) -> Result<(), String> {
        if let Some(ip) = lease.addresses.iter().find(|ip| self.taken(**ip).contains(bits(**ip))) {
            return Err(match self.holder(*ip) {
                Some(holder) => format!("pod {holder} has one of its addresses, {ip}"),
                None => format!("the bridge has one of its addresses, {ip}"),
            });
        }
        if lease.sequence >= self.sequence {
            self.sequence = lease.sequence;
            self.resume_after(&lease.addresses);
        }
        self.enter(pod, lease);
        Ok(())
    }

    /// Allocates an address of every subnet, and the ports. A pod that already has addresses keeps them.
    pub(crate) fn allocate(&mut self, pod: &str, ports: &[PortMapping]) -> Result<Lease, Error> {
        self.check_ports(pod, ports)?;
        let addresses = match self.leases.get(pod) {
            Some(lease) if lease.subnets == self.subnets => lease.addresses.clone(),
            // The addresses are from former subnets.
            Some(_) => {
                self.free(pod);
                self.find_free()?
            }
            None => self.find_free()?,
        };
        for (number, subnet) in self.subnets.iter().enumerate() {
            let given = addresses.iter().copied().find(|ip| subnet.assigns(*ip));
            self.last[number] = given.or(self.last[number]);
        }
        self.sequence += 1;
        let (subnets, ports) = (self.subnets.clone(), ports.to_vec());
        let lease = Lease { sequence: self.sequence, addresses, subnets, ports, releasing: false };
        self.free(pod);
        self.enter(pod.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Marks the pod's host ports as being removed, and returns its lease.
    pub(crate) fn begin_release(&mut self, pod: &str) -> Option<Lease> {
        let lease = self.leases.get_mut(pod)?;
        lease.releasing = true;
        Some(lease.clone())
    }

    /// Makes the pod's host ports available to other pods, after they were removed from the host.
    pub(crate) fn unpublish_ports(&mut self, pod: &str) {
        let lease = self.leases.get_mut(pod).filter(|lease| lease.releasing);
        let ports = lease.map(|lease| std::mem::take(&mut lease.ports));
        self.forget_ports(pod, &ports.unwrap_or_default());
    }

    /// Frees the pod's addresses and ports.
    pub(crate) fn free(&mut self, pod: &str) {
        let Some(lease) = self.leases.remove(pod) else { return };
        for ip in lease.addresses {
            self.taken_mut(ip).remove(bits(ip));
        }
        self.forget_ports(pod, &lease.ports);
    }

    fn enter(&mut self, pod: String, lease: Lease) {
        for ip in &lease.addresses {
            self.taken_mut(*ip).insert(bits(*ip));
        }
        for port in &lease.ports {
            let holders = self.ports.entry((port.protocol, port.host_port)).or_default();
            holders.push((pod.clone(), *port));
        }
        self.leases.insert(pod, lease);
    }

    fn forget_ports(&mut self, pod: &str, ports: &[PortMapping]) {
        for port in ports {
            let key = (port.protocol, port.host_port);
            let Some(holders) = self.ports.get_mut(&key) else { continue };
            holders.retain(|(holder, _)| holder != pod);
            if holders.is_empty() {
                self.ports.remove(&key);
            }
        }
    }

    fn taken(&self, ip: IpAddr) -> &IntervalSet {
        if ip.is_ipv4() { &self.taken_v4 } else { &self.taken_v6 }
    }

    fn taken_mut(&mut self, ip: IpAddr) -> &mut IntervalSet {
        if ip.is_ipv4() { &mut self.taken_v4 } else { &mut self.taken_v6 }
    }

    pub(crate) fn get(&self, pod: &str) -> Option<&Lease> {
        self.leases.get(pod)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &String> {
        self.leases.keys()
    }

    /// The leases whose host ports must be published.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&String, &Lease)> {
        self.leases.iter().filter(|(_, lease)| !lease.releasing)
    }

    fn find_free(&self) -> Result<Vec<IpAddr>, Error> {
        let of = |(subnet, last): (&Subnet, &Option<IpAddr>)| {
            let free = subnet.next_free(*last, self.taken(subnet.gateway()));
            free.ok_or_else(|| Error::SubnetFull { subnet: subnet.net() })
        };
        self.subnets.iter().zip(&self.last).map(of).collect()
    }

    fn check_ports(&self, pod: &str, ports: &[PortMapping]) -> Result<(), Error> {
        for (number, port) in ports.iter().enumerate() {
            if port.container_port == 0 {
                return Err(Error::NoContainerPort { port: *port });
            }
            if let Some(host_ip) = port.host_ip
                && !self.subnets.iter().any(|subnet| subnet.is_ipv4() == host_ip.is_ipv4())
            {
                return Err(Error::NoSuchFamily { port: *port, host_ip });
            }
            if ports[..number].iter().any(|other| other.clashes(port)) {
                return Err(Error::PortTwice { port: *port });
            }
            if let Some((holder, held)) = self.port_holder(pod, port) {
                let holder = holder.to_owned();
                return Err(Error::PortTaken { port: *port, held, holder });
            }
        }
        Ok(())
    }

    /// Another pod than `pod` that has the host port, and its mapping.
    pub(crate) fn port_holder(&self, pod: &str, port: &PortMapping) -> Option<(&str, PortMapping)> {
        let holders = self.ports.get(&(port.protocol, port.host_port));
        let mut others = holders.into_iter().flatten().filter(|(holder, _)| holder != pod);
        let (holder, held) = others.find(|(_, held)| held.clashes(port))?;
        Some((holder, *held))
    }

    /// Continues after the newest lease.
    fn resume(&mut self) {
        let newest = self.leases.values().max_by_key(|lease| lease.sequence);
        let addresses = newest.map_or(Vec::new(), |lease| lease.addresses.clone());
        self.resume_after(&addresses);
    }

    fn resume_after(&mut self, addresses: &[IpAddr]) {
        for (number, subnet) in self.subnets.iter().enumerate() {
            self.last[number] = addresses.iter().copied().find(|ip| subnet.assigns(*ip));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
