// SPDX-License-Identifier: Apache-2.0
//! Which pod has which addresses and host ports, in memory.
//!
//! The rule: no two pods have the same address, and no two have host ports that one packet could go
//! to both of. The next pod gets the address behind the last one given, so that an address given back
//! rests for as long as there are others.
//!
//! Pure: no disk, no kernel. [`leases`](crate::leases) keeps it over a restart.

use crate::subnet::Subnet;
use crate::{Error, PortMapping};
use std::collections::{BTreeMap, HashSet};
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
    taken: HashSet<IpAddr>,
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
        if let Some(ip) = lease.addresses.iter().find(|ip| self.taken.contains(*ip)) {
            let holder = self.leases.iter().find(|(_, other)| other.addresses.contains(ip));
            return Err(holder.map(|(holder, _)| holder.clone()).unwrap_or_default());
        }
        if lease.sequence >= self.sequence {
            self.sequence = lease.sequence;
            self.go_on_behind(&lease.addresses);
        }
        self.taken.extend(&lease.addresses);
        self.leases.insert(pod, lease);
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
        self.taken.extend(&lease.addresses);
        self.leases.insert(pod.to_owned(), lease.clone());
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
        if let Some(lease) = self.leases.get_mut(pod).filter(|lease| lease.leaving) {
            lease.ports.clear();
        }
    }

    /// Takes back what the pod has.
    pub(crate) fn free(&mut self, pod: &str) {
        if let Some(lease) = self.leases.remove(pod) {
            for ip in &lease.addresses {
                self.taken.remove(ip);
            }
        }
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
            let full = || Error::SubnetFull { subnet: subnet.net() };
            let start = last.map_or(subnet.first(), |last| subnet.after(last));
            // Of one more address than are taken, one is free, if the subnet has that many.
            let tries = subnet.size().min(self.taken.len() as u128 + 1);
            let mut candidate = start;
            for _ in 0..tries {
                if !self.taken.contains(&candidate) {
                    return Ok(candidate);
                }
                candidate = subnet.after(candidate);
            }
            Err(full())
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
            for (holder, lease) in self.leases.iter().filter(|(holder, _)| *holder != pod) {
                if let Some(held) = lease.ports.iter().find(|held| held.clashes(port)) {
                    return Err(Error::PortTaken {
                        port: *port,
                        held: *held,
                        holder: holder.clone(),
                    });
                }
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
#[path = "ipam_tests.rs"]
mod tests;
