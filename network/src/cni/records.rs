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
            attachments: Vec::new(),
        }
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
