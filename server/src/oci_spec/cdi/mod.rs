// SPDX-License-Identifier: Apache-2.0
//! The container device interface: devices by name, as vendors' files describe them. CDI specification 1.1.
//!
//! ```text
//! vendor.com/class=name ──▶ files of `runtime.cdi_spec_dirs` ──▶ edits ──▶ OCI spec
//! ```
//!
//! The rule: who asks for a device gets all of it or an error that names it. Files are read when somebody asks,
//! so that a driver's new file needs no restart; a broken one stands in nobody's way but of who wants its devices.
//!
//! Not here: who may ask. That is the kubelet's decision (device plugins, dynamic resource allocation).

mod edits;
mod file;

use file::{Device, FILE_BYTES_MAX, File};
use hull_proto::cri;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Annotations of a container that name devices, from kubelets before 1.28.
const ANNOTATION: &str = "cdi.k8s.io/";
/// Most files that are read in a directory.
const FILES_MAX: usize = 1024;

/// Why a container cannot have its devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("find CDI device `{name}`: it is not of the form vendor.com/class=name")]
    Name { name: String },
    #[error("find CDI device `{name}`: no file in {dirs} has it{broken}")]
    Unknown { name: String, dirs: String, broken: String },
    #[error("find CDI device `{name}`: `runtime.cdi_spec_dirs` is empty")]
    Off { name: String },
    #[error("tell which CDI device `{name}` is meant: {one} and {other} both have it")]
    Twice { name: String, one: String, other: String },
    #[error("give CDI device `{name}`: it needs {what}, which hull cannot do yet")]
    Unsupported { name: String, what: &'static str },
    #[error("give CDI device `{name}`: look at {path} on this node")]
    Node { name: String, path: String, source: std::io::Error },
    #[error("give CDI device `{name}`: {path} on this node is no device of its type")]
    NoNode { name: String, path: String },
}

impl Error {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } | Self::Unsupported { .. } => None,
            Self::Unknown { .. } => Some(
                "see whether the device's driver runs on this node and has written its file".into(),
            ),
            Self::Off { .. } => Some(
                "name the directories of the drivers' files, as in [\"/etc/cdi\", \"/var/run/cdi\"]"
                    .into(),
            ),
            Self::Twice { .. } => {
                Some("take one of the files away, or one device out of them".into())
            }
            Self::Node { .. } | Self::NoNode { .. } => {
                Some("the device's driver writes its file anew: restart that".into())
            }
        }
    }
}

/// The devices that a container's config names, each once.
pub(crate) fn asked(config: &cri::ContainerConfig) -> Vec<String> {
    let fields = config.cdi_devices.iter().map(|device| device.name.as_str());
    let annotated = config
        .annotations
        .iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .flat_map(|(_, names)| names.split(','))
        .map(str::trim);
    let mut seen = BTreeSet::new();
    fields.chain(annotated).filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

/// Puts the devices of these names into an OCI spec.
pub(crate) fn inject(spec: &mut Value, names: &[String], dirs: &[PathBuf]) -> Result<(), Error> {
    let Some(first) = names.first() else { return Ok(()) };
    if dirs.is_empty() {
        return Err(Error::Off { name: first.clone() });
    }
    let all = All::read(dirs);
    let mut files = BTreeSet::new();
    for name in names {
        let (path, file, device) = all.find(name, dirs)?;
        // What all of a file's devices have in common comes once.
        if files.insert(path) {
            edits::apply(spec, name, &file.container_edits)?;
        }
        edits::apply(spec, name, &device.container_edits)?;
    }
    Ok(())
}

/// Every file there is, with the directory that it is in: later ones win.
struct All {
    files: BTreeMap<PathBuf, (usize, File)>,
    broken: Vec<String>,
}

impl All {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut all = Self { files: BTreeMap::new(), broken: Vec::new() };
        for (rank, dir) in dirs.iter().enumerate() {
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries.flatten(),
                // One that is not there has none.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => {
                    all.broken.push(format!("{}: {err}", dir.display()));
                    continue;
                }
            };
            for path in entries
                .map(|entry| entry.path())
                .filter(|path| is_file_of_ours(path))
                .take(FILES_MAX)
            {
                match read(&path) {
                    Ok(file) => drop(all.files.insert(path, (rank, file))),
                    Err(why) => all.broken.push(format!("{}: {why}", path.display())),
                }
            }
        }
        all
    }

    fn find(&self, name: &str, dirs: &[PathBuf]) -> Result<(&Path, &File, &Device), Error> {
        let Some((kind, device)) = name.split_once('=') else {
            return Err(Error::Name { name: name.to_owned() });
        };
        let mut found: Option<(usize, &Path, &File, &Device)> = None;
        let mut twice = None;
        for (path, (rank, file)) in self.files.iter().filter(|(_, (_, file))| file.kind == kind) {
            for of in file.devices.iter().filter(|of| of.name == device) {
                match &found {
                    Some((best, ..)) if best > rank => {}
                    Some((best, other, ..)) if best == rank => twice = Some((*rank, path, *other)),
                    Some(_) | None => found = Some((*rank, path, file, of)),
                }
            }
        }
        let shown = |path: &Path| path.display().to_string();
        match (found, twice) {
            (Some((rank, ..)), Some((of, one, other))) if rank == of => {
                Err(Error::Twice { name: name.to_owned(), one: shown(other), other: shown(one) })
            }
            (Some((_, path, file, device)), _) => Ok((path, file, device)),
            (None, _) => Err(self.unknown(name, dirs)),
        }
    }

    fn unknown(&self, name: &str, dirs: &[PathBuf]) -> Error {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        let broken = match self.broken.as_slice() {
            [] => String::new(),
            broken => format!("; not readable is {}", broken.join("; ")),
        };
        Error::Unknown { name: name.to_owned(), dirs: dirs.join(" or "), broken }
    }
}

fn is_file_of_ours(path: &Path) -> bool {
    path.extension().is_some_and(|of| of == "json" || of == "yaml")
}

fn read(path: &Path) -> Result<File, String> {
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|err| err.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {} MiB", FILE_BYTES_MAX >> 20));
    }
    File::parse(path, &text)
}

#[cfg(test)]
mod tests;
