// SPDX-License-Identifier: Apache-2.0
//! Leases on disk, so that a restarted daemon gives nobody an address that a running pod has.
//!
//! ```text
//! <state_dir>/<pod-id>.json   the pod's addresses and host ports
//!             *.new           a write that was cut short; swept at the next start
//!             *.bad           a file that could not be read; set aside for the operator
//! ```
//!
//! The rule: a file is written whole and renamed into place, and one that cannot be read never keeps
//! the daemon from starting. Nothing is made on disk before the first pod is attached.

use crate::ipam::{Ipam, Lease};
use crate::{Error, PortMapping};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tracing::warn;

const VERSION: u32 = 1;

/// A lease as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    pod: String,
    sequence: u64,
    addresses: Vec<IpAddr>,
    ports: Vec<PortMapping>,
}

/// The directory of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    dir: PathBuf,
}

impl Leases {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Hands every lease on disk to `ipam`.
    pub(crate) fn load(&self, ipam: &mut Ipam) -> Result<(), Error> {
        let failed = |source| Error::ReadLeases { path: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("new") => fs::remove_file(&path).map_err(failed)?,
                Some("json") => match read(&path) {
                    Ok(record) => found.push((path, record)),
                    Err(why) => set_aside(&path, &why),
                },
                _ => {}
            }
        }
        // Of two that claim the same, the later one was written by a daemon that did not know the first.
        found.sort_by_key(|(_, record)| record.sequence);
        for (path, record) in found {
            let Record { pod, sequence, addresses, ports, .. } = record;
            let lease = Lease { sequence, addresses, ports, leaving: false };
            if let Err(holder) = ipam.adopt(pod, lease) {
                set_aside(&path, &format!("pod {holder} has an address of it"));
            }
        }
        Ok(())
    }

    /// Records the pod's lease.
    pub(crate) fn write(&self, pod: &str, lease: &Lease) -> Result<(), Error> {
        let record = Record {
            version: VERSION,
            pod: pod.to_owned(),
            sequence: lease.sequence,
            addresses: lease.addresses.clone(),
            ports: lease.ports.clone(),
        };
        let path = self.path(pod);
        let written = serde_json::to_vec(&record).map_err(io::Error::from).and_then(|bytes| {
            match replace(&path, &bytes) {
                // The first lease of all, or somebody has cleared the directory away.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                    replace(&path, &bytes)
                }
                other => other,
            }
        });
        written.map_err(|source| Error::WriteLease { path, source })
    }

    /// Removes the pod's lease, if there is one.
    pub(crate) fn remove(&self, pod: &str) -> Result<(), Error> {
        let path = self.path(pod);
        match fs::remove_file(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| Error::RemoveLease { path, source }),
        }
    }

    /// Removes the directory, unless something was set aside in it.
    pub(crate) fn remove_all(&self) -> Result<(), Error> {
        match fs::remove_dir(&self.dir) {
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            other => other.map_err(|source| Error::RemoveLease { path: self.dir.clone(), source }),
        }
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.dir.join(format!("{pod}.json"))
    }
}

fn read(path: &Path) -> Result<Record, String> {
    let text = fs::read(path).map_err(|err| err.to_string())?;
    let record: Record = serde_json::from_slice(&text).map_err(|err| err.to_string())?;
    if record.version > VERSION {
        return Err(format!("version {} is newer than this hull knows", record.version));
    }
    let named = path.file_stem().and_then(|stem| stem.to_str());
    if named != Some(&record.pod) {
        return Err(format!("it is of pod {}", record.pod));
    }
    Ok(record)
}

/// Writes a file whole and renames it into place.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// Sets aside a record that is not usable, for the operator.
pub(crate) fn set_aside(path: &Path, why: &str) {
    let bad = path.with_extension("bad");
    match fs::rename(path, &bad) {
        Ok(()) => warn!(set_aside = %bad.display(), why, "record of a pod's network not usable"),
        Err(err) => {
            warn!(path = %path.display(), why, error = %err, "record of a pod's network not usable, and not to be set aside")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use crate::subnet::Subnet;

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
            let lease = before.give(&pod, &ports).unwrap();
            leases.write(&pod, &lease).unwrap();
        }
        let mut after = ipam();
        leases.load(&mut after).unwrap();
        for pod in [id('a'), id('b')] {
            assert_eq!(after.get(&pod), before.get(&pod));
        }
        assert_eq!(
            after.give(&id('c'), &[]).unwrap().addresses,
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
        let lease = first.give(&id('a'), &[]).unwrap();
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
