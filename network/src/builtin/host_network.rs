// SPDX-License-Identifier: Apache-2.0
//! The host's side while the daemon runs: bridge and table are made with the first pod, checked with every pod, and
//! changed when the pods' subnets change.
//!
//! ```text
//! change of subnets   record ─▶ bridge: new address ─▶ table: both ─▶ new pods get new addresses
//! last pod of the old bridge: old address removed ─▶ table: new ─▶ record
//! ```
//!
//! Locks, in this order: `setup` is held while the bridge or the subnets change, `table` exclusively to rewrite the
//! table (the new content must match the leases at that moment) and shared to add or remove elements, `ipam` and
//! `state` for memory operations only.

use super::bridge_subnets::BridgeSubnets;
use super::config::Config;
use super::host::{self, HostState};
use super::links::route_socket;
use super::{automatic, conntrack, overlap};
use crate::error::Error;
use crate::ipam::{Ipam, Lease, Subnet, gateway_nets};
use crate::nft::{Published, Sockets, Table};
use crate::sync::lock_unpoisoned;
use crate::types::PortMapping;
use hull_netlink::{Socket, link, route};
use ipnet::IpNet;
use rustix::io::Errno;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tracing::{info, warn};

/// The origin of the pods' subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// The configuration or the kubelet named them.
    Given,
    /// The configuration names these, but a pod of before the daemon's start has an address that the bridge would get.
    Refused(Vec<Subnet>),
    /// Chosen here, among subnets that this host does not use.
    Automatic,
    /// The kubelet has not named them yet, and pods wait for that.
    Awaited,
}

/// Bridge and table, and what they are made for.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    config: Config,
    ipam: Arc<Mutex<Ipam>>,
    origin: Mutex<Origin>,
    /// Subnets of an earlier daemon's choice.
    preferred: Vec<Subnet>,
    record: BridgeSubnets,
    /// The bridge and the table, once they were set up.
    state: Mutex<Option<HostState>>,
    setup: Mutex<()>,
    /// Whether bridge and table have only what pods use, because another network attaches new pods.
    withdrawn: AtomicBool,
    table: RwLock<()>,
    netfilter: Sockets,
}

impl HostNetwork {
    /// Changes nothing on the host. `configured` are the subnets of the configuration, `recorded` those that the
    /// bridge may have.
    pub(crate) fn new(
        config: Config,
        ipam: Arc<Mutex<Ipam>>,
        record: BridgeSubnets,
        configured: Vec<Subnet>,
        recorded: Vec<Subnet>,
    ) -> Self {
        let origin = match (configured.is_empty(), config.wait_for_pod_cidr) {
            (true, false) => Origin::Automatic,
            (true, true) => Origin::Awaited,
            (false, _) => match lock_unpoisoned(&ipam).set_subnets(configured.clone()) {
                Ok(()) => Origin::Given,
                Err(pod) => {
                    warn!(
                        pod,
                        pod_cidr = shown(&configured),
                        "a pod has an address that the bridge would get; new pods wait until it is removed"
                    );
                    Origin::Refused(configured)
                }
            },
        };
        Self {
            config,
            ipam,
            origin: Mutex::new(origin),
            preferred: recorded,
            record,
            state: Mutex::new(None),
            setup: Mutex::new(()),
            withdrawn: AtomicBool::new(false),
            table: RwLock::new(()),
            netfilter: Sockets::default(),
        }
    }

    /// The subnets of new pods, chosen here if nobody has named them.
    ///
    /// # Errors
    /// [`Error::PodCidrAwaited`] while pods wait for the kubelet; [`Error::NoSubnetFree`]; [`Error::SubnetInUse`] while
    /// an earlier pod has an address that the bridge would get.
    pub(crate) fn subnets(&self, socket: &Socket) -> Result<Vec<Subnet>, Error> {
        if let Some(subnets) = self.decided()? {
            return Ok(subnets);
        }
        let _setup = lock_unpoisoned(&self.setup);
        if let Some(subnets) = self.decided()? {
            return Ok(subnets);
        }
        let refused = lock_unpoisoned(&self.origin).clone();
        if let Origin::Refused(subnets) = refused {
            self.replace_subnets(subnets.clone())?;
            *lock_unpoisoned(&self.origin) = Origin::Given;
            return Ok(subnets);
        }
        let current = self.ipam().subnets().to_vec();
        let preferred = if current.is_empty() { &self.preferred } else { &current };
        // Pods of an earlier daemon have addresses of its choice, which stays.
        let held = self.ipam().used(preferred).into_iter().find(automatic::is_candidate);
        let chosen = match held {
            Some(subnet) => vec![subnet],
            None => automatic::choose(socket, &self.config, preferred)?,
        };
        if chosen != current {
            info!(
                pod_cidr = shown(&chosen),
                "pod subnet chosen, since `pod_cidr` is not set: no route of this host overlaps with it"
            );
            self.replace_subnets(chosen.clone())?;
        }
        Ok(chosen)
    }

    /// The subnets, if they need not be chosen (again): as long as no pod has an address, another choice is free.
    fn decided(&self) -> Result<Option<Vec<Subnet>>, Error> {
        match *lock_unpoisoned(&self.origin) {
            Origin::Awaited => Err(Error::PodCidrAwaited),
            Origin::Refused(_) => Ok(None),
            Origin::Given => Ok(Some(self.ipam().subnets().to_vec())),
            Origin::Automatic => {
                let ipam = self.ipam();
                let decided = ipam.has_leases_of_current().then(|| ipam.subnets().to_vec());
                Ok(decided)
            }
        }
    }

    /// Changes the subnets of new pods. Pods keep the addresses that they have.
    ///
    /// # Errors
    /// [`Error::SubnetInUse`] when a pod has an address that the bridge would get.
    pub(crate) fn set_subnets(&self, subnets: Vec<Subnet>) -> Result<(), Error> {
        let setup = lock_unpoisoned(&self.setup);
        if self.ipam().subnets() != subnets {
            self.replace_subnets(subnets.clone())?;
            info!(
                pod_cidr = shown(&subnets),
                "pod subnets changed; pods keep the addresses that they have"
            );
        }
        *lock_unpoisoned(&self.origin) = Origin::Given;
        drop(setup);
        self.retire_subnets()
    }

    /// With `setup` held: a thread that finds no state waits for that lock, and then sees the new subnets.
    fn replace_subnets(&self, subnets: Vec<Subnet>) -> Result<(), Error> {
        *lock_unpoisoned(&self.state) = None;
        self.withdrawn.store(false, Ordering::Release);
        let text = shown(&subnets);
        let replaced = self.ipam().set_subnets(subnets);
        replaced.map_err(|pod| Error::SubnetInUse { subnets: text, pod })
    }

    /// Removes the bridge's addresses in former subnets that no pod has an address of any more.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub(crate) fn retire_subnets(&self) -> Result<(), Error> {
        if self.ipam().unused_former().is_empty() {
            return Ok(());
        }
        let _setup = lock_unpoisoned(&self.setup);
        let unused = self.ipam().unused_former();
        self.retire_with_setup_locked(&unused)
    }

    /// Removes everything that no pod needs any more, while another network attaches new pods, which may have the
    /// same subnets: with the last pod, bridge and table.
    ///
    /// # Errors
    /// When a step fails; calling it again continues from there.
    pub(crate) fn withdraw(&self) -> Result<(), Error> {
        let _setup = lock_unpoisoned(&self.setup);
        // An attach that has found the host set up looks again once it has a lease.
        *lock_unpoisoned(&self.state) = None;
        let (any, current, former) = {
            let ipam = self.ipam();
            (ipam.pods().next().is_some(), ipam.unused_current(), ipam.unused_former())
        };
        let record = self.record.load()?;
        if any {
            let recorded = record.unwrap_or_default();
            self.withdrawn.store(true, Ordering::Release);
            let mut unused = former;
            unused.extend(current.into_iter().filter(|of| recorded.contains(of)));
            return self.retire_with_setup_locked(&unused);
        }
        // A bridge without a record is not of this network, though it has its name.
        if record.is_some() {
            self.remove_with_setup_locked()?;
            info!(link = self.config.bridge, "removed the built-in network, which no pod uses");
            self.ipam().forget_former(&former);
        }
        self.withdrawn.store(true, Ordering::Release);
        Ok(())
    }

    /// The subnets that bridge and table are for.
    fn served(&self) -> Vec<Subnet> {
        let ipam = self.ipam();
        let mut all = ipam.all_subnets();
        if self.withdrawn.load(Ordering::Acquire) {
            let unused = ipam.unused_current();
            all.retain(|of| !unused.contains(of));
        }
        all
    }

    fn retire_with_setup_locked(&self, unused: &[Subnet]) -> Result<(), Error> {
        if unused.is_empty() {
            return Ok(());
        }
        let mut kept = self.served();
        kept.retain(|of| !unused.contains(of));
        let socket = route_socket()?;
        let bridge = host::find_bridge(&socket, &self.config)?;
        if let Some(bridge) = &bridge {
            self.remove_addresses(&socket, bridge, unused, &gateway_nets(&kept))?;
        }
        self.ipam().forget_former(unused);
        *lock_unpoisoned(&self.state) = None;
        if bridge.is_some() {
            self.write_table()?;
            self.record.write(&kept)?;
        }
        Ok(())
    }

    /// Removes the bridge's addresses in subnets, but for those that stay.
    fn remove_addresses(
        &self,
        socket: &Socket,
        bridge: &link::Link,
        subnets: &[Subnet],
        staying: &[IpNet],
    ) -> Result<(), Error> {
        let link = bridge.name.as_str();
        for address in subnets.iter().map(Subnet::gateway_net) {
            if staying.contains(&address) {
                continue;
            }
            route::remove_address(socket, bridge.index, address, link).map_err(|source| {
                Error::RemoveAddress { link: link.to_owned(), address, source }
            })?;
            info!(link, %address, "removed the bridge's address in a former pod subnet");
            // Another subnet may have this IPv6 address, which the bridge had with the length of the wider one.
            if let Some(same) = staying.iter().find(|of| of.addr() == address.addr()) {
                let mut batch = socket.batch();
                route::add_address(&mut batch, bridge.index, *same, link);
                let kind = self.config.link_mode.name();
                batch.run().map_err(|source| Error::MakeBridge {
                    link: link.to_owned(),
                    kind,
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// Whether bridge and table were set up, and nothing has changed that since.
    pub(crate) fn is_set_up(&self) -> bool {
        lock_unpoisoned(&self.state).is_some()
    }

    /// Returns the bridge and table, after creating or repairing them if necessary.
    pub(crate) fn ensure(&self, socket: &Socket) -> Result<HostState, Error> {
        if let Some(host) = self.unchanged(socket)? {
            return Ok(host);
        }
        let _setup = lock_unpoisoned(&self.setup);
        // Another thread may have done it while this one waited for the lock.
        if let Some(host) = self.unchanged(socket)? {
            return Ok(host);
        }
        self.withdrawn.store(false, Ordering::Release);
        let unused = self.ipam().unused_former();
        self.retire_with_setup_locked(&unused)?;
        let (current, former, all) = {
            let ipam = self.ipam();
            (ipam.subnets().to_vec(), ipam.former().to_vec(), ipam.all_subnets())
        };
        self.record.write(&all)?;
        let host = host::make_bridge(socket, &self.config, &current, &former)?;
        self.write_table()?;
        *lock_unpoisoned(&self.state) = Some(host.clone());
        Ok(host)
    }

    fn unchanged(&self, socket: &Socket) -> Result<Option<HostState>, Error> {
        let known = lock_unpoisoned(&self.state).clone();
        match known {
            Some(host) if host::is_unchanged(socket, &self.netfilter, &self.config, &host)? => {
                Ok(Some(host))
            }
            _ => Ok(None),
        }
    }

    /// Rewrites the table if pods are attached and it is incomplete: reloading a firewall can flush all
    /// rules.
    pub(crate) fn repair_table(&self) -> Result<(), Error> {
        if self.has_rules()? {
            return Ok(());
        }
        info!(
            table = self.config.table,
            "nftables table was removed while pods are attached; rewriting it"
        );
        self.write_table()
    }

    /// Whether the table is there with as many rules as it needs; without pods it need not be.
    pub(crate) fn has_rules(&self) -> Result<bool, Error> {
        let (subnets, unused) = (self.served(), self.ipam().pods().next().is_none());
        let rules = host::layout(&self.config, &subnets).rule_counts();
        Ok(unused || host::has_table(&self.netfilter, &self.config, rules)?)
    }

    /// Rewrites the table with the host ports of all leases.
    fn write_table(&self) -> Result<(), Error> {
        let _alone = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let subnets = self.served();
        let leases: Vec<(String, Lease)> = {
            let ipam = self.ipam();
            ipam.active().map(|(pod, lease)| (pod.clone(), lease.clone())).collect()
        };
        let all: Vec<_> = leases.iter().map(|(pod, lease)| published(pod, lease)).collect();
        let layout = host::layout(&self.config, &subnets);
        let written = self.netfilter.with(|socket| self.nft().replace(socket, &layout, &all));
        written.map_err(|source| Error::MakeTable { table: self.config.table.clone(), source })
    }

    /// Adds the pod's host ports to the table.
    pub(crate) fn publish(&self, id: &str, lease: &Lease) -> Result<(), Error> {
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

    /// Removes the pod's host ports from the table.
    pub(crate) fn unpublish(
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

    /// Removes bridge, table and record.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let _setup = lock_unpoisoned(&self.setup);
        self.remove_with_setup_locked()
    }

    fn remove_with_setup_locked(&self) -> Result<(), Error> {
        let _table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *lock_unpoisoned(&self.state) = None;
        let removed = self.netfilter.with(|socket| self.nft().remove(socket));
        removed
            .map_err(|source| Error::RemoveTable { table: self.config.table.clone(), source })?;
        let socket = route_socket()?;
        if let Some(bridge) = host::find_bridge(&socket, &self.config)? {
            let link = bridge.name.clone();
            link::remove(&socket, &bridge).map_err(|source| Error::RemoveLink { link, source })?;
        }
        self.record.remove()
    }

    /// The first subnet with pods that another link of the host has too.
    pub(crate) fn shared_subnet(&self, socket: &Socket) -> Result<Option<Error>, Error> {
        let used: Vec<Subnet> = {
            let ipam = self.ipam();
            let unused = ipam.unused_current();
            ipam.all_subnets().into_iter().filter(|of| !unused.contains(of)).collect()
        };
        for subnet in used {
            if let Some(found) = overlap::find(socket, &self.config, subnet)? {
                return Ok(Some(found.error));
            }
        }
        Ok(None)
    }

    /// Checks the subnets against the routes of the host.
    pub(crate) fn check_overlap(&self, socket: &Socket, subnets: &[Subnet]) -> Result<(), Error> {
        overlap::check(socket, &self.config, subnets)
    }

    pub(crate) fn nft(&self) -> Table<'_> {
        Table(&self.config.table)
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        lock_unpoisoned(&self.ipam)
    }
}

/// Frees the pod's addresses, and removes what only they needed. A failure of the latter is logged: it is tried
/// again with the next pod, and when the node's readiness is checked.
pub(crate) fn free(host: &HostNetwork, id: &str) {
    host.ipam().free(id);
    if let Err(err) = host.retire_subnets() {
        warn!(error = %err, source = ?std::error::Error::source(&err), hint = err.hint(),
            "the bridge's address in a former pod subnet was not removed yet");
    }
}

fn shown(subnets: &[Subnet]) -> String {
    subnets.iter().map(|of| of.net().to_string()).collect::<Vec<_>>().join(", ")
}

fn published<'l>(pod: &'l str, lease: &'l Lease) -> Published<'l> {
    Published { pod, addresses: &lease.addresses, ports: &lease.ports }
}
