// SPDX-License-Identifier: Apache-2.0
//! The record of the subnets that the bridge has addresses of: `<state_dir>-bridge/subnets.json`.
//!
//! The rule: a subnet is in the record before the bridge gets its address, and until the address is removed. So
//! after a crash the next daemon knows every address of the bridge that is Hull's, and removes no other.

use crate::error::Error;
use crate::ipam::Subnet;
use hull_records::Folder;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tracing::warn;

const VERSION: u32 = 1;
/// Longest record that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;
const NAME: &str = "subnets";

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    subnets: Vec<IpNet>,
}

/// The record on disk.
#[derive(Debug)]
pub(crate) struct BridgeSubnets(Folder);

impl BridgeSubnets {
    /// The record in a folder beside the state directory, which has only records of pods. Nothing is read yet.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(Folder::new(folder(state_dir), BYTES_MAX))
    }

    /// Reads the subnets, current ones first; `None` without a record. An unusable record is set aside.
    pub(crate) fn load(&self) -> Result<Option<Vec<Subnet>>, Error> {
        let failed = |source| Error::ReadLeases { source };
        self.0.sweep().map_err(failed)?;
        let only_ours = |name: &str, _: &Record| {
            if name == NAME { Ok(()) } else { Err("it is not a record of subnets".to_owned()) }
        };
        let loaded = self.0.load::<Record>(VERSION, only_ours).map_err(failed)?;
        for bad in &loaded.set_aside {
            warn!(path = %bad.path.display(), why = bad.why,
                "the record of the bridge's subnets is unusable and was set aside; addresses of former subnets stay on the bridge");
        }
        let Some((_, record)) = loaded.records.into_iter().next() else { return Ok(None) };
        Ok(Some(record.subnets.into_iter().filter_map(|net| Subnet::new(net).ok()).collect()))
    }

    /// Replaces the record.
    pub(crate) fn write(&self, subnets: &[Subnet]) -> Result<(), Error> {
        let subnets = subnets.iter().map(Subnet::net).collect();
        let record = Record { version: VERSION, subnets };
        self.0.write(NAME, &record).map_err(|source| Error::WriteLease { source })
    }

    /// Removes the record and its folder.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let removed = self.0.remove(NAME).and_then(|()| self.0.remove_empty());
        removed.map_err(|source| Error::RemoveLease { source })
    }
}

/// The folder of the record for the state directory of leases.
pub(crate) fn folder(state_dir: &Path) -> PathBuf {
    let mut folder = state_dir.as_os_str().to_owned();
    folder.push("-bridge");
    folder.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn subnets_come_back_in_their_order_and_a_damaged_record_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let record = BridgeSubnets::new(&dir.path().join("network"));
        assert_eq!(record.load().unwrap(), None);
        let subnets = ["10.1.0.0/24", "fd00::/64", "10.0.0.0/16"];
        let subnets = subnets.map(|net| Subnet::new(net.parse().unwrap()).unwrap());
        record.write(&subnets).unwrap();
        assert_eq!(record.load().unwrap(), Some(subnets.to_vec()));
        let file = dir.path().join("network-bridge/subnets.json");
        fs::write(&file, "{\"version\":1,").unwrap();
        assert_eq!(record.load().unwrap(), None);
        assert!(dir.path().join("network-bridge/subnets.bad").try_exists().unwrap());
        record.remove().unwrap();
        record.remove().unwrap();
    }
}
