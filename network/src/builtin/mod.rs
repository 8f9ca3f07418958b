// SPDX-License-Identifier: Apache-2.0
//! Attaching pods to the bridge and detaching them.
//!
//! ```text
//! attach   lease in memory ─▶ on disk ─▶ pair of links ─▶ inside the pod ─▶ host ports
//! detach   host ports ─▶ pair of links ─▶ lease on disk ─▶ in memory
//! ```
//!
//! The rule: addresses are given back last, so that nobody else gets one while a trace of its holder
//! is left. An attach that fails is undone by [`Bridge::detach`]. A pod whose processes are gone is
//! [let go](Bridge::release): the same steps, the later ones once the kernel has taken the pair away.
//!
//! Locks: `ipam` is held for memory only. `table` is shared by those who add or take out elements, and
//! held alone by who writes the table anew: what it writes must be what the leases say at that moment.

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
use crate::sync::alone;
use crate::types::{Bandwidth, Links, Pod, PortMapping};
use eth0::Eth0;
use host::Ready;
use ipnet::IpNet;
use links::route_socket;
use netns_setup::Address;
use release_queue::Leaving;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use sysctl::OfPods;
use tracing::{info, warn};

/// The pod network.
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    leases: Arc<Leases>,
    ipam: Arc<Mutex<Ipam>>,
    leaving: Arc<Leaving>,
    /// Once the bridge was made by us. Held while it is made, never while one looks at it.
    ready: Mutex<Option<Ready>>,
    making: Mutex<()>,
    table: RwLock<()>,
    netfilter: Sockets,
    inside: OfPods,
    probed: AtomicBool,
}

impl Bridge {
    /// Reads which addresses are given out. Makes nothing: the host is touched by the first attach.
    ///
    /// # Errors
    /// When the subnets are not usable or the state directory cannot be read. A single record that
    /// cannot be read is set aside.
    pub fn open(config: Config) -> Result<Self, Error> {
        let leases = Leases::new(config.state_dir.clone());
        let mut ipam = Ipam::new(subnets(&config.pod_cidr)?);
        leases.load(&mut ipam)?;
        let (leases, ipam) = (Arc::new(leases), Arc::new(Mutex::new(ipam)));
        let leaving = Arc::new(Leaving::new(Arc::clone(&leases), Arc::clone(&ipam)));
        Ok(Self {
            config,
            leases,
            ipam,
            leaving,
            ready: Mutex::new(None),
            making: Mutex::new(()),
            table: RwLock::new(()),
            netfilter: Sockets::default(),
            inside: OfPods::default(),
            probed: AtomicBool::new(false),
        })
    }

    /// Gives the pod its addresses, a link, routes, host ports that lead to it, and its rates.
    ///
    /// A pod that is attached already is attached anew, with the addresses that it has. Mappings
    /// without a host port are left out.
    ///
    /// # Errors
    /// When something cannot be made; nothing is left of the attempt then.
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
        let made = self.make(pod.id, host_link, netns, ports, bandwidth);
        if made.is_err()
            && let Err(left) = self.undo(pod.id, netns)
        {
            warn!(pod = pod.id, error = %left, "pod not attached, and not all of it taken away again");
        }
        made
    }

    /// Takes away all that the pod has: host ports, link, addresses.
    ///
    /// Any number of times, in any state, also when its network namespace is gone.
    ///
    /// # Errors
    /// When something will not go; then its addresses stay taken, and a further call goes on.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        let host_link = links::link_name(id)?;
        self.leaving.recall(&host_link);
        let lease = self.ipam().leave(id);
        if let Some(lease) = &lease {
            self.withdraw(id, &lease.addresses, &lease.ports)?;
        }
        veth::remove(&route_socket()?, id, &host_link)?;
        self.leases.remove(id)?;
        self.ipam().free(id);
        Ok(())
    }

    fn undo(&self, id: &str, netns: BorrowedFd<'_>) -> Result<(), Error> {
        if self.config.links != Links::Bridge {
            macvlan::remove(netns, netns_setup::NAME, self.config.links)?;
        }
        self.detach(id)
    }

    /// Takes away the pod's host ports: others can have them from now on.
    ///
    /// # Errors
    /// When they will not go; a further call goes on.
    pub fn close_ports(&self, id: &str) -> Result<(), Error> {
        let lease = self.ipam().leave(id).filter(|lease| !lease.ports.is_empty());
        let Some(lease) = lease else { return Ok(()) };
        self.withdraw(id, &lease.addresses, &lease.ports)?;
        self.leases.write(id, &Lease { ports: Vec::new(), ..lease })?;
        self.ipam().close_ports(id);
        Ok(())
    }

    /// Lets go of a pod whose processes are gone: its host ports are closed when this returns, and its
    /// addresses are given back as soon as the kernel has taken its links away.
    ///
    /// A namespace that lives on (somebody visits it, a connection is still being closed) has its
    /// links taken away after a second. Nothing is lost when this process ends before that: the lease
    /// is on disk until the last.
    ///
    /// # Errors
    /// When the ports will not go, or nobody can watch over the rest; a further call goes on.
    pub fn release(&self, id: &str) -> Result<(), Error> {
        if self.config.links != Links::Bridge {
            return self.detach(id);
        }
        let host_link = links::link_name(id)?;
        self.close_ports(id)?;
        self.leaving.add(id, host_link)
    }

    /// The pods that have an address, or a link on the bridge. For sweeping after a restart.
    pub fn attachments(&self) -> Vec<String> {
        let mut pods: BTreeSet<String> = self.ipam().pods().cloned().collect();
        match self.links() {
            Ok(links) => pods.extend(links),
            Err(err) => warn!(error = %err, "links of pods not listed"),
        }
        pods.into_iter().collect()
    }

    /// Whether pods can be attached on this host. Thorough until it first was well, then quick.
    ///
    /// A table that others have taken away under pods is written anew.
    ///
    /// # Errors
    /// What is missing, with the mend in [`Error::hint`].
    pub fn check(&self) -> Result<(), Error> {
        let socket = route_socket()?;
        host::find_bridge(&socket, &self.config)?;
        if self.config.links != Links::Bridge {
            macvlan::uplink(&socket, &self.config)?;
        }
        if !self.probed.load(Ordering::Relaxed) {
            let subnets = self.ipam().subnets().to_vec();
            overlap::check(&socket, &self.config, &subnets)?;
            let layout = host::layout(&self.config, &subnets);
            probe::try_out(&self.nft(), &layout, self.config.links)?;
            self.probed.store(true, Ordering::Relaxed);
        }
        self.mend_table()
    }

    /// Takes away what all pods share: bridge, table, state directory.
    ///
    /// # Errors
    /// While a pod is attached, and when something will not go.
    pub fn remove(&self) -> Result<(), Error> {
        let count = self.attachments().len();
        if count > 0 {
            return Err(Error::StillAttached { count });
        }
        let _making = alone(&self.making);
        let _table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *alone(&self.ready) = None;
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

    /// Gives pods addresses of other subnets from now on.
    ///
    /// # Errors
    /// When they are not usable, or a pod has an address outside of them.
    pub fn set_pod_cidr(&self, pod_cidr: &[IpNet]) -> Result<(), Error> {
        let new = subnets(pod_cidr)?;
        let _making = alone(&self.making);
        let mut ipam = self.ipam();
        if ipam.subnets() == new {
            return Ok(());
        }
        ipam.set_subnets(new)
            .map_err(|pod| Error::SubnetInUse { subnets: shown(pod_cidr), pod })?;
        drop(ipam);
        // The next attach gives the bridge its new address and writes the table anew.
        *alone(&self.ready) = None;
        info!(pod_cidr = shown(pod_cidr), "pod subnets changed");
        Ok(())
    }

    fn make(
        &self,
        id: &str,
        host_link: String,
        netns: BorrowedFd<'_>,
        ports: &[PortMapping],
        bandwidth: Bandwidth,
    ) -> Result<Attachment, Error> {
        let socket = route_socket()?;
        let ready = self.ready(&socket)?;
        // Somebody attaches it anew: what it has is not to be given back.
        self.leaving.recall(&host_link);
        let ports: Vec<_> = ports.iter().copied().filter(|port| port.host_port != 0).collect();
        let (before, lease, subnets) = self.lease(id, &ports)?;
        self.leases.write(id, &lease)?;
        if let Some(before) = before {
            self.withdraw(id, &before.addresses, &before.ports)?;
            veth::remove(&socket, id, &host_link)?;
        }
        let addresses = with_gateways(&lease.addresses, &subnets);
        let Some(first) = addresses.first() else {
            return Err(Error::Subnets { subnets: String::new() });
        };
        let eth0 = Eth0 {
            config: &self.config,
            ready,
            id,
            host_link: &host_link,
            netns,
            addresses: &addresses,
            bandwidth,
            settings: &self.inside,
        };
        eth0.make(&socket)?;
        self.publish(id, &lease)?;
        let ips = addresses.iter().map(|of| of.address).collect();
        Ok(Attachment { ips, gateway: first.gateway, host_link, mtu: ready.mtu })
    }

    /// The bridge and table, made or repaired if need be.
    fn ready(&self, socket: &Socket) -> Result<Ready, Error> {
        if let Some(ready) = self.still(socket)? {
            return Ok(ready);
        }
        let _making = alone(&self.making);
        // Whoever was here before has made it.
        if let Some(ready) = self.still(socket)? {
            return Ok(ready);
        }
        let subnets = self.ipam().subnets().to_vec();
        let ready = host::make_bridge(socket, &self.config, &subnets)?;
        self.write_table()?;
        *alone(&self.ready) = Some(ready);
        Ok(ready)
    }

    fn still(&self, socket: &Socket) -> Result<Option<Ready>, Error> {
        let known = *alone(&self.ready);
        match known {
            Some(ready) if host::is_still(socket, &self.netfilter, &self.config, ready)? => {
                Ok(Some(ready))
            }
            _ => Ok(None),
        }
    }

    /// Writes the table anew if there are pods and it is not as it should be: whoever reloads a
    /// firewall may have flushed all rules.
    fn mend_table(&self) -> Result<(), Error> {
        let ipam = self.ipam();
        let (subnets, unused) = (ipam.subnets().to_vec(), ipam.pods().next().is_none());
        drop(ipam);
        let rules = host::layout(&self.config, &subnets).rule_counts();
        if unused || host::has_table(&self.netfilter, &self.config, rules)? {
            return Ok(());
        }
        info!(table = self.config.table, "nftables table was taken away under pods; written anew");
        self.write_table()
    }

    /// Writes the table anew, with the host ports of all leases.
    fn write_table(&self) -> Result<(), Error> {
        let _alone = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let (subnets, leases): (Vec<Subnet>, Vec<(String, Lease)>) = {
            let ipam = self.ipam();
            let staying = ipam.staying().map(|(pod, lease)| (pod.clone(), lease.clone()));
            (ipam.subnets().to_vec(), staying.collect())
        };
        let all: Vec<_> = leases.iter().map(|(pod, lease)| published(pod, lease)).collect();
        let layout = host::layout(&self.config, &subnets);
        let written = self.netfilter.with(|socket| self.nft().replace(socket, &layout, &all));
        written.map_err(|source| Error::MakeTable { table: self.config.table.clone(), source })
    }

    /// What the pod had, what it has now, and of which subnets. With no address left it waits for those
    /// that are about to be given back.
    fn lease(
        &self,
        id: &str,
        ports: &[PortMapping],
    ) -> Result<(Option<Lease>, Lease, Vec<Subnet>), Error> {
        loop {
            let left = self.leaving.gone_so_far();
            let mut ipam = self.ipam();
            let before = ipam.get(id).cloned();
            match ipam.give(id, ports) {
                Ok(lease) => return Ok((before, lease, ipam.subnets().to_vec())),
                Err(full @ Error::SubnetFull { .. }) => {
                    drop(ipam);
                    if !self.leaving.wait_for_more_than(left) {
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
            // The table was taken away a moment ago, or has elements that no lease stands for: what
            // the leases say, this one among them, is the truth.
            Err(err) if matches!(err.errno(), Errno::NOENT | Errno::BUSY | Errno::EXIST) => {
                info!(pod = id, error = %err, "nftables table written anew");
                self.write_table()?;
            }
            other => other.map_err(failed)?,
        }
        let forget = |socket: &Socket| {
            conntrack::redirected(socket, &lease.ports, &lease.addresses);
            Ok(())
        };
        self.netfilter.with(forget).map_err(failed)
    }

    fn withdraw(&self, id: &str, addresses: &[IpAddr], ports: &[PortMapping]) -> Result<(), Error> {
        if ports.is_empty() {
            return Ok(());
        }
        let _shared = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let of = Published { pod: id, addresses, ports };
        let taken = self.netfilter.with(|socket| {
            self.nft().withdraw(socket, &of)?;
            conntrack::withdrawn(socket, ports, addresses);
            Ok(())
        });
        taken.map_err(|source| Error::RemovePorts { table: self.config.table.clone(), source })
    }

    /// The pods that have a link on our bridge.
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
        alone(&self.ipam)
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
        let subnet = subnets.iter().find(|subnet| subnet.gives(*ip))?;
        Some(Address { address: subnet.with_length(*ip), gateway: subnet.gateway() })
    };
    addresses.iter().filter_map(of).collect()
}

fn published<'l>(pod: &'l str, lease: &'l Lease) -> Published<'l> {
    Published { pod, addresses: &lease.addresses, ports: &lease.ports }
}
