// SPDX-License-Identifier: Apache-2.0
//! The built-in network: attaches pods by a bridge, or by macvlan or ipvlan links, and detaches them.
//!
//! ```text
//! attach   lease in memory ─▶ on disk ─▶ link ─▶ setup inside the pod ─▶ host ports
//! detach   host ports ─▶ link ─▶ lease on disk ─▶ in memory
//! ```
//!
//! ```text
//!  pod netns            host netns
//!  eth0 ───── hull<11 hex> ─┐
//!  eth0 ───── hull<11 hex> ─┴─ hull0 (gateway) ── routed ── the node's other links
//!                               └ table `inet hull`: host ports, masquerade, guard
//! ```
//!
//! With macvlan or ipvlan there is no bridge: see `macvlan`. A pod with rate limits has a token bucket on
//! its link, and another on `hulq<11 hex>` for the traffic that it sends: see `shaping`.
//!
//! The rule: addresses become free last, so that no pod gets an address while anything of its former
//! holder exists. A failed attach is rolled back by [`BuiltinNetwork::detach`]. A pod whose processes have
//! ended is [released](BuiltinNetwork::release): the same steps, the later ones once the kernel has
//! removed the link.
//!
//! Subnets can change while pods run: see `host_network`, which also has the locks.

mod automatic;
mod bridge_subnets;
mod config;
mod conntrack;
mod eth0;
mod host;
mod host_network;
mod links;
mod macvlan;
mod netns_setup;
mod overlap;
mod probe;
mod release_queue;
mod shaping;
mod sysctl;
mod veth;

pub use config::{Attachment, Config};

use crate::error::{Error, MTU_MIN_V6};
use crate::held_ports::Families;
use crate::ipam::{Ipam, Lease, Leases, Subnet};
use crate::sync::lock_unpoisoned;
use crate::types::{Bandwidth, LinkState, Pod, PortMapping};
use bridge_subnets::BridgeSubnets;
use eth0::Eth0;
use host_network::HostNetwork;
use hull_netlink::link;
use hull_netlink::link::LinkMode;
use ipnet::IpNet;
use links::route_socket;
use netns_setup::Address;
use release_queue::ReleaseQueue;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fs, io};
use sysctl::PodSysctls;
use tracing::warn;

/// Whether there are records of the built-in network, usable or not: of pods' addresses and ports, or of the bridge's
/// subnets. If not, nothing on the bridge and in the table is of the daemon with this state directory. A directory
/// that cannot be read counts as one with records.
#[must_use]
pub fn has_records(config: &Config) -> bool {
    let folders = [config.state_dir.clone(), bridge_subnets::folder(&config.state_dir)];
    folders.iter().any(|folder| match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(err) => err.kind() != io::ErrorKind::NotFound,
    })
}

/// The built-in pod network of this node.
#[derive(Debug)]
pub struct BuiltinNetwork {
    config: Config,
    leases: Arc<Leases>,
    ipam: Arc<Mutex<Ipam>>,
    host: Arc<HostNetwork>,
    release_queue: Arc<ReleaseQueue>,
    sysctls: PodSysctls,
    probed: AtomicBool,
}

impl BuiltinNetwork {
    /// Loads the leases. Changes nothing on the host: the first attach does.
    ///
    /// # Errors
    /// When the subnets are not usable or the state directory cannot be read. A single unreadable record
    /// is set aside.
    pub fn open(config: Config) -> Result<Self, Error> {
        let current =
            if config.pod_cidr.is_empty() { Vec::new() } else { subnets(&config.pod_cidr)? };
        let record = BridgeSubnets::new(&config.state_dir);
        let recorded = record.load()?.unwrap_or_default();
        let mut ipam = Ipam::new(Vec::new());
        let leases = Leases::new(config.state_dir.clone());
        let known = || -> Result<Vec<Subnet>, Error> {
            let of_bridge = overlap::of_bridge(&route_socket()?, &config)?;
            Ok(current.iter().chain(&recorded).chain(&of_bridge).copied().collect())
        };
        leases.load(&mut ipam, known)?;
        ipam.add_former(&recorded);
        let (leases, ipam) = (Arc::new(leases), Arc::new(Mutex::new(ipam)));
        let host = HostNetwork::new(config.clone(), Arc::clone(&ipam), record, current, recorded);
        let host = Arc::new(host);
        let release_queue = Arc::new(ReleaseQueue::new(Arc::clone(&leases), Arc::clone(&host)));
        let (sysctls, probed) = (PodSysctls::default(), AtomicBool::new(false));
        Ok(Self { config, leases, ipam, host, release_queue, sysctls, probed })
    }

    /// Attaches the pod: addresses, a link, routes, host ports and rate limits.
    ///
    /// A pod that is already attached is attached again and keeps its addresses. Mappings without a host
    /// port are ignored.
    ///
    /// # Errors
    /// When a step fails; the attempt is rolled back.
    pub fn attach(
        &self,
        pod: &Pod<'_>,
        netns: BorrowedFd<'_>,
        ports: &[PortMapping],
        bandwidth: Bandwidth,
    ) -> Result<Attachment, Error> {
        let host_link = links::link_name(pod.id)?;
        if !host_link.ends_with(pod.short) {
            return Err(Error::BadPod { id: pod.id.to_owned() });
        }
        let made = self.try_attach(pod.id, host_link, netns, ports, bandwidth);
        if made.is_err()
            && let Err(left) = self.roll_back(pod.id, netns)
        {
            warn!(pod_id = pod.id, error = %left, "a failed attach was not completely rolled back");
        }
        made
    }

    /// Detaches the pod: removes its host ports and link, and frees its addresses.
    ///
    /// Idempotent, in any state, even after the pod's network namespace is gone.
    ///
    /// # Errors
    /// When a step fails; the addresses stay allocated, and calling it again continues from there.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        let host_link = links::link_name(id)?;
        self.release_queue.cancel(&host_link);
        let lease = self.ipam().begin_release(id);
        if let Some(lease) = &lease {
            self.host.unpublish(id, &lease.addresses, &lease.ports)?;
        }
        veth::remove(&route_socket()?, id, &host_link)?;
        self.leases.remove(id)?;
        host_network::free(&self.host, id);
        Ok(())
    }

    fn roll_back(&self, id: &str, netns: BorrowedFd<'_>) -> Result<(), Error> {
        if self.config.link_mode != LinkMode::Bridge {
            macvlan::remove(netns, netns_setup::INTERFACE, self.config.link_mode)?;
        }
        self.detach(id)
    }

    /// Removes the pod's host ports and makes them available to other pods.
    ///
    /// # Errors
    /// When they cannot be removed; calling it again retries.
    pub fn unpublish_ports(&self, id: &str) -> Result<(), Error> {
        let lease = self.ipam().begin_release(id).filter(|lease| !lease.ports.is_empty());
        let Some(lease) = lease else { return Ok(()) };
        self.host.unpublish(id, &lease.addresses, &lease.ports)?;
        self.leases.write(id, &Lease { ports: Vec::new(), ..lease })?;
        self.ipam().unpublish_ports(id);
        Ok(())
    }

    /// Releases a pod whose processes have ended: its host ports are removed when this returns, and its
    /// addresses become free as soon as the kernel has removed its links.
    ///
    /// If the namespace outlives the processes (another process has entered it, or a connection is still
    /// closing), the links are removed after a second. A daemon that stops before that leaves the lease on
    /// disk, and the next daemon continues.
    ///
    /// # Errors
    /// When the ports cannot be removed or the thread cannot be started; calling it again retries.
    pub fn release(&self, id: &str) -> Result<(), Error> {
        if self.config.link_mode != LinkMode::Bridge {
            return self.detach(id);
        }
        let host_link = links::link_name(id)?;
        self.unpublish_ports(id)?;
        self.release_queue.add(id, host_link)
    }

    /// The ids of all pods that have an address or a link on the bridge, to sweep after a restart.
    pub fn attachments(&self) -> Vec<String> {
        let mut pods: BTreeSet<String> = self.ipam().pods().cloned().collect();
        match self.links() {
            Ok(links) => pods.extend(links),
            Err(err) => warn!(error = %err, "cannot list the pods' links"),
        }
        pods.into_iter().collect()
    }

    /// Whether the pod has addresses here.
    pub fn is_attached(&self, id: &str) -> bool {
        self.ipam().get(id).is_some()
    }

    /// Whether the pod has addresses or a link here: a link is left where leases were lost.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn has_anything_of(&self, id: &str) -> Result<bool, Error> {
        let host_link = links::link_name(id)?;
        Ok(self.is_attached(id) || veth::find(&route_socket()?, id, &host_link)?.is_some())
    }

    /// The state of the pod's link on the host.
    ///
    /// # Errors
    /// When the links cannot be read.
    pub fn link_state(&self, id: &str) -> Result<LinkState, Error> {
        if !self.is_attached(id) || self.config.link_mode != LinkMode::Bridge {
            return Ok(LinkState::Elsewhere);
        }
        let socket = route_socket()?;
        let bridge = links::find(&socket, &self.config.bridge)?.map(|bridge| bridge.index);
        Ok(match veth::find(&socket, id, &links::link_name(id)?)? {
            None => LinkState::Missing,
            Some(link) if !link.up => LinkState::Down,
            Some(link) if link.controller.is_none() || link.controller != bridge => {
                LinkState::Unplugged
            }
            Some(_) => LinkState::Whole,
        })
    }

    /// The number of pods that have addresses here.
    pub fn attached_count(&self) -> usize {
        self.ipam().pods().count()
    }

    /// The address families of the pods' subnets; IPv4 before a subnet was chosen.
    pub(crate) fn families(&self) -> Families {
        let ipam = self.ipam();
        let v6 = ipam.subnets().iter().any(|subnet| !subnet.is_ipv4());
        Families { v4: !v6 || ipam.subnets().iter().any(Subnet::is_ipv4), v6 }
    }

    /// Another pod than `pod` that has one of these host ports: the port, the holder's mapping, and the holder.
    pub fn port_holder(
        &self,
        pod: &str,
        ports: &[PortMapping],
    ) -> Option<(PortMapping, PortMapping, String)> {
        let ipam = self.ipam();
        ports.iter().find_map(|port| {
            let (holder, held) = ipam.port_holder(pod, port)?;
            Some((*port, held, holder.to_owned()))
        })
    }

    /// Checks that pods can be attached on this host. Probes the kernel until that succeeds once; quick
    /// after that. Rewrites the nftables table if it was removed while pods are attached.
    ///
    /// # Errors
    /// Whatever is missing on this host; [`Error::hint`] says how to fix it.
    pub fn check(&self) -> Result<(), Error> {
        let socket = route_socket()?;
        host::find_bridge(&socket, &self.config)?;
        if self.config.link_mode != LinkMode::Bridge {
            macvlan::uplink(&socket, &self.config)?;
        }
        self.maintain()?;
        let subnets = self.host.subnets(&socket)?;
        if !self.probed.load(Ordering::Relaxed) {
            self.host.check_overlap(&socket, &subnets)?;
            let layout = host::layout(&self.config, &subnets);
            probe::probe(&self.host.nft(), &layout, self.config.link_mode)?;
            self.probed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the nftables table is as the pods that are attached need it.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn has_rules(&self) -> Result<bool, Error> {
        self.host.has_rules()
    }

    /// Repairs the table for pods that are attached, and removes what only pods needed that are gone.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn maintain(&self) -> Result<(), Error> {
        self.host.retire_subnets()?;
        self.host.repair_table()
    }

    /// Removes what no pod needs any more, while another network attaches new pods: at last bridge and table.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub fn withdraw(&self) -> Result<(), Error> {
        if self.attached_count() == 0 && !self.links()?.is_empty() {
            // Links whose leases were lost; they are swept first.
            return Ok(());
        }
        self.host.withdraw()?;
        self.host.repair_table()
    }

    /// A subnet of pods here that another link of the host has too, in words.
    ///
    /// # Errors
    /// When the host's links or routes cannot be read.
    pub fn shared_subnet(&self) -> Result<Option<String>, Error> {
        if self.attached_count() == 0 {
            return Ok(None);
        }
        Ok(self.host.shared_subnet(&route_socket()?)?.map(|error| error.to_string()))
    }

    /// Removes the parts that all pods share: bridge, table, state directory.
    ///
    /// # Errors
    /// While a pod is attached, and when a step fails.
    pub fn remove(&self) -> Result<(), Error> {
        let count = self.attachments().len();
        if count > 0 {
            return Err(Error::StillAttached { count });
        }
        self.host.remove()?;
        self.leases.remove_all()
    }

    /// Changes the subnets of new pods. Pods keep the addresses that they have, and the bridge its addresses in
    /// former subnets, until the last pod with such an address has gone.
    ///
    /// # Errors
    /// When the subnets are not usable, or a pod has an address that the bridge would get.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        let subnets = subnets(pod_cidr)?;
        if let Some(mtu) = self.config.mtu.filter(|mtu| *mtu < MTU_MIN_V6)
            && let Some(subnet) = pod_cidr.iter().find(|of| of.addr().is_ipv6())
        {
            return Err(Error::MtuTooSmall { subnet: *subnet, mtu });
        }
        // Whether the host can have these is another question than for the former ones.
        self.probed.store(false, Ordering::Relaxed);
        self.host.set_subnets(subnets)
    }

    fn try_attach(
        &self,
        id: &str,
        host_link: String,
        netns: BorrowedFd<'_>,
        ports: &[PortMapping],
        bandwidth: Bandwidth,
    ) -> Result<Attachment, Error> {
        let socket = route_socket()?;
        self.host.subnets(&socket)?;
        let mut host = self.host.ensure(&socket)?;
        // A pod that is attached again must keep its addresses.
        self.release_queue.cancel(&host_link);
        let ports: Vec<_> = ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let (before, lease) = self.allocate(id, &ports)?;
        self.leases.write(id, &lease)?;
        let has = |subnet| host.subnets.contains(subnet);
        if !self.host.is_set_up() || !lease.subnets.iter().all(has) {
            // The subnets have changed meanwhile, or another thread has removed what no pod used.
            host = self.host.ensure(&socket)?;
        }
        if let Some(before) = before {
            self.host.unpublish(id, &before.addresses, &before.ports)?;
            veth::remove(&socket, id, &host_link)?;
        }
        let addresses = with_gateways(&lease);
        let Some(first) = addresses.first() else {
            return Err(Error::Subnets { subnets: String::new() });
        };
        let eth0 = Eth0 {
            config: &self.config,
            host: &host,
            id,
            host_link: &host_link,
            netns,
            addresses: &addresses,
            bandwidth,
            settings: &self.sysctls,
        };
        eth0.make(&socket)?;
        self.host.publish(id, &lease)?;
        let ips = addresses.iter().map(|of| of.address).collect();
        Ok(Attachment { ips, gateway: first.gateway, host_link, mtu: host.mtu })
    }

    /// Allocates addresses and ports; returns the pod's former lease and its new lease. If the subnet is full,
    /// waits for addresses that are about to become free.
    fn allocate(&self, id: &str, ports: &[PortMapping]) -> Result<(Option<Lease>, Lease), Error> {
        loop {
            let completed = self.release_queue.completed();
            let mut ipam = self.ipam();
            let before = ipam.get(id).cloned();
            match ipam.allocate(id, ports) {
                Ok(lease) => return Ok((before, lease)),
                Err(full @ Error::SubnetFull { .. }) => {
                    drop(ipam);
                    if !self.release_queue.wait_for_completion(completed) {
                        return Err(full);
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// The ids of the pods that have a link on the bridge.
    fn links(&self) -> Result<Vec<String>, Error> {
        let socket = route_socket()?;
        let Some(bridge) = links::find(&socket, &self.config.bridge)? else {
            return Ok(Vec::new());
        };
        let all = link::all(&socket).map_err(|source| Error::FindLink {
            link: format!("{}*", links::LINK_PREFIX),
            source,
        })?;
        let ours = all.into_iter().filter(|link| link.controller == Some(bridge.index));
        let pods = ours.filter_map(|link| {
            let id = link.alias?;
            (links::link_name(&id).ok()? == link.name).then_some(id)
        });
        Ok(pods.collect())
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        lock_unpoisoned(&self.ipam)
    }
}

fn subnets(pod_cidr: &[IpNet]) -> Result<Vec<Subnet>, Error> {
    let of_v4 = pod_cidr.iter().filter(|net| net.addr().is_ipv4()).count();
    if pod_cidr.is_empty() || of_v4 > 1 || pod_cidr.len() - of_v4 > 1 {
        return Err(Error::Subnets { subnets: shown(pod_cidr) });
    }
    pod_cidr.iter().map(|net| Subnet::new(*net)).collect()
}

fn shown(pod_cidr: &[IpNet]) -> String {
    pod_cidr.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn with_gateways(lease: &Lease) -> Vec<Address> {
    let of = |(ip, subnet): (&IpAddr, &Subnet)| Address {
        address: subnet.with_length(*ip),
        gateway: subnet.gateway(),
    };
    lease.addresses.iter().zip(&lease.subnets).map(of).collect()
}
