// SPDX-License-Identifier: Apache-2.0
//! Mounts, and which files of the procfs and sysfs mounts can be read or written.

use crate::process::opens;
use rustix::fs::{Access, AtFlags, CWD, OFlags};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Files and directories of procfs that a container without more rights must not get at: the masked
/// and read-only paths of moby's and containerd's defaults, and files below them that matter.
const GUARDED: &[&str] = &[
    "acpi",
    "asound",
    "bus",
    "fs",
    "interrupts",
    "irq",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "sysrq-trigger",
    "sys",
    "sys/kernel/core_pattern",
    "sys/kernel/modprobe",
    "sys/kernel/hostname",
    "sys/vm/drop_caches",
    "timer_list",
    "timer_stats",
];
/// Most entries of a tree that are looked at.
const ENTRIES_MAX: u32 = 50_000;

struct Mount {
    /// As in the table: id, parent, place, options, type, source.
    line: String,
    place: PathBuf,
    kind: String,
}

fn mounts() -> Vec<Mount> {
    // Where /proc is something else, procfs may be mounted elsewhere: that is what is looked for.
    let text = ["/proc/self/mountinfo", "/hidden/self/mountinfo"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let parse = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        Some(Mount {
            line: line.to_owned(),
            place: PathBuf::from(front.split(' ').nth(4)?),
            kind: back.split(' ').next()?.to_owned(),
        })
    };
    text.unwrap_or_default().lines().filter_map(parse).collect()
}

/// The lines of the mount table.
pub(crate) fn table() -> Value {
    json!(mounts().into_iter().map(|mount| mount.line).collect::<Vec<_>>())
}

/// For each procfs: what guarded files say when they are opened to be read and to be written, and
/// which other files outside of processes' directories can be written.
pub(crate) fn proc_files() -> Value {
    let mut found = Map::new();
    let places = mounts()
        .into_iter()
        .filter(|mount| mount.kind == "proc" && mount.place.join("self").is_symlink());
    for place in places.map(|mount| mount.place) {
        let guarded: Map<_, _> = GUARDED
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), guard(&place.join(name))?)))
            .collect();
        let mut writable = Vec::new();
        walk(&place, &mut 0, &mut writable);
        found
            .insert(place.display().to_string(), json!({"guarded": guarded, "writable": writable}));
    }
    Value::Object(found)
}

fn guard(path: &Path) -> Option<Value> {
    let is = fs::symlink_metadata(path).ok()?;
    if is.is_dir() {
        let names = fs::read_dir(path).map(|names| names.flatten().count());
        let can_write = writable(path);
        return Some(json!({"entries": names.unwrap_or(0), "writable": can_write}));
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    // A masked file is the null device: it opens, and is empty.
    let empty = fs::read(path).is_ok_and(|bytes| bytes.is_empty());
    Some(json!({
        "masked": is_null(path), "empty": empty,
        "read": opens(path, flags | OFlags::RDONLY), "write": opens(path, flags | OFlags::WRONLY),
    }))
}

fn is_null(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3))
}

fn writable(path: &Path) -> bool {
    rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Directories of sysfs that tell of the machine, with how many names each shows.
pub(crate) fn sys_guarded() -> Value {
    let mut places =
        vec![PathBuf::from("/sys/firmware"), PathBuf::from("/sys/devices/virtual/powercap")];
    for entry in fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten() {
        places.push(entry.path().join("thermal_throttle"));
    }
    let count = |path: &PathBuf| fs::read_dir(path).ok().map(|names| names.flatten().count());
    let shown =
        places.iter().filter_map(|path| Some((path.display().to_string(), json!(count(path)?))));
    Value::Object(shown.collect())
}

/// Files of the sysfs mounts that can be written.
pub(crate) fn sys_writable() -> Value {
    let mut found = Vec::new();
    for mount in mounts().into_iter().filter(|mount| mount.kind == "sysfs") {
        walk(&mount.place, &mut 0, &mut found);
    }
    json!(found)
}

/// Files below `dir` that have a write permission for somebody, and that we may write.
fn walk(dir: &Path, seen: &mut u32, found: &mut Vec<String>) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        *seen += 1;
        let name = entry.file_name();
        let is_process = name.to_string_lossy().parse::<u32>().is_ok();
        if is_process || *seen > ENTRIES_MAX {
            continue;
        }
        let path = entry.path();
        let Ok(is) = fs::symlink_metadata(&path) else { continue };
        if is.is_dir() {
            walk(&path, seen, found);
        } else if is.is_file() && is.permissions().mode() & 0o222 != 0 && writable(&path) {
            found.push(path.display().to_string());
        }
    }
}
