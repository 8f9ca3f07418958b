// SPDX-License-Identifier: Apache-2.0
//! Applies the edits of a device to an OCI spec. CDI specification 1.1, "OCI Edits".

use super::error::Error;
use super::file::{DeviceNode, Edits, Hook, Mount};
use crate::oci_spec::edit::{list, parents_first, set_variable};
use hull_plan::clean;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt};

/// Applies all edits of the device `name`, or none on an error.
pub(super) fn apply(spec: &mut Value, name: &str, edits: &Edits) -> Result<(), Error> {
    if let Some(what) = edits.unsupported() {
        return Err(Error::Unsupported { name: name.to_owned(), what });
    }
    let user = (id(spec, "uid"), id(spec, "gid"));
    let nodes: Vec<_> =
        edits.device_nodes.iter().map(|of| node(name, of, user)).collect::<Result<_, _>>()?;
    for variable in &edits.env {
        set_variable(list(&mut spec["process"], "env"), variable);
    }
    for (node, rule) in nodes {
        let devices = list(&mut spec["linux"], "devices");
        devices.retain(|have| have["path"] != node["path"]);
        devices.push(node);
        if let Some(rule) = rule {
            list(&mut spec["linux"]["resources"], "devices").push(rule);
        }
    }
    mounts(spec, &edits.mounts);
    hooks(spec, &edits.hooks);
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        let gids = list(&mut spec["process"]["user"], "additionalGids");
        if !gids.contains(&json!(gid)) {
            gids.push(json!(gid));
        }
    }
    Ok(())
}

/// The uid or gid of the process, unless it is 0.
fn id(spec: &Value, key: &str) -> Option<u32> {
    let id = spec["process"]["user"][key].as_u64()?;
    u32::try_from(id).ok().filter(|id| *id != 0)
}

/// A device node, and the cgroup rule that allows access. A FIFO needs none.
fn node(
    name: &str,
    of: &DeviceNode,
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<(Value, Option<Value>), Error> {
    let path = if of.host_path.is_empty() { &of.path } else { &of.host_path };
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        // The file defines everything that is needed.
        Err(_) if !of.kind.is_empty() && (of.major.is_some() || of.kind == "p") => None,
        Err(source) => {
            return Err(Error::Node { name: name.to_owned(), path: path.clone(), source });
        }
    };
    let on_host = found.as_ref().and_then(|found| kind(found));
    let kind = match (of.kind.as_str(), on_host) {
        ("", Some(kind)) => kind,
        ("", None) => return Err(Error::NoNode { name: name.to_owned(), path: path.clone() }),
        // An unbuffered character device, which is the same to the kernel.
        ("u", _) => "c",
        (kind, _) => kind,
    };
    // The numbers come from the host's device, which must be of that type.
    if found.is_some() && of.major.is_none() && on_host != Some(kind) {
        return Err(Error::NoNode { name: name.to_owned(), path: path.clone() });
    }
    let device = found.as_ref().map(MetadataExt::rdev).unwrap_or_default();
    let major = of.major.unwrap_or_else(|| rustix::fs::major(device).into());
    let minor = of.minor.unwrap_or_else(|| rustix::fs::minor(device).into());
    let mode = of.file_mode.or(found.as_ref().map(|found| found.mode() & 0o7777));
    let uid = of.uid.or(uid).or(found.as_ref().map(MetadataExt::uid));
    let gid = of.gid.or(gid).or(found.as_ref().map(MetadataExt::gid));
    let mut made = json!({
        "path": of.path, "type": kind, "fileMode": mode.unwrap_or(0o666),
        "uid": uid.unwrap_or(0), "gid": gid.unwrap_or(0),
    });
    if kind == "p" {
        return Ok((made, None));
    }
    (made["major"], made["minor"]) = (major.into(), minor.into());
    let access = if of.permissions.is_empty() { "rwm" } else { of.permissions.as_str() };
    let rule =
        json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    Ok((made, Some(rule)))
}

fn kind(found: &fs::Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    [("c", kind.is_char_device()), ("b", kind.is_block_device()), ("p", kind.is_fifo())]
        .into_iter()
        .find_map(|(name, is)| is.then_some(name))
}

fn mounts(spec: &mut Value, edits: &[Mount]) {
    if edits.is_empty() {
        return;
    }
    let mounts = list(spec, "mounts");
    for mount in edits {
        let mut options = mount.options.clone();
        let kind = if mount.is_bind() { "bind" } else { mount.kind.as_str() };
        if kind == "bind" && !options.iter().any(|of| of == "bind" || of == "rbind") {
            options.insert(0, "rbind".into());
        }
        let destination = clean(&mount.container_path);
        mounts.retain(|have| have["destination"] != destination.as_str());
        mounts.push(json!({
            "destination": destination, "type": kind, "source": mount.host_path, "options": options,
        }));
    }
    parents_first(mounts);
}

/// Hooks of one kind run in the order in which they are added.
fn hooks(spec: &mut Value, edits: &[Hook]) {
    for hook in edits {
        let mut made = json!({"path": hook.path, "args": hook.args, "env": hook.env});
        if let Some(timeout) = hook.timeout {
            made["timeout"] = timeout.into();
        }
        let kind = json!(hook.hook_name);
        list(&mut spec["hooks"], kind.as_str().unwrap_or_default()).push(made);
    }
}
