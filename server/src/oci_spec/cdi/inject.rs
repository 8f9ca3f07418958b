// SPDX-License-Identifier: Apache-2.0
//! Finds the devices that a container requests in the files of all directories, and applies their edits to its spec.

use super::edits;
use super::error::Error;
use super::file::{Device, FILE_BYTES_MAX, File};
use crate::oci_spec::node_file;
use hull_proto::cri;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Prefix of a container's annotations that name devices, set by kubelets before 1.28.
const ANNOTATION: &str = "cdi.k8s.io/";
/// Most files that are read in one directory.
const FILES_MAX: usize = 1024;

/// The names of the devices that a container's config requests, each once.
pub(crate) fn requested_devices(config: &cri::ContainerConfig) -> Vec<String> {
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

/// Adds the named devices to an OCI spec.
pub(crate) fn inject(spec: &mut Value, names: &[String], dirs: &[PathBuf]) -> Result<(), Error> {
    let Some(first) = names.first() else { return Ok(()) };
    if dirs.is_empty() {
        return Err(Error::Off { name: first.clone() });
    }
    let all = Files::read(dirs);
    let mut files = BTreeSet::new();
    for name in names {
        let (path, file, device) = all.find(name, dirs)?;
        // The common edits of a file are applied once.
        if files.insert(path) {
            edits::apply(spec, name, &file.container_edits)?;
        }
        edits::apply(spec, name, &device.container_edits)?;
    }
    Ok(())
}

/// All device files, with the rank of their directory: later directories take precedence.
struct Files {
    files: BTreeMap<PathBuf, (usize, File)>,
    broken: Vec<String>,
}

impl Files {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut all = Self { files: BTreeMap::new(), broken: Vec::new() };
        for (rank, dir) in dirs.iter().enumerate() {
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries.flatten(),
                // A missing directory has no files.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                Err(err) => {
                    all.broken.push(format!("{}: {err}", dir.display()));
                    continue;
                }
            };
            for path in entries
                .map(|entry| entry.path())
                .filter(|path| is_device_file(path))
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
            broken => format!("; these cannot be read: {}", broken.join("; ")),
        };
        Error::Unknown { name: name.to_owned(), dirs: dirs.join(" or "), broken }
    }
}

fn is_device_file(path: &Path) -> bool {
    path.extension().is_some_and(|of| of == "json" || of == "yaml")
}

fn read(path: &Path) -> Result<File, String> {
    let text = node_file::read(node_file::open(path)?, FILE_BYTES_MAX)?;
    File::parse(path, &text)
}
