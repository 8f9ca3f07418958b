// SPDX-License-Identifier: Apache-2.0
//! The process itself: descriptors, directories, rights, devices, sockets, other processes.

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Lines of /proc/self/status that say what the process may do.
const RIGHTS: [&str; 13] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Pid",
    "NSpid",
];

/// Directories, program, rights and id maps.
pub(crate) fn process() -> Value {
    let link = |name: &str| json!(fs::read_link(format!("/proc/self/{name}")).ok());
    let text = |name: &str| {
        let text = fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        json!(text.trim_matches(['\0', '\n']))
    };
    let mut found = Map::new();
    for line in fs::read_to_string("/proc/self/status").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(':')
            && RIGHTS.contains(&name)
        {
            found.insert(name.to_owned(), json!(value.trim()));
        }
    }
    let namespaces = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let namespaces = namespaces.map(|name| (name.to_owned(), link(&format!("ns/{name}"))));
    let more = [
        ("cwd", link("cwd")),
        ("root", link("root")),
        ("exe", link("exe")),
        ("uid_map", text("uid_map")),
        ("gid_map", text("gid_map")),
        ("lsm", text("attr/current")),
        ("cgroup", text("cgroup")),
        ("namespaces", Value::Object(namespaces.into_iter().collect())),
    ];
    found.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(found)
}

fn kind(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "unknown",
    }
}

/// Every open descriptor, the one that lists them aside.
pub(crate) fn descriptors() -> Value {
    let mut found = Vec::new();
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for entry in listed {
        let Ok(number) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if target.starts_with("/proc/") && target.ends_with("fd") {
            continue;
        }
        let Ok(stat) = rustix::fs::stat(entry.path()) else { continue };
        found.push(json!({
            "fd": number, "target": target, "kind": kind(stat.st_mode),
            "device": stat.st_dev, "inode": stat.st_ino,
        }));
    }
    json!(found)
}

/// Every device node below /dev and, where an image brings some, /nodes: what opening it says.
pub(crate) fn devices() -> Value {
    let mut found = Vec::new();
    for dir in ["/dev", "/nodes"] {
        nodes(Path::new(dir), 0, &mut found);
    }
    json!(found)
}

fn nodes(dir: &Path, depth: u32, found: &mut Vec<Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(stat) = rustix::fs::lstat(&path) else { continue };
        let is = FileType::from_raw_mode(stat.st_mode);
        if is == FileType::Directory && depth < 3 {
            nodes(&path, depth + 1, found);
        }
        if is != FileType::CharacterDevice && is != FileType::BlockDevice {
            continue;
        }
        // Without NOCTTY and NONBLOCK a terminal would become ours, and a serial line be waited for.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        found.push(json!({
            "path": path, "kind": kind(stat.st_mode), "uid": stat.st_uid,
            "mode": stat.st_mode & 0o7777,
            "number": [rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)],
            "opens": opens(&path, flags),
        }));
    }
}

/// `ok` or the errno's name.
pub(crate) fn opens(path: &Path, flags: OFlags) -> String {
    match rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => "ok".into(),
        Err(errno) => hull_sys::name_of(errno),
    }
}

/// Names of the abstract sockets in the network namespace.
pub(crate) fn abstract_sockets() -> Value {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(7));
    json!(names.filter(|name| name.starts_with('@')).collect::<Vec<_>>())
}

/// Processes that are visible here, with what signal 0 to each says and what its links show.
pub(crate) fn signals() -> Value {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.parse().ok().and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        let may = match rustix::process::test_kill_process(pid) {
            Ok(()) => "ok".into(),
            Err(errno) => hull_sys::name_of(errno),
        };
        let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let link = |name: &str| fs::read_link(entry.path().join(name)).ok();
        found.push(json!({
            "pid": pid.as_raw_nonzero().get(), "command": command.trim(), "signal": may,
            "root": link("root"), "cwd": link("cwd"), "exe": link("exe"),
        }));
    }
    json!(found)
}

/// Tries to change the files behind 0, 1 and 2: mode, owner, times, an extended attribute. Gives a
/// line for each try. The mode 0667 breaks nothing that used the file before.
pub(crate) fn tamper() -> Vec<String> {
    let mut lines = Vec::new();
    let mut tried = |what: &str, fd: u32, answer: Result<(), Errno>| {
        let answer = answer.map_or_else(hull_sys::name_of, |()| "ok".into());
        lines.push(format!("{what} {fd}: {answer}"));
    };
    for fd in 0..3_u32 {
        let path = format!("/proc/self/fd/{fd}");
        let mode = Mode::from_raw_mode(0o667);
        tried("chmod", fd, rustix::fs::chmodat(CWD, &path, mode, AtFlags::empty()));
        let group = Some(Gid::from_raw(7));
        let owner: Option<Uid> = None;
        tried("chown", fd, rustix::fs::chownat(CWD, &path, owner, group, AtFlags::empty()));
        let long_ago = Timespec { tv_sec: 86_400, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        tried("utimes", fd, rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()));
        let flags = rustix::fs::XattrFlags::empty();
        tried("setxattr", fd, rustix::fs::setxattr(&path, "trusted.hull", b"x", flags));
    }
    lines
}
