// SPDX-License-Identifier: Apache-2.0
//! Devices of a container: nodes, cgroup rules, and owners.
//!
//! | container | nodes beside the defaults | rules beside the defaults |
//! |---|---|---|
//! | any | those that the config names | for those |
//! | privileged | all of the host's | everything |
//! | privileged, in a user namespace | character devices of the host that all of its users may open | for those |
//!
//! In a user namespace, a node of the host keeps the host's owner, which is not mapped there. So only its mode for
//! others gives access, as for any unprivileged user of the host. Nested containers have the devices that they need
//! (`/dev/fuse`, `/dev/net/tun`), but not disks or memory, which belong to the host's root.

use super::Error;
use ::oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use hull_plan::defaults;
use hull_proto::cri;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Depth to which directories of devices are searched.
const DEPTH_MAX: usize = 4;
/// Entries of /dev that each container has of its own.
const OWN: [&str; 7] = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "hugepages"];
/// Mode bits that allow all users to read and write.
const OPEN_TO_ALL: u64 = 0o006;
/// An id that no pod's user namespace maps: its ranges begin at 0 and are shorter than this.
const UNMAPPED: u32 = u32::MAX - 1;

/// Device nodes and the cgroup rules for them.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<Value>,
}

/// The device nodes and cgroup rules of a container.
pub(super) fn devices(
    config: &cri::ContainerConfig,
    privileged: bool,
    user_namespace: bool,
) -> Result<Devices, Error> {
    if privileged && !user_namespace {
        let mut devices =
            Devices { rules: vec![json!({"allow": true, "access": "rwm"})], ..Devices::default() };
        host_devices(Path::new("/dev"), "/dev", 0, &mut devices.nodes);
        return Ok(devices);
    }
    let mut devices =
        Devices { rules: vec![json!({"allow": false, "access": "rwm"})], ..Devices::default() };
    for kind in ["c", "b"] {
        devices.rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    for (major, minor) in defaults::OPENABLE {
        let mut rule = json!({"allow": true, "type": "c", "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        devices.rules.push(rule);
    }
    if privileged {
        let mut nodes = Vec::new();
        host_devices(Path::new("/dev"), "/dev", 0, &mut nodes);
        nodes.retain(is_open_to_all);
        devices.add(nodes, "rwm");
    }
    for device in &config.devices {
        add_device(device, &mut devices)?;
    }
    Ok(devices)
}

/// Whether this is a character device that every user of the host may open.
fn is_open_to_all(node: &Value) -> bool {
    let mode = node["fileMode"].as_u64().unwrap_or(0);
    node["type"] == "c" && mode & OPEN_TO_ALL == OPEN_TO_ALL
}

impl Devices {
    /// Adds nodes, and rules that allow access to them.
    fn add(&mut self, nodes: Vec<Value>, access: &str) {
        for node in &nodes {
            self.rules.push(json!({
                "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"],
                "access": access,
            }));
        }
        self.nodes.extend(nodes);
    }
}

/// Gives nodes of the host's devices an owner that the container's user namespace does not map, whether config, CDI or
/// a plugin has added them.
pub(crate) fn keep_owners(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    if linux.uid_mappings().as_ref().is_none_or(Vec::is_empty) {
        return;
    }
    for device in linux.devices_mut().iter_mut().flatten().filter(|of| !is_default(of)) {
        device.set_uid(Some(UNMAPPED)).set_gid(Some(UNMAPPED));
    }
}

/// Whether this is a device that every container has, or a FIFO, which is not a device.
fn is_default(device: &LinuxDevice) -> bool {
    let number = (device.typ(), device.major(), device.minor());
    let is = |(_, major, minor): &(_, u32, u32)| {
        number == (LinuxDeviceType::C, i64::from(*major), i64::from(*minor))
    };
    device.typ() == LinuxDeviceType::P || defaults::DEVICES.iter().any(is)
}

fn add_device(device: &cri::Device, devices: &mut Devices) -> Result<(), Error> {
    let missing = |source| Error::NoDevice { path: device.host_path.clone(), source };
    let inside =
        if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
    let access = if device.permissions.is_empty() { "rwm" } else { device.permissions.as_str() };
    let path = fs::canonicalize(&device.host_path).map_err(missing)?;
    let found = fs::metadata(&path).map_err(missing)?;
    let mut nodes = Vec::new();
    if found.is_dir() {
        host_devices(&path, inside, 0, &mut nodes);
    } else if let Some(node) = node(&found, inside) {
        nodes.push(node);
    } else {
        return Err(Error::Bad {
            field: "devices.host_path",
            value: device.host_path.clone(),
            why: "it is not a device",
        });
    }
    devices.add(nodes, access);
    Ok(())
}

fn host_devices(dir: &Path, inside: &str, depth: usize, nodes: &mut Vec<Value>) {
    // A directory that is removed meanwhile has no devices.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if depth == 0 && inside == "/dev" && OWN.contains(&name.as_str()) {
            continue;
        }
        let (path, inside) = (entry.path(), format!("{}/{name}", inside.trim_end_matches('/')));
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() && depth < DEPTH_MAX {
            host_devices(&path, &inside, depth + 1, nodes);
        } else if let Some(node) = node(&found, &inside) {
            nodes.push(node);
        }
    }
}

fn node(found: &fs::Metadata, inside: &str) -> Option<Value> {
    let kind = found.file_type();
    let kind = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    let device = found.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    Some(json!({
        "path": inside, "type": kind, "major": major, "minor": minor,
        "fileMode": found.mode() & 0o7777, "uid": found.uid(), "gid": found.gid(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_allows_everything_only_for_the_hosts_root() {
        let config = cri::ContainerConfig::default();
        let everything = |devices: &Devices| {
            devices.rules.iter().any(|rule| {
                rule["allow"] == true && rule["major"].is_null() && rule["access"] != "m"
            })
        };
        let (plain, host, mapped) = (
            devices(&config, false, false).unwrap(),
            devices(&config, true, false).unwrap(),
            devices(&config, true, true).unwrap(),
        );
        assert!(plain.nodes.is_empty() && !everything(&plain));
        assert!(everything(&host) && host.nodes.len() > mapped.nodes.len());
        assert!(!everything(&mapped));
        for node in &mapped.nodes {
            assert!(is_open_to_all(node), "{node}");
        }
        // One rule for each node, after the default rules.
        assert_eq!(mapped.rules.len(), plain.rules.len() + mapped.nodes.len());
    }

    #[test]
    fn disks_and_devices_of_root_are_not_open_to_all() {
        let node = |kind: &str, mode: u32| json!({"type": kind, "fileMode": mode});
        assert!(is_open_to_all(&node("c", 0o666)) && is_open_to_all(&node("c", 0o1777)));
        for (kind, mode) in [("b", 0o666), ("c", 0o660), ("c", 0o664), ("c", 0o662), ("c", 0)] {
            assert!(!is_open_to_all(&node(kind, mode)), "{kind} {mode:o}");
        }
    }

    #[test]
    fn nodes_of_the_host_have_unmapped_owners_in_a_user_namespace() {
        let spec = |maps: Value| {
            let spec = json!({"ociVersion": "1.2.1", "linux": {
                "uidMappings": maps,
                "devices": [
                    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 0, "gid": 0},
                    {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "uid": 0, "gid": 6},
                    {"path": "/dev/x", "type": "c", "major": 10, "minor": 229},
                    {"path": "/dev/p", "type": "p", "uid": 7, "gid": 7},
                ],
            }});
            let mut spec: Spec = serde_json::from_value(spec).unwrap();
            keep_owners(&mut spec);
            let devices = spec.linux().clone().unwrap().devices().clone().unwrap();
            devices.iter().map(|of| (of.uid(), of.gid())).collect::<Vec<_>>()
        };
        let own = [(Some(0), Some(0)), (Some(0), Some(6)), (None, None), (Some(7), Some(7))];
        assert_eq!(spec(json!([])), own);
        let nobody = (Some(UNMAPPED), Some(UNMAPPED));
        let mapped = json!([{"containerID": 0, "hostID": 1000, "size": 65_536}]);
        assert_eq!(spec(mapped), [own[0], nobody, nobody, own[3]]);
    }
}
