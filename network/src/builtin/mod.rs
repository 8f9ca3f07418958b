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
//! Locks: `ipam` is held for memory operations only. `table` is held shared to add or remove elements, and
//! exclusively to rewrite the table, because the new content must match the leases at that moment.

mod config;
mod conntrack;
mod eth0;
mod host;
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

use crate::error::Error;
use crate::ipam::{Ipam, Lease, Leases, Subnet};
use crate::netlink::{Socket, link};
use crate::nft::{Published, Sockets, Table};
use crate::sync::lock_unpoisoned;
use crate::types::{Bandwidth, LinkMode, Pod, PortMapping};
use eth0::Eth0;
use host::HostState;
use ipnet::IpNet;
use links::route_socket;
use netns_setup::Address;
use release_queue::ReleaseQueue;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use sysctl::PodSysctls;
use tracing::{info, warn};

/// The built-in pod network of this node.
#[derive(Debug)]
pub struct BuiltinNetwork {
    config: Config,
    leases: Arc<Leases>,
    ipam: Arc<Mutex<Ipam>>,
    release_queue: Arc<ReleaseQueue>,
    /// The host's side, once it was set up. Locked only to copy or replace it.
    host: Mutex<Option<HostState>>,
    /// Held while the host's side is set up.
    host_setup: Mutex<()>,
    table: RwLock<()>,
    netfilter: Sockets,
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
        let leases = Leases::new(config.state_dir.clone());
        let mut ipam = Ipam::new(subnets(&config.pod_cidr)?);
        leases.load(&mut ipam)?;
        let (leases, ipam) = (Arc::new(leases), Arc::new(Mutex::new(ipam)));
        let release_queue = Arc::new(ReleaseQueue::new(Arc::clone(&leases), Arc::clone(&ipam)));
        Ok(Self {
            config,
            leases,
            ipam,
            release_queue,
            host: Mutex::new(None),
            host_setup: Mutex::new(()),
            table: RwLock::new(()),
            netfilter: Sockets::default(),
            sysctls: PodSysctls::default(),
            probed: AtomicBool::new(false),
        })
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
            warn!(pod = pod.id, error = %left, "a failed attach was not completely rolled back");
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
            self.unpublish(id, &lease.addresses, &lease.ports)?;
        }
        veth::remove(&route_socket()?, id, &host_link)?;
        self.leases.remove(id)?;
        self.ipam().free(id);
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
        self.unpublish(id, &lease.addresses, &lease.ports)?;
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
        if !self.probed.load(Ordering::Relaxed) {
            let subnets = self.ipam().subnets().to_vec();
            overlap::check(&socket, &self.config, &subnets)?;
            let layout = host::layout(&self.config, &subnets);
            probe::probe(&self.nft(), &layout, self.config.link_mode)?;
            self.probed.store(true, Ordering::Relaxed);
        }
        self.repair_table()
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
        let _setup = lock_unpoisoned(&self.host_setup);
        let _table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *lock_unpoisoned(&self.host) = None;
        let removed = self.netfilter.with(|socket| self.nft().remove(socket));
        removed
            .map_err(|source| Error::RemoveTable { table: self.config.table.clone(), source })?;
        let socket = route_socket()?;
        if let Some(bridge) = host::find_bridge(&socket, &self.config)? {
            let link = bridge.name.clone();
            link::remove(&socket, &bridge).map_err(|source| Error::RemoveLink { link, source })?;
        }
        self.leases.remove_all()
    }

    /// Changes the pods' subnets.
    ///
    /// # Errors
    /// When they are not usable, or a pod has an address outside them.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        let new = subnets(pod_cidr)?;
        let _setup = lock_unpoisoned(&self.host_setup);
        let mut ipam = self.ipam();
        if ipam.subnets() == new {
            return Ok(());
        }
        ipam.set_subnets(new)
            .map_err(|pod| Error::SubnetInUse { subnets: shown(pod_cidr), pod })?;
        drop(ipam);
        // The next attach gives the bridge its new address and rewrites the table.
        *lock_unpoisoned(&self.host) = None;
        info!(pod_cidr = shown(pod_cidr), "pod subnets changed");
        Ok(())
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
        let host = self.ensure_host(&socket)?;
        // A pod that is attached again must keep its addresses.
        self.release_queue.cancel(&host_link);
        let ports: Vec<_> = ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let (before, lease, subnets) = self.allocate(id, &ports)?;
        self.leases.write(id, &lease)?;
        if let Some(before) = before {
            self.unpublish(id, &before.addresses, &before.ports)?;
            veth::remove(&socket, id, &host_link)?;
        }
        let addresses = with_gateways(&lease.addresses, &subnets);
        let Some(first) = addresses.first() else {
            return Err(Error::Subnets { subnets: String::new() });
        };
        let eth0 = Eth0 {
            config: &self.config,
            host,
            id,
            host_link: &host_link,
            netns,
            addresses: &addresses,
            bandwidth,
            settings: &self.sysctls,
        };
        eth0.make(&socket)?;
        self.publish(id, &lease)?;
        let ips = addresses.iter().map(|of| of.address).collect();
        Ok(Attachment { ips, gateway: first.gateway, host_link, mtu: host.mtu })
    }

    /// Returns the bridge and table, after creating or repairing them if necessary.
    fn ensure_host(&self, socket: &Socket) -> Result<HostState, Error> {
        if let Some(host) = self.unchanged_host(socket)? {
            return Ok(host);
        }
        let _setup = lock_unpoisoned(&self.host_setup);
        // Another thread may have done it while this one waited for the lock.
        if let Some(host) = self.unchanged_host(socket)? {
            return Ok(host);
        }
        let subnets = self.ipam().subnets().to_vec();
        let host = host::make_bridge(socket, &self.config, &subnets)?;
        self.write_table()?;
        *lock_unpoisoned(&self.host) = Some(host);
        Ok(host)
    }

    fn unchanged_host(&self, socket: &Socket) -> Result<Option<HostState>, Error> {
        let known = *lock_unpoisoned(&self.host);
        match known {
            Some(host) if host::is_unchanged(socket, &self.netfilter, &self.config, host)? => {
                Ok(Some(host))
            }
            _ => Ok(None),
        }
    }

    /// Rewrites the table if pods are attached and it is incomplete: reloading a firewall can flush all
    /// rules.
    fn repair_table(&self) -> Result<(), Error> {
        let ipam = self.ipam();
        let (subnets, unused) = (ipam.subnets().to_vec(), ipam.pods().next().is_none());
        drop(ipam);
        let rules = host::layout(&self.config, &subnets).rule_counts();
        if unused || host::has_table(&self.netfilter, &self.config, rules)? {
            return Ok(());
        }
        info!(
            table = self.config.table,
            "nftables table was removed while pods are attached; rewriting it"
        );
        self.write_table()
    }

    /// Rewrites the table with the host ports of all leases.
    fn write_table(&self) -> Result<(), Error> {
        let _alone = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let (subnets, leases): (Vec<Subnet>, Vec<(String, Lease)>) = {
            let ipam = self.ipam();
            let active = ipam.active().map(|(pod, lease)| (pod.clone(), lease.clone()));
            (ipam.subnets().to_vec(), active.collect())
        };
        let all: Vec<_> = leases.iter().map(|(pod, lease)| published(pod, lease)).collect();
        let layout = host::layout(&self.config, &subnets);
        let written = self.netfilter.with(|socket| self.nft().replace(socket, &layout, &all));
        written.map_err(|source| Error::MakeTable { table: self.config.table.clone(), source })
    }

    /// Allocates addresses and ports; returns the pod's former lease, its new lease, and the subnets. If
    /// the subnet is full, waits for addresses that are about to become free.
    fn allocate(
        &self,
        id: &str,
        ports: &[PortMapping],
    ) -> Result<(Option<Lease>, Lease, Vec<Subnet>), Error> {
        loop {
            let completed = self.release_queue.completed();
            let mut ipam = self.ipam();
            let before = ipam.get(id).cloned();
            match ipam.allocate(id, ports) {
                Ok(lease) => return Ok((before, lease, ipam.subnets().to_vec())),
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

    fn publish(&self, id: &str, lease: &Lease) -> Result<(), Error> {
        if lease.ports.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::MakePorts { table: self.config.table.clone(), source };
        let shared = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let added = self.netfilter.with(|socket| self.nft().publish(socket, &published(id, lease)));
        drop(shared);
        match added {
            // The table was just removed, or has elements that belong to no lease. The leases, this one
            // included, are authoritative.
            Err(err) if matches!(err.errno(), Errno::NOENT | Errno::BUSY | Errno::EXIST) => {
                info!(pod = id, error = %err, "nftables table does not match the leases; rewriting it");
                self.write_table()?;
            }
            other => other.map_err(failed)?,
        }
        let forget = |socket: &Socket| {
            conntrack::forget_stale(socket, &lease.ports, &lease.addresses);
            Ok(())
        };
        self.netfilter.with(forget).map_err(failed)
    }

    fn unpublish(
        &self,
        id: &str,
        addresses: &[IpAddr],
        ports: &[PortMapping],
    ) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let _shared = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let of = Published { pod: id, addresses, ports };
        let removed = self.netfilter.with(|socket| {
            self.nft().unpublish(socket, &of)?;
            conntrack::forget_pod(socket, ports, addresses);
            Ok(())
        });
        removed.map_err(|source| Error::RemovePorts { table: self.config.table.clone(), source })
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

    fn nft(&self) -> Table<'_> {
        Table(&self.config.table)
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

fn with_gateways(addresses: &[IpAddr], subnets: &[Subnet]) -> Vec<Address> {
    let of = |ip: &IpAddr| {
        let subnet = subnets.iter().find(|subnet| subnet.assigns(*ip))?;
        Some(Address { address: subnet.with_length(*ip), gateway: subnet.gateway() })
    };
    addresses.iter().filter_map(of).collect()
}

fn published<'l>(pod: &'l str, lease: &'l Lease) -> Published<'l> {
    Published { pod, addresses: &lease.addresses, ports: &lease.ports }
}
