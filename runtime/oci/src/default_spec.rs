// SPDX-License-Identifier: Apache-2.0
//! `spec`: a config.json to begin with, a shell in namespaces of its own.

use crate::error::{Error, Result};
use crate::features::SPEC_MAX;
use hull_cgroup::{CgroupFs, Version};
use hull_plan::defaults::{READONLY_PATHS, masked_paths};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Writes it into `bundle`, or here. One that is there stays.
pub(crate) fn write(bundle: Option<&Path>, rootless: bool) -> Result<()> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let version = CgroupFs::detect().map(|host| host.version());
    let mut spec = spec(matches!(version, Ok(Version::V2)));
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_rootless(&mut spec, uid, gid);
    }
    let text = format!("{spec:#}\n");
    File::options()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|err| Error::BadFile {
            path,
            what: "the place of a new spec",
            why: err.to_string(),
        })
}

fn mount(destination: &str, fstype: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": fstype, "source": source, "options": options})
}

/// For a user without rights: in a user namespace in which this user is root, with the host's network, without limits.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut spec["linux"];
    linux["uidMappings"] = map(uid);
    linux["gidMappings"] = map(gid);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|of| of["type"] != "network" && of["type"] != "cgroup");
        namespaces.push(json!({"type": "user"}));
    }
    for of in spec["mounts"].as_array_mut().into_iter().flatten() {
        match of["destination"].as_str() {
            // A sysfs belongs to a network namespace, and this one has the host's.
            Some("/sys") => {
                *of = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
            }
            // Group 5 is not mapped.
            Some("/dev/pts") => {
                if let Some(options) = of["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
            _ => {}
        }
    }
}

fn spec(cgroup_namespace: bool) -> Value {
    let mounts = [
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    // As runc writes it: with version 1 programs expect their paths from the root of each hierarchy.
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces = namespaces.iter().filter(|of| cgroup_namespace || **of != "cgroup");
    let namespaces: Vec<_> = namespaces.map(|of| json!({"type": of})).collect();
    json!({
        "ociVersion": SPEC_MAX,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "hull",
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": masked_paths(),
            "readonlyPaths": READONLY_PATHS,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_without_rights_has_a_user_namespace_and_the_hosts_network() {
        let mut of = spec(true);
        make_rootless(&mut of, 1000, 100);
        assert_eq!(of["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(of["linux"]["gidMappings"][0]["hostID"], 100);
        let text = of["linux"]["namespaces"].to_string();
        assert!(text.contains("user") && !text.contains("network"), "{text}");
        assert!(!of["mounts"].to_string().contains("gid=5"));
        assert!(of["linux"].get("resources").is_none());
        serde_json::from_value::<oci_spec::runtime::Spec>(of).unwrap();
    }
}
