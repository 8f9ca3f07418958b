// SPDX-License-Identifier: Apache-2.0
//! Attachment records on disk: everything that DEL needs, even if the configuration has changed since.
//!
//! ```text
//! <state_dir>/cni/<pod-id>.json   the pod's attachments: chains as they were, arguments, results
//! ```
//!
//! The rule: the record exists before the first plugin runs for the pod, and until DEL has succeeded for
//! every attachment, or plugins have failed too often: see `attached`. Files are written and set aside as
//! for all [`records`](crate::records).

use super::conf::Plugin;
use super::error::Error;
use super::protocol::Target;
use super::result::AddResult;
use super::version::Version;
use crate::records;
use crate::types::PortMapping;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The attachments of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) pod: String,
    /// The pod's Kubernetes namespace, to make the file readable for people.
    namespace: String,
    name: String,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// The capability arguments of every call, by name.
    pub(super) capabilities: Map<String, Value>,
    pub(super) ports: Vec<PortMapping>,
    /// Tries in a row to detach the pod that failed.
    #[serde(default)]
    pub(super) failed_deletes: u32,
    /// The time of the first of them, in seconds since the boot (`CLOCK_BOOTTIME`, clock_gettime(2)); 0 if none failed.
    #[serde(default)]
    failing_since_s: u64,
    /// In the order of ADD.
    pub(super) attachments: Vec<Attachment>,
}

/// One link of the pod, and the chain that made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) if_name: String,
    pub(super) network: String,
    version: String,
    disable_check: bool,
    plugins: Vec<Map<String, Value>>,
    /// The file of each plugin's configuration, in the same order.
    #[serde(default)]
    files: Vec<PathBuf>,
    /// The result of the chain's last plugin; `None` until ADD has succeeded.
    pub(super) result: Option<Value>,
    /// Whether its plugins have failed in DEL too often: it is not tried again, and does not keep the pod.
    #[serde(default)]
    pub(super) gave_up: bool,
}

impl Record {
    pub(super) fn new(pod: &str, namespace: &str, name: &str) -> Self {
        Self {
            version: <Self as records::Record>::VERSION,
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            args: String::new(),
            capabilities: Map::new(),
            ports: Vec::new(),
            failed_deletes: 0,
            failing_since_s: 0,
            attachments: Vec::new(),
        }
    }

    /// Counts a failed try to detach the pod, at `now_s` seconds since the boot. Returns the number of tries in a row
    /// that failed, and the seconds since the first of them.
    pub(super) fn count_failure(&mut self, now_s: u64) -> (u32, u64) {
        self.failed_deletes = self.failed_deletes.saturating_add(1);
        // A later time than now is of an earlier boot.
        if self.failing_since_s == 0 || self.failing_since_s > now_s {
            self.failing_since_s = now_s;
        }
        (self.failed_deletes, now_s.saturating_sub(self.failing_since_s))
    }

    /// Gives up an attachment. The others get as many tries as it had.
    pub(super) fn give_up(&mut self, number: usize) {
        (self.failed_deletes, self.failing_since_s) = (0, 0);
        if let Some(attachment) = self.attachments.get_mut(number) {
            attachment.gave_up = true;
        }
    }

    /// The names of the networks whose plugins have failed too often; empty if there are none.
    pub(super) fn given_up(&self) -> String {
        let given_up = self.attachments.iter().filter(|of| of.gave_up);
        given_up.map(|of| of.network.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The pod's addresses, which are those of its first link.
    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let Some(first) = self.attachments.first() else { return Ok(Vec::new()) };
        let outcome =
            first.result.as_ref().map(AddResult::read).and_then(Result::ok).unwrap_or_default();
        let ips = outcome.addresses(&first.if_name);
        if ips.is_empty() {
            let (network, if_name) = (first.network.clone(), first.if_name.clone());
            return Err(Error::NoAddress { network, if_name });
        }
        Ok(ips)
    }

    /// The target of plugin calls for an attachment of this pod, in the network namespace at `netns`; `call` names the
    /// calls in progress.
    pub(super) fn target<'t>(
        &'t self,
        attachment: &'t Attachment,
        netns: &'t str,
        call: &'t Path,
    ) -> Target<'t> {
        let if_name = &attachment.if_name;
        Target { container: &self.pod, netns, if_name, args: &self.args, call }
    }

    /// The first of these host ports that the pod has, and the pod's mapping of it.
    pub(super) fn clash(&self, ports: &[PortMapping]) -> Option<(PortMapping, PortMapping)> {
        ports.iter().find_map(|port| {
            let held = self.ports.iter().find(|held| held.clashes(port))?;
            Some((*port, *held))
        })
    }
}

impl Attachment {
    pub(super) fn new(if_name: String, network: &super::conf::Network, version: Version) -> Self {
        Self {
            if_name,
            network: network.name.clone(),
            version: version.text().to_owned(),
            disable_check: network.disable_check,
            plugins: network.plugins.iter().map(|plugin| plugin.object.clone()).collect(),
            files: network.plugins.iter().map(|plugin| plugin.file.clone()).collect(),
            result: None,
            gave_up: false,
        }
    }

    /// The CNI version of the attachment.
    pub(super) fn version(&self) -> Version {
        // Validated when the record was read.
        Version::parse(&self.version).unwrap_or(Version::V1_0_0)
    }

    /// The chain, in the order of ADD.
    pub(super) fn plugins(&self) -> Vec<Plugin> {
        let of = |(number, object): (usize, &Map<String, Value>)| Plugin {
            program: object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            object: object.clone(),
            file: self.files.get(number).cloned().unwrap_or_default(),
        };
        self.plugins.iter().enumerate().map(of).collect()
    }

    /// Whether the attachment supports CHECK.
    pub(super) fn can_check(&self) -> bool {
        self.result.is_some() && !self.disable_check && self.version().has_check()
    }
}

impl records::Record for Record {
    const VERSION: u32 = 1;

    fn pod(&self) -> &str {
        &self.pod
    }

    fn check(&self) -> Result<(), String> {
        match self.attachments.iter().find(|of| Version::parse(&of.version).is_none()) {
            Some(of) => Err(format!("it has an unsupported CNI version, {}", of.version)),
            None => Ok(()),
        }
    }
}

/// The directory of records.
#[derive(Debug)]
pub(super) struct Records(records::Records<Record>);

impl Records {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(records::Records::new(dir))
    }

    /// Reads all records, by pod. An unreadable one is set aside.
    pub(super) fn load(&self) -> Result<BTreeMap<String, Record>, Error> {
        let all = self.0.load().map_err(|source| Error::ReadRecords { source })?;
        Ok(all.into_iter().map(|(_, record)| (record.pod.clone(), record)).collect())
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        self.0.write(record).map_err(|source| Error::WriteRecord { source })
    }

    pub(super) fn remove(&self, pod: &str) -> Result<(), Error> {
        self.0.remove(pod).map_err(|source| Error::RemoveRecord { source })
    }

    /// The marker file of a running call for the pod.
    pub(super) fn call(&self, pod: &str) -> PathBuf {
        self.0.dir().join(format!("{pod}.call"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_with_the_time_since_the_first() {
        let mut record = Record::new("pod", "default", "web");
        assert_eq!(record.count_failure(1000), (1, 0));
        assert_eq!(record.count_failure(1300), (2, 300));
        // After a reboot.
        assert_eq!(record.count_failure(20), (3, 0));
        assert_eq!(record.count_failure(25), (4, 5));
        record.give_up(0);
        assert_eq!(record.count_failure(30), (1, 0));
    }

    #[test]
    fn a_record_of_an_earlier_release_has_no_time_of_failures() {
        let mut old = serde_json::to_value(Record::new("pod", "default", "web")).unwrap();
        for new in ["failing_since_s", "failed_deletes"] {
            assert!(old.as_object_mut().unwrap().remove(new).is_some());
        }
        let read: Record = serde_json::from_value(old).unwrap();
        assert_eq!(read, Record::new("pod", "default", "web"));
    }
}
