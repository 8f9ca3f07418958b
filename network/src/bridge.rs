// SPDX-License-Identifier: Apache-2.0
//! Attach and detach.

use crate::ipam::{Ipam, Lease, PortMapping};
use crate::netlink::{Family, Netlink};
use crate::{Error, InterfaceStats, link, nft};
use ipnet::IpNet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::{info, warn};

/// How the pod network is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the bridge.
    pub bridge: String,
    /// The pods' subnets, at most one of each family.
    pub pod_cidr: Vec<IpNet>,
    /// Of the links; the kernel's default without.
    pub mtu: Option<u32>,
    /// Give packets to elsewhere the host's address.
    pub masquerade: bool,
    /// Name of our nftables table.
    pub table: String,
    /// Where leases are kept.
    pub state_dir: PathBuf,
}

/// Which pod.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// Whole id.
    pub id: &'a str,
    /// What fits a link's name behind `hull`.
    pub short: &'a str,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its addresses.
    pub ips: Vec<IpNet>,
    /// Where it sends everything.
    pub gateways: Vec<IpAddr>,
    /// The host's end.
    pub host_link: String,
}

/// The pod network of a node.
#[derive(Debug)]
pub struct Bridge {
    config: Config,
    /// Held for look-ups and a file's write, never across a wait for the kernel.
    ipam: Mutex<Ipam>,
    /// Held while bridge and table are made or made again: two at once would collide.
    making: Mutex<bool>,
}

impl Bridge {
    /// Reads what was given out. Touches nothing else.
    pub fn open(config: Config) -> Result<Self, Error> {
        let (ipam, bad) = Ipam::open(config.state_dir.clone(), config.pod_cidr.clone())?;
        for record in bad {
            warn!(record, "record of an address cannot be read and was set aside");
        }
        Ok(Self { config, ipam: Mutex::new(ipam), making: Mutex::new(false) })
    }

    fn ipam(&self) -> MutexGuard<'_, Ipam> {
        // Every change is whole before the next begins: a panic leaves nothing half done.
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a pod. After an error nothing of it is left.
    pub fn attach(
        &self,
        pod: &Pod<'_>,
        netns: BorrowedFd<'_>,
        ports: &[PortMapping],
    ) -> Result<Attachment, Error> {
        let attached = self.try_attach(pod, netns, ports);
        if attached.is_err()
            && let Err(err) = self.detach(pod.id)
        {
            warn!(pod = pod.id, error = %err, "left behind by a failed attach; taken away with the pod");
        }
        attached
    }

    fn try_attach(
        &self,
        pod: &Pod<'_>,
        netns: BorrowedFd<'_>,
        ports: &[PortMapping],
    ) -> Result<Attachment, Error> {
        let (lease, gateways) = {
            let mut ipam = self.ipam();
            (ipam.lease(pod.id, ports)?, ipam.gateways())
        };
        let mut netlink = Netlink::open(Family::Route)?;
        let bridge = self.ready(&mut netlink)?;
        let name = host_link(pod.short);
        // The same pod again (a retry): what an earlier attach made is made anew.
        if link::index_of(&name).is_some() {
            gone_is_fine(netlink.carry_out(vec![link::delete(&name)]))?;
        }
        let veth = link::new_veth(&name, bridge, mac(&lease.addresses), self.config.mtu, netns);
        netlink.carry_out(vec![veth])?;
        let inside = hull_sys::netns::within(netns, || configure(&lease.addresses, &gateways));
        inside.map_err(|source| Error::Enter { source })??;
        if !lease.ports.is_empty() {
            if let Some(index) = link::index_of(&name) {
                netlink.carry_out(vec![link::hairpin(index, &name)])?;
            }
            self.open_ports(&lease)?;
        }
        let gateways = gateways.iter().map(IpNet::addr).collect();
        Ok(Attachment { ips: lease.addresses, gateways, host_link: name })
    }

    /// Bridge, table and forwarding, made or made again where somebody took them away. Gives the
    /// bridge's number.
    fn ready(&self, netlink: &mut Netlink) -> Result<u32, Error> {
        let mut made = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &self.config.bridge;
        let index = match link::index_of(name) {
            Some(index) if *made => index,
            Some(index) => {
                if link::kind_of(netlink, index)?.as_deref() != Some("bridge") {
                    return Err(Error::NotABridge { name: name.clone() });
                }
                self.set_up(netlink, index)?;
                index
            }
            None => {
                let gateways = self.ipam().gateways();
                netlink.carry_out(vec![link::new_bridge(name, mac(&gateways), self.config.mtu)])?;
                let index = link::index_of(name).ok_or_else(|| Error::Netlink {
                    what: format!("find bridge `{name}` that was just made"),
                    source: io::ErrorKind::NotFound.into(),
                })?;
                self.set_up(netlink, index)?;
                index
            }
        };
        let mut netfilter = Netlink::open(Family::Netfilter)?;
        let there = *made && netfilter.ask(nft::get_table(&self.config.table)).is_ok();
        if !there {
            let ipam = self.ipam();
            let leases = ipam.all().map(|(_, lease)| lease);
            let Config { table, bridge, masquerade, .. } = &self.config;
            let messages = nft::rebuild(table, bridge, ipam.subnets(), *masquerade, leases);
            drop(ipam);
            netfilter.carry_out(messages)?;
        }
        *made = true;
        Ok(index)
    }

    fn set_up(&self, netlink: &mut Netlink, index: u32) -> Result<(), Error> {
        let name = &self.config.bridge;
        let gateways = self.ipam().gateways();
        let mut messages = vec![link::up(index, name)];
        messages.extend(gateways.iter().map(|gateway| link::new_address(index, gateway, name)));
        match netlink.carry_out(messages) {
            // The address is there already.
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            }
            other => other?,
        }
        // Host ports reached over 127.0.0.1 are led to pods over this link alone.
        sysctl(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
        let families = [("net/ipv4/ip_forward", false), ("net/ipv6/conf/all/forwarding", true)];
        for (path, v6) in families {
            if gateways.iter().any(|gateway| gateway.addr().is_ipv6() == v6) && sysctl(path, "1")? {
                info!(path, "forwarding switched on: pods are reached by routing");
            }
        }
        Ok(())
    }

    fn open_ports(&self, lease: &Lease) -> Result<(), Error> {
        let messages = nft::batch(nft::elements(&self.config.table, lease, true));
        match Netlink::open(Family::Netfilter)?.carry_out(messages) {
            // The table was made anew just now, with this lease in it.
            Err(Error::Netlink { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Ok(())
            }
            other => other,
        }
    }

    /// Takes everything of a pod away, any number of times, also when its namespace is gone.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        let lease = self.ipam().get(id).cloned();
        if let Some(lease) = lease.filter(|lease| !lease.ports.is_empty()) {
            // Each by itself: one that is not there must not keep the others.
            for message in nft::elements(&self.config.table, &lease, false) {
                gone_is_fine(
                    Netlink::open(Family::Netfilter)?.carry_out(nft::batch(vec![message])),
                )?;
            }
        }
        let name = host_link(id.get(..11).unwrap_or(id));
        if link::index_of(&name).is_some() {
            gone_is_fine(Netlink::open(Family::Route)?.carry_out(vec![link::delete(&name)]))?;
        }
        self.ipam().release(id)
    }

    /// Ids of the pods that have something.
    #[must_use]
    pub fn attachments(&self) -> Vec<String> {
        self.ipam().all().map(|(id, _)| id.clone()).collect()
    }

    /// Whether pods could be attached now.
    pub fn check(&self) -> Result<(), Error> {
        let mut netlink = Netlink::open(Family::Route)?;
        if let Some(index) = link::index_of(&self.config.bridge)
            && link::kind_of(&mut netlink, index)?.as_deref() != Some("bridge")
        {
            return Err(Error::NotABridge { name: self.config.bridge.clone() });
        }
        Netlink::open(Family::Netfilter).map(drop)
    }

    /// Takes bridge and table away. Leases stay: pods that are attached lose their network.
    pub fn remove(&self) -> Result<(), Error> {
        let mut made = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        gone_is_fine(Netlink::open(Family::Netfilter)?.carry_out(nft::delete(&self.config.table)))?;
        if link::index_of(&self.config.bridge).is_some() {
            gone_is_fine(
                Netlink::open(Family::Route)?.carry_out(vec![link::delete(&self.config.bridge)]),
            )?;
        }
        *made = false;
        let dir = self.ipam().dir().to_owned();
        match fs::remove_dir(&dir) {
            Err(err)
                if err.kind() == io::ErrorKind::DirectoryNotEmpty
                    || err.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            other => other.map_err(|source| Error::Record { path: dir, source }),
        }
    }
}

/// The name of a pod's link on the host: 15 characters, all that fits.
fn host_link(short: &str) -> String {
    format!("hull{short}")
}

/// A hardware address worked out from the first address: whoever gets the address has the same
/// hardware, and no neighbour has to forget the one before.
fn mac(addresses: &[IpNet]) -> [u8; 6] {
    let four = match addresses.first().map(IpNet::addr) {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => {
            let octets = ip.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        None => [0; 4],
    };
    // Locally administered, single.
    [0x0a, 0x58, four[0], four[1], four[2], four[3]]
}

/// Runs in the pod's namespace: both links up, addresses, routes, in one send.
fn configure(addresses: &[IpNet], gateways: &[IpNet]) -> Result<(), Error> {
    let mut netlink = Netlink::open(Family::Route)?;
    let find = |name: &str| {
        link::index_of(name).ok_or_else(|| Error::Netlink {
            what: format!("find `{name}` in the pod"),
            source: io::ErrorKind::NotFound.into(),
        })
    };
    let (lo, eth0) = (find("lo")?, find("eth0")?);
    let mut messages = vec![link::up(lo, "lo"), link::up(eth0, "eth0")];
    messages.extend(addresses.iter().map(|address| link::new_address(eth0, address, "eth0")));
    messages.extend(gateways.iter().map(|gateway| link::new_default_route(eth0, gateway.addr())));
    netlink.carry_out(messages)
}

/// Brings the loopback of a namespace up.
pub fn loopback_up(netns: BorrowedFd<'_>) -> Result<(), Error> {
    let done = hull_sys::netns::within(netns, || {
        let index = link::index_of("lo").unwrap_or(1);
        Netlink::open(Family::Route)?.carry_out(vec![link::up(index, "lo")])
    });
    done.map_err(|source| Error::Enter { source })?
}

/// Counters of all interfaces of a namespace.
pub fn interface_stats(netns: BorrowedFd<'_>) -> Result<Vec<InterfaceStats>, Error> {
    hull_sys::netns::within(netns, link::stats).map_err(|source| Error::Enter { source })?
}

/// Writes a setting unless it is so already; says whether it was changed.
fn sysctl(path: &str, value: &'static str) -> Result<bool, Error> {
    let whole = format!("/proc/sys/{path}");
    if fs::read_to_string(&whole).is_ok_and(|have| have.trim() == value) {
        return Ok(false);
    }
    fs::write(&whole, value).map(|()| true).map_err(|source| Error::Sysctl {
        path: whole,
        value,
        source,
    })
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    const ENODEV: i32 = 19;
    match result {
        Err(Error::Netlink { source, .. })
            if source.kind() == io::ErrorKind::NotFound
                || source.raw_os_error() == Some(ENODEV) =>
        {
            Ok(())
        }
        other => other,
    }
}
