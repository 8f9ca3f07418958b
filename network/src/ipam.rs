// SPDX-License-Identifier: Apache-2.0
//! Who has which address and which host port.
//!
//! ```text
//! <state_dir>/<pod-id>.json   addresses and ports of one pod
//! <state_dir>/*.bad           one that could not be read
//! ```
//!
//! A file is written whole before the address is used and removed after the last use. The next free
//! address is looked for behind the last one given out, so that one just freed rests for a while.

use crate::Error;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What travels over a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in RFCs")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the host that leads to the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// What travels over it.
    pub protocol: Protocol,
    /// In the pod.
    pub container_port: u16,
    /// On the host.
    pub host_port: u16,
    /// Only on this address of the host; `None` is all.
    pub host_ip: Option<IpAddr>,
}

/// What one pod has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) ports: Vec<PortMapping>,
}

/// The leases of a node.
#[derive(Debug)]
pub(crate) struct Ipam {
    dir: PathBuf,
    subnets: Vec<IpNet>,
    leases: BTreeMap<String, Lease>,
    /// The last one given out, per subnet.
    last: Vec<u128>,
}

impl Ipam {
    /// Reads what was given out. What cannot be read is set aside and told.
    pub(crate) fn open(dir: PathBuf, subnets: Vec<IpNet>) -> Result<(Self, Vec<String>), Error> {
        let failed = |source| Error::Record { path: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(failed)?;
        if subnets.is_empty() {
            return Err(Error::NoSubnet);
        }
        if let Some(small) =
            subnets.iter().find(|subnet| last_usable(subnet) <= first_usable(subnet))
        {
            return Err(Error::SubnetTooSmall { subnet: *small });
        }
        let (mut leases, mut bad) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path
                .file_stem()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path).map_err(|err| err.to_string()).and_then(|bytes| {
                serde_json::from_slice::<Lease>(&bytes).map_err(|err| err.to_string())
            }) {
                Ok(lease) => {
                    leases.insert(name, lease);
                }
                Err(why) => {
                    fs::rename(&path, path.with_extension("bad")).map_err(failed)?;
                    bad.push(format!("{}: {why}", path.display()));
                }
            }
        }
        let last = subnets.iter().map(first_usable).collect();
        Ok((Self { dir, subnets, leases, last }, bad))
    }

    /// The pod's lease: what it has already, or a new one, written down.
    pub(crate) fn lease(&mut self, pod: &str, ports: &[PortMapping]) -> Result<Lease, Error> {
        if let Some(lease) = self.leases.get(pod) {
            return Ok(lease.clone());
        }
        self.check_ports(ports)?;
        let addresses =
            (0..self.subnets.len()).map(|at| self.next_free(at)).collect::<Result<Vec<_>, _>>()?;
        let lease = Lease { addresses, ports: ports.to_vec() };
        self.write(pod, &lease)?;
        self.leases.insert(pod.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Two mappings meet when protocol and port are the same and one is for all addresses, or both
    /// are for the same.
    fn check_ports(&self, ports: &[PortMapping]) -> Result<(), Error> {
        let meets = |a: &PortMapping, b: &PortMapping| {
            (a.protocol, a.host_port) == (b.protocol, b.host_port)
                && (a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip)
        };
        for (at, port) in ports.iter().enumerate() {
            let among = ports[..at].iter().any(|other| meets(port, other)).then_some("itself");
            let holder = self
                .leases
                .iter()
                .find(|(_, lease)| lease.ports.iter().any(|other| meets(port, other)))
                .map(|(pod, _)| pod.as_str());
            if let Some(holder) = among.or(holder) {
                return Err(Error::PortTaken {
                    port: port.host_port,
                    protocol: port.protocol.name(),
                    holder: holder.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn next_free(&mut self, at: usize) -> Result<IpNet, Error> {
        let subnet = self.subnets[at];
        let (first, last) = (first_usable(&subnet), last_usable(&subnet));
        let taken: BTreeSet<u128> = self
            .leases
            .values()
            .flat_map(|lease| &lease.addresses)
            .filter(|address| subnet.contains(&address.addr()))
            .map(|address| number(address.addr()))
            .collect();
        // The first one is the gateway's.
        let behind = (self.last[at].max(first) + 1)..=last;
        let before = (first + 1)..=self.last[at].min(last);
        let free = behind.chain(before).find(|candidate| !taken.contains(candidate));
        let free = free.ok_or(Error::SubnetFull { subnet })?;
        self.last[at] = free;
        IpNet::new(address(&subnet, free), subnet.prefix_len())
            .map_err(|_| Error::SubnetFull { subnet })
    }

    fn write(&self, pod: &str, lease: &Lease) -> Result<(), Error> {
        let path = self.path(pod);
        let failed = |source| Error::Record { path: path.clone(), source };
        let bytes = serde_json::to_vec(lease).map_err(|err| failed(err.into()))?;
        let new = path.with_extension("new");
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(failed)
    }

    /// Takes the lease back. One that is not there counts as taken back.
    pub(crate) fn release(&mut self, pod: &str) -> Result<(), Error> {
        let path = self.path(pod);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Record { path, source: err });
            }
            _ => {}
        }
        self.leases.remove(pod);
        Ok(())
    }

    pub(crate) fn get(&self, pod: &str) -> Option<&Lease> {
        self.leases.get(pod)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Lease)> {
        self.leases.iter()
    }

    /// The gateways, with the length of their subnet.
    pub(crate) fn gateways(&self) -> Vec<IpNet> {
        let subnets = self.subnets.iter();
        subnets
            .filter_map(|subnet| {
                IpNet::new(address(subnet, first_usable(subnet)), subnet.prefix_len()).ok()
            })
            .collect()
    }

    pub(crate) fn subnets(&self) -> &[IpNet] {
        &self.subnets
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.dir.join(format!("{pod}.json"))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(subnet: &IpNet, number: u128) -> IpAddr {
    match subnet {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(0).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

/// Behind the network's own address.
fn first_usable(subnet: &IpNet) -> u128 {
    number(subnet.network()) + 1
}

/// Before the broadcast address.
fn last_usable(subnet: &IpNet) -> u128 {
    number(subnet.broadcast()).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(dir: &Path) -> Ipam {
        let (ipam, bad) = Ipam::open(dir.to_owned(), vec!["10.9.8.0/28".parse().unwrap()]).unwrap();
        assert!(bad.is_empty(), "{bad:?}");
        ipam
    }

    proptest! {
        /// In any order of coming, going and restarting, no address is given out twice, none is lost,
        /// and a pod that asks again gets its own.
        #[test]
        fn addresses_are_given_out_once(steps in proptest::collection::vec((0..20usize, 0..3u8), 0..80)) {
            let dir = tempfile::tempdir().unwrap();
            let mut ipam = open(dir.path());
            let mut held: BTreeMap<String, IpAddr> = BTreeMap::new();
            for (pod, step) in steps {
                let pod = format!("pod{pod}");
                match step {
                    0 => match ipam.lease(&pod, &[]) {
                        Ok(lease) => {
                            let ip = lease.addresses[0].addr();
                            let other = held.iter().find(|(name, have)| **have == ip && **name != pod);
                            prop_assert!(other.is_none(), "{ip} is with {other:?}");
                            prop_assert!(held.insert(pod, ip).is_none_or(|before| before == ip));
                        }
                        Err(Error::SubnetFull { .. }) => prop_assert_eq!(held.len(), 13),
                        Err(err) => prop_assert!(false, "{err}"),
                    },
                    1 => {
                        ipam.release(&pod).unwrap();
                        held.remove(&pod);
                    }
                    _ => ipam = open(dir.path()),
                }
            }
            prop_assert_eq!(ipam.all().count(), held.len());
        }
    }

    #[test]
    fn a_port_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let mut ipam = open(dir.path());
        let port = |host_ip: Option<&str>| PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: 8080,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        ipam.lease("a", &[port(Some("127.0.0.1"))]).unwrap();
        ipam.lease("b", &[port(Some("127.0.0.2"))]).unwrap();
        let err = ipam.lease("c", &[port(None)]).unwrap_err();
        assert!(matches!(&err, Error::PortTaken { holder, .. } if holder == "a"), "{err}");
        assert!(ipam.get("c").is_none(), "a refused pod has nothing");
        ipam.release("a").unwrap();
        ipam.release("b").unwrap();
        ipam.lease("c", &[port(None)]).unwrap();
    }

    #[test]
    fn an_unreadable_record_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), b"{").unwrap();
        let (_, bad) =
            Ipam::open(dir.path().to_owned(), vec!["10.9.8.0/28".parse().unwrap()]).unwrap();
        assert_eq!(bad.len(), 1);
        assert!(dir.path().join("x.bad").try_exists().unwrap());
    }
}
