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
use crate::ipam::{Ipam, Lease, Subnet};
use crate::netlink::{Socket, link, route};
use crate::nft::{Published, Sockets, Table};
use crate::sync::lock_unpoisoned;
use crate::types::PortMapping;
use rustix::io::Errno;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tracing::{info, warn};

/// The origin of the pods' subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The configuration or the kubelet named them.
    Given,
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
    table: RwLock<()>,
    netfilter: Sockets,
}

impl HostNetwork {
    /// Changes nothing on the host. `recorded` are the subnets that the bridge may have.
    pub(crate) fn new(
        config: Config,
        ipam: Arc<Mutex<Ipam>>,
        record: BridgeSubnets,
        recorded: Vec<Subnet>,
    ) -> Self {
        let origin = match (config.pod_cidr.is_empty(), config.wait_for_pod_cidr) {
            (false, _) => Origin::Given,
            (true, false) => Origin::Automatic,
            (true, true) => Origin::Awaited,
        };
        Self {
            config,
            ipam,
            origin: Mutex::new(origin),
            preferred: recorded,
            record,
            state: Mutex::new(None),
            setup: Mutex::new(()),
            table: RwLock::new(()),
            netfilter: Sockets::default(),
        }
    }

    /// The subnets of new pods, chosen here if nobody has named them.
    ///
    /// # Errors
    /// [`Error::PodCidrAwaited`] while pods wait for the kubelet; [`Error::NoSubnetFree`].
    pub(crate) fn subnets(&self, socket: &Socket) -> Result<Vec<Subnet>, Error> {
        if let Some(subnets) = self.decided()? {
            return Ok(subnets);
        }
        let _setup = lock_unpoisoned(&self.setup);
        if let Some(subnets) = self.decided()? {
            return Ok(subnets);
        }
        let current = self.ipam().subnets().to_vec();
        let preferred = if current.is_empty() { &self.preferred } else { &current };
        let chosen = automatic::choose(socket, &self.config, preferred)?;
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
        self.retire_with_setup_locked()
    }

    fn retire_with_setup_locked(&self) -> Result<(), Error> {
        let (unused, all) = {
            let ipam = self.ipam();
            (ipam.unused_former(), ipam.all_subnets())
        };
        if unused.is_empty() {
            return Ok(());
        }
        let kept: Vec<Subnet> = all.into_iter().filter(|of| !unused.contains(of)).collect();
        let socket = route_socket()?;
        let bridge = host::find_bridge(&socket, &self.config)?;
        if let Some(bridge) = &bridge {
            for address in unused.iter().map(Subnet::gateway_net) {
                if kept.iter().any(|of| of.gateway_net() == address) {
                    continue;
                }
                let link = bridge.name.as_str();
                route::remove_address(&socket, bridge.index, address, link).map_err(|source| {
                    Error::RemoveAddress { link: link.to_owned(), address, source }
                })?;
                info!(link, %address, "removed the bridge's address in a former pod subnet");
            }
        }
        self.ipam().forget_former(&unused);
        *lock_unpoisoned(&self.state) = None;
        if bridge.is_some() {
            self.write_table()?;
            self.record.write(&kept)?;
        }
        Ok(())
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
        self.retire_with_setup_locked()?;
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
        let ipam = self.ipam();
        let (subnets, unused) = (ipam.all_subnets(), ipam.pods().next().is_none());
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
            (ipam.all_subnets(), active.collect())
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
