// SPDX-License-Identifier: Apache-2.0
//! Which pod has which addresses and host ports, in memory.
//!
//! The rule: no two pods have the same address, and no two have host ports that one packet could go
//! to both of. The next pod gets the address behind the last one given, so that an address given back
//! rests for as long as there are others.
//!
//! What a pod is given costs the same however many pods there are: free addresses are found by
//! [runs](super::interval_set) of taken ones, holders of a port by its number.
//!
//! Pure: no disk, no kernel. [`leases`](super::leases) keeps it over a restart.

use super::interval_set::Runs;
use super::subnet::{Subnet, bits};
use crate::error::Error;
use crate::types::{PortMapping, Protocol};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What one pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Counts up with every lease given: the highest is the last.
    pub(crate) sequence: u64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<PortMapping>,
    /// Its host ports are being taken away. It keeps what it has until all is gone.
    pub(crate) leaving: bool,
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    subnets: Vec<Subnet>,
    leases: BTreeMap<String, Lease>,
    taken_v4: Runs,
    taken_v6: Runs,
    /// Who has a host port, at whichever addresses.
    ports: HashMap<(Protocol, u16), Vec<(String, PortMapping)>>,
    /// The last address given, by subnet.
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

    /// Gives out other subnets from now on. Refused while a pod has an address outside of them.
    pub(crate) fn set_subnets(&mut self, subnets: Vec<Subnet>) -> Result<(), String> {
        let outside = |lease: &Lease| {
            lease.addresses.iter().any(|ip| !subnets.iter().any(|of| of.gives(*ip)))
        };
        if let Some((pod, _)) = self.leases.iter().find(|(_, lease)| outside(lease)) {
            return Err(pod.clone());
        }
        self.last = vec![None; subnets.len()];
        self.subnets = subnets;
        self.resume();
        Ok(())
    }

    /// Takes over a lease that was given before a restart. Refused, naming the pod that has it, when
    /// an address of it is somebody else's.
    pub(crate) fn adopt(&mut self, pod: String, lease: Lease) -> Result<(), String> {
        if let Some(ip) = lease.addresses.iter().find(|ip| self.taken(**ip).contains(bits(**ip))) {
            let holder = self.leases.iter().find(|(_, other)| other.addresses.contains(ip));
            return Err(holder.map(|(holder, _)| holder.clone()).unwrap_or_default());
        }
        if lease.sequence >= self.sequence {
            self.sequence = lease.sequence;
            self.go_on_behind(&lease.addresses);
        }
        self.enter(pod, lease);
        Ok(())
    }

    /// Gives the pod an address of every subnet, and the ports. A pod that has addresses already
    /// keeps them.
    pub(crate) fn give(&mut self, pod: &str, ports: &[PortMapping]) -> Result<Lease, Error> {
        self.check_ports(pod, ports)?;
        let addresses = match self.leases.get(pod) {
            Some(lease) if self.fits(&lease.addresses) => lease.addresses.clone(),
            // Of subnets that are no longer ours.
            Some(_) => {
                self.free(pod);
                self.find_free()?
            }
            None => self.find_free()?,
        };
        for (number, subnet) in self.subnets.iter().enumerate() {
            let given = addresses.iter().copied().find(|ip| subnet.gives(*ip));
            self.last[number] = given.or(self.last[number]);
        }
        self.sequence += 1;
        let ports = ports.to_vec();
        let lease = Lease { sequence: self.sequence, addresses, ports, leaving: false };
        self.free(pod);
        self.enter(pod.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Marks that the pod's host ports are being taken away, and tells what it has.
    pub(crate) fn leave(&mut self, pod: &str) -> Option<Lease> {
        let lease = self.leases.get_mut(pod)?;
        lease.leaving = true;
        Some(lease.clone())
    }

    /// Its host ports are gone: another pod can have them.
    pub(crate) fn close_ports(&mut self, pod: &str) {
        let lease = self.leases.get_mut(pod).filter(|lease| lease.leaving);
        let ports = lease.map(|lease| std::mem::take(&mut lease.ports));
        self.forget_ports(pod, &ports.unwrap_or_default());
    }

    /// Takes back what the pod has.
    pub(crate) fn free(&mut self, pod: &str) {
        let Some(lease) = self.leases.remove(pod) else { return };
        for ip in lease.addresses {
            self.taken_mut(ip).give_back(bits(ip));
        }
        self.forget_ports(pod, &lease.ports);
    }

    fn enter(&mut self, pod: String, lease: Lease) {
        for ip in &lease.addresses {
            self.taken_mut(*ip).take(bits(*ip));
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

    fn taken(&self, ip: IpAddr) -> &Runs {
        if ip.is_ipv4() { &self.taken_v4 } else { &self.taken_v6 }
    }

    fn taken_mut(&mut self, ip: IpAddr) -> &mut Runs {
        if ip.is_ipv4() { &mut self.taken_v4 } else { &mut self.taken_v6 }
    }

    pub(crate) fn get(&self, pod: &str) -> Option<&Lease> {
        self.leases.get(pod)
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &String> {
        self.leases.keys()
    }

    /// The leases whose host ports are to be led to their pods.
    pub(crate) fn staying(&self) -> impl Iterator<Item = (&String, &Lease)> {
        self.leases.iter().filter(|(_, lease)| !lease.leaving)
    }

    fn fits(&self, addresses: &[IpAddr]) -> bool {
        addresses.len() == self.subnets.len()
            && self.subnets.iter().all(|subnet| addresses.iter().any(|ip| subnet.gives(*ip)))
    }

    fn find_free(&self) -> Result<Vec<IpAddr>, Error> {
        let of = |(subnet, last): (&Subnet, &Option<IpAddr>)| {
            let free = subnet.free_after(*last, self.taken(subnet.gateway()));
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
            let holders = self.ports.get(&(port.protocol, port.host_port));
            let others = holders.into_iter().flatten().filter(|(holder, _)| holder != pod);
            if let Some((holder, held)) = others.into_iter().find(|(_, held)| held.clashes(port)) {
                let holder = holder.clone();
                return Err(Error::PortTaken { port: *port, held: *held, holder });
            }
        }
        Ok(())
    }

    /// Goes on behind the last lease given.
    fn resume(&mut self) {
        let newest = self.leases.values().max_by_key(|lease| lease.sequence);
        let addresses = newest.map_or(Vec::new(), |lease| lease.addresses.clone());
        self.go_on_behind(&addresses);
    }

    fn go_on_behind(&mut self, addresses: &[IpAddr]) {
        for (number, subnet) in self.subnets.iter().enumerate() {
            self.last[number] = addresses.iter().copied().find(|ip| subnet.gives(*ip));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
