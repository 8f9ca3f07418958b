// SPDX-License-Identifier: Apache-2.0
//! What pods are attached to, on disk: all that DEL needs, whatever became of the configuration since.
//!
//! ```text
//! <state_dir>/cni/<pod-id>.json   the pod's attachments: chains as they were, arguments, results
//! ```
//!
//! The rule: the record is there before the first plugin is run for the pod, and until DEL of every
//! attachment succeeded. Files are written and set aside as [`leases`](crate::leases) are.

use super::conf::Plugin;
use super::error::Error;
use super::version::Version;
use crate::PortMapping;
use crate::leases::{replace, set_aside};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// What a pod is attached to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) pod: String,
    /// For people who look here.
    namespace: String,
    name: String,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// Capability arguments.
    pub(super) capabilities: Map<String, Value>,
    pub(super) ports: Vec<PortMapping>,
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
    /// Of the last plugin; `None` as long as ADD has not ended well.
    pub(super) result: Option<Value>,
}

impl Record {
    pub(super) fn new(pod: &str, namespace: &str, name: &str) -> Self {
        Self {
            version: VERSION,
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            args: String::new(),
            capabilities: Map::new(),
            ports: Vec::new(),
            attachments: Vec::new(),
        }
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
            result: None,
        }
    }

    /// The version it was made in.
    pub(super) fn version(&self) -> Version {
        // Written by us, and checked when it was read.
        Version::parse(&self.version).unwrap_or(Version::V1_0_0)
    }

    /// The chain, in the order of ADD.
    pub(super) fn plugins(&self) -> Vec<Plugin> {
        let of = |object: &Map<String, Value>| Plugin {
            program: object.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            object: object.clone(),
        };
        self.plugins.iter().map(of).collect()
    }

    /// Whether its plugins can be asked after it.
    pub(super) fn can_check(&self) -> bool {
        self.result.is_some() && !self.disable_check && self.version().has_check()
    }
}

/// The directory of records.
#[derive(Debug)]
pub(super) struct Records {
    dir: PathBuf,
}

impl Records {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// All records. One that cannot be read is set aside.
    pub(super) fn load(&self) -> Result<BTreeMap<String, Record>, Error> {
        let failed = |source| Error::ReadRecords { dir: self.dir.clone(), source };
        let entries = match fs::read_dir(&self.dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            other => other.map_err(failed)?,
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("new") => fs::remove_file(&path).map_err(failed)?,
                Some("json") => match read(&path) {
                    Ok(record) => drop(all.insert(record.pod.clone(), record)),
                    Err(why) => set_aside(&path, &why),
                },
                _ => {}
            }
        }
        Ok(all)
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.path(&record.pod);
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|bytes| {
            match replace(&path, &bytes) {
                Err(err) if err.kind() == io::ErrorKind::NotFound => {
                    DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
                    replace(&path, &bytes)
                }
                other => other,
            }
        });
        written.map_err(|source| Error::WriteRecord { path, source })
    }

    pub(super) fn remove(&self, pod: &str) -> Result<(), Error> {
        let path = self.path(pod);
        match fs::remove_file(&path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| Error::RemoveRecord { path, source }),
        }
    }

    /// Where a call about the pod is marked while it is under way.
    pub(super) fn call(&self, pod: &str) -> PathBuf {
        self.dir.join(format!("{pod}.call"))
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
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(&record.pod) {
        return Err(format!("it is of pod {}", record.pod));
    }
    match record.attachments.iter().find(|of| Version::parse(&of.version).is_none()) {
        Some(of) => Err(format!("it is of CNI version {}", of.version)),
        None => Ok(record),
    }
}
