// SPDX-License-Identifier: Apache-2.0
//! `spec`: a config.json to begin with, a shell in namespaces of its own.

use crate::error::{Error, Result};
use crate::features::SPEC_MAX;
use hull_plan::defaults::{READONLY_PATHS, masked_paths};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Writes it into `bundle`, or here. One that is there stays.
pub(crate) fn write(bundle: Option<&Path>) -> Result<()> {
    let path = bundle.unwrap_or(Path::new(".")).join("config.json");
    let text = format!("{:#}\n", spec());
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

fn spec() -> Value {
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
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<_> = namespaces.iter().map(|of| json!({"type": of})).collect();
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
