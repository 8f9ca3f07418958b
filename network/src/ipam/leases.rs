// SPDX-License-Identifier: Apache-2.0
//! Leases on disk, so that a restarted daemon does not allocate the address of a running pod again: the
//! pod's addresses and host ports in `<state_dir>/<pod-id>.json`, a [record](crate::records).

use super::allocator::{Ipam, Lease};
use super::subnet::Subnet;
use crate::error::Error;
use crate::records::{self, Records};
use crate::types::PortMapping;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// The file format of a lease.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    pod: String,
    sequence: u64,
    addresses: Vec<IpAddr>,
    /// The subnet of each address. Absent in records of earlier releases.
    #[serde(default)]
    subnets: Vec<IpNet>,
    ports: Vec<PortMapping>,
}

impl records::Record for Record {
    const VERSION: u32 = 1;

    fn pod(&self) -> &str {
        &self.pod
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

impl Record {
    /// The subnets of the addresses. A subnet that cannot be used, which nobody writes, counts as absent.
    fn subnets_of(&self, known: &[Subnet]) -> Vec<Subnet> {
        let recorded = self.subnets.iter().filter_map(|net| Subnet::new(*net).ok());
        let all: Vec<Subnet> = recorded.chain(known.iter().copied()).collect();
        let of = |ip: &IpAddr| all.iter().find(|subnet| subnet.assigns(*ip)).copied();
        self.addresses.iter().filter_map(of).collect()
    }
}

/// The directory of leases.
#[derive(Debug)]
pub(crate) struct Leases(Records<Record>);

impl Leases {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(Records::new(dir))
    }

    /// Loads every lease into `ipam`. An address without a recorded subnet, of an earlier release, belongs to the
    /// first of the `known` subnets that assigns it; they are requested only if there is such an address.
    pub(crate) fn load(
        &self,
        ipam: &mut Ipam,
        known: impl FnOnce() -> Result<Vec<Subnet>, Error>,
    ) -> Result<(), Error> {
        let mut found = self.0.load().map_err(|source| Error::ReadLeases { source })?;
        let is_old = |record: &Record| record.subnets.len() != record.addresses.len();
        let known =
            if found.iter().any(|(_, record)| is_old(record)) { known()? } else { Vec::new() };
        // Of two leases with the same address, the newer was written by a daemon that did not know the older.
        found.sort_by_key(|(_, record)| record.sequence);
        for (path, record) in found {
            let subnets = record.subnets_of(&known);
            ipam.add_former(&subnets);
            let Record { pod, sequence, addresses, ports, .. } = record;
            let lease = Lease { sequence, addresses, subnets, ports, releasing: false };
            if let Err(why) = ipam.adopt(pod, lease) {
                self.0.set_aside(&path, why);
            }
        }
        Ok(())
    }

    /// Writes the pod's lease.
    pub(crate) fn write(&self, pod: &str, lease: &Lease) -> Result<(), Error> {
        let record = Record {
            version: <Record as records::Record>::VERSION,
            pod: pod.to_owned(),
            sequence: lease.sequence,
            addresses: lease.addresses.clone(),
            subnets: lease.subnets.iter().map(Subnet::net).collect(),
            ports: lease.ports.clone(),
        };
        self.0.write(&record).map_err(|source| Error::WriteLease { source })
    }

    /// Removes the pod's lease, if it exists.
    pub(crate) fn remove(&self, pod: &str) -> Result<(), Error> {
        self.0.remove(pod).map_err(|source| Error::RemoveLease { source })
    }

    /// Removes the directory, unless it contains files that were set aside.
    pub(crate) fn remove_all(&self) -> Result<(), Error> {
        self.0.remove_dir().map_err(|source| Error::RemoveLease { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Protocol;
    use std::fs;

    fn subnet(text: &str) -> Subnet {
        Subnet::new(text.parse().unwrap()).unwrap()
    }

    fn known() -> Vec<Subnet> {
        vec![subnet("10.0.0.0/24")]
    }

    fn ipam() -> Ipam {
        Ipam::new(known())
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn leases_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::new(dir.path().join("network"));
        let mut before = ipam();
        leases.load(&mut before, || Ok(known())).unwrap();
        let host_ip = Some("127.0.0.1".parse().unwrap());
        let port =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 53, host_ip };
        for (pod, ports) in [(id('a'), vec![port]), (id('b'), vec![])] {
            let lease = before.allocate(&pod, &ports).unwrap();
            leases.write(&pod, &lease).unwrap();
        }
        let mut after = ipam();
        leases.load(&mut after, || Ok(known())).unwrap();
        for pod in [id('a'), id('b')] {
            assert_eq!(after.get(&pod), before.get(&pod));
        }
        assert_eq!(
            after.allocate(&id('c'), &[]).unwrap().addresses,
            ["10.0.0.4".parse::<IpAddr>().unwrap()]
        );

        leases.remove(&id('a')).unwrap();
        leases.remove(&id('a')).unwrap();
        leases.remove(&id('b')).unwrap();
        leases.remove_all().unwrap();
        assert!(!dir.path().join("network").try_exists().unwrap());
    }

    #[test]
    fn a_lease_keeps_its_subnet_and_one_of_an_earlier_release_gets_the_one_that_assigns_its_address()
     {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::new(dir.path().to_owned());
        let mut before = Ipam::new(vec![subnet("10.0.0.0/16")]);
        let lease = before.allocate(&id('a'), &[]).unwrap();
        leases.write(&id('a'), &lease).unwrap();
        let old = format!(
            "{{\"version\":1,\"pod\":\"{}\",\"sequence\":2,\"addresses\":[\"10.9.0.2\"],\"ports\":[]}}",
            id('b')
        );
        fs::write(dir.path().join(id('b') + ".json"), old).unwrap();
        // The current subnet assigns the address of `a` too, but not with the same gateway.
        let mut after = Ipam::new(vec![subnet("10.0.0.0/24")]);
        let known = || Ok(vec![subnet("10.0.0.0/24"), subnet("10.9.0.0/20")]);
        leases.load(&mut after, known).unwrap();
        assert_eq!(after.get(&id('a')).unwrap().subnets, [subnet("10.0.0.0/16")]);
        assert_eq!(after.get(&id('b')).unwrap().subnets, [subnet("10.9.0.0/20")]);
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::new(dir.path().to_owned());
        let mut first = ipam();
        let lease = first.allocate(&id('a'), &[]).unwrap();
        leases.write(&id('a'), &lease).unwrap();
        // The same address for another pod, another pod's file, half a file, half a write.
        leases.write(&id('b'), &Lease { sequence: 9, ..lease }).unwrap();
        fs::copy(dir.path().join(id('a') + ".json"), dir.path().join(id('c') + ".json")).unwrap();
        fs::write(dir.path().join(id('d') + ".json"), "{\"version\":1,").unwrap();
        fs::write(dir.path().join(id('e') + ".new"), "{").unwrap();
        fs::write(
            dir.path().join(id('f') + ".json"),
            "{\"version\":2,\"pod\":\"x\",\"sequence\":1,\"addresses\":[],\"ports\":[]}",
        )
        .unwrap();

        let mut loaded = ipam();
        leases.load(&mut loaded, || Ok(known())).unwrap();
        assert_eq!(loaded.pods().collect::<Vec<_>>(), [&id('a')]);
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let bad = |digit| id(digit) + ".bad";
        assert_eq!(names, [id('a') + ".json", bad('b'), bad('c'), bad('d'), bad('f')]);
    }
}
