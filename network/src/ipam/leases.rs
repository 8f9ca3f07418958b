// SPDX-License-Identifier: Apache-2.0
//! Leases on disk, so that a restarted daemon does not allocate the address of a running pod again: the
//! pod's addresses and host ports in `<state_dir>/<pod-id>.json`, a [record](crate::records).

use super::allocator::{Ipam, Lease};
use crate::error::Error;
use crate::records::{self, Records};
use crate::types::PortMapping;
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

/// The directory of leases.
#[derive(Debug)]
pub(crate) struct Leases(Records<Record>);

impl Leases {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(Records::new(dir))
    }

    /// Loads every lease into `ipam`.
    pub(crate) fn load(&self, ipam: &mut Ipam) -> Result<(), Error> {
        let mut found = self.0.load().map_err(|source| Error::ReadLeases { source })?;
        // Of two leases with the same address, the newer was written by a daemon that did not know the older.
        found.sort_by_key(|(_, record)| record.sequence);
        for (path, record) in found {
            let Record { pod, sequence, addresses, ports, .. } = record;
            let lease = Lease { sequence, addresses, ports, releasing: false };
            if let Err(holder) = ipam.adopt(pod, lease) {
                self.0.set_aside(&path, format!("pod {holder} has one of its addresses"));
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
    use crate::ipam::Subnet;
    use crate::types::Protocol;
    use std::fs;

    fn ipam() -> Ipam {
        Ipam::new(vec![Subnet::new("10.0.0.0/24".parse().unwrap()).unwrap()])
    }

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn leases_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let leases = Leases::new(dir.path().join("network"));
        let mut before = ipam();
        leases.load(&mut before).unwrap();
        let host_ip = Some("127.0.0.1".parse().unwrap());
        let port =
            PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 53, host_ip };
        for (pod, ports) in [(id('a'), vec![port]), (id('b'), vec![])] {
            let lease = before.allocate(&pod, &ports).unwrap();
            leases.write(&pod, &lease).unwrap();
        }
        let mut after = ipam();
        leases.load(&mut after).unwrap();
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
        leases.load(&mut loaded).unwrap();
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
