// SPDX-License-Identifier: Apache-2.0
//! Snapshots of everything of a node on the host: a test compares them before and after.
//!
//! Left out is its boot baseline, which a node keeps on purpose while no pod is there: its bridge, its table, its
//! parent cgroup, its pulled images. [`clear`] removes those too.

use crate::expect::ExpectExt;
use crate::shell::{self, names};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The names that a node goes by on the host.
#[derive(Debug, Clone)]
pub struct Names {
    /// The node's directory.
    pub root: PathBuf,
    /// Its pods' parent cgroup, which begins with a slash.
    pub cgroup: String,
    /// The cgroup that its daemon and hence its monitors are started in.
    pub daemon_cgroup: String,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the nftables table.
    pub table: String,
}

/// Everything of a node on the host, one line for each thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostSnapshot(pub BTreeSet<String>);

impl fmt::Display for HostSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl HostSnapshot {
    /// The lines that are not in `before`.
    #[must_use]
    pub fn diff(&self, before: &Self) -> Self {
        Self(self.0.difference(&before.0).cloned().collect())
    }
}

/// Takes a snapshot, without the daemon's own process.
#[must_use]
pub fn look(node: &Names, daemon: Option<u32>) -> HostSnapshot {
    let mut found = HostSnapshot::default();
    let all = [
        mounts(&node.root),
        bridge_ports(&node.bridge),
        table_elements(&node.table),
        cgroups(&node.cgroup).iter().map(|dir| format!("cgroup {}", dir.display())).collect(),
        processes(node)
            .into_iter()
            .filter(|(pid, _)| Some(*pid) != daemon)
            .map(|(_, text)| text)
            .collect(),
        files(&node.root),
    ];
    for line in all.into_iter().flatten() {
        found.0.insert(line);
    }
    found
}

/// The monitor of a pod.
#[must_use]
pub fn monitor_of(pod: &str) -> Pid {
    let wanted = format!("hull-monitor\0{pod}\0").into_bytes();
    let mut pids =
        names(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| arguments == wanted)
    };
    Pid::from_raw(pids.find(is_it).or_fail(format!("find the monitor of {pod}")))
}

fn mounts(root: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").or_fail("read the mounts");
    let root = root.display().to_string();
    let ours = text.lines().filter(|line| names_path(line, &root));
    // The first three fields are numbers that change with every mount.
    ours.map(|line| format!("mount {}", line.splitn(5, ' ').last().unwrap_or(line))).collect()
}

/// Whether `path`, or something beneath it, stands in the line: `/var/tmp/hlt1` is not in `/var/tmp/hlt12/x`.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let next = line[at + path.len()..].chars().next();
        next.is_none_or(|next| !next.is_alphanumeric() && next != '-' && next != '_')
    })
}

fn bridge_ports(bridge: &str) -> Vec<String> {
    let ports = names(&Path::new("/sys/class/net").join(bridge).join("brif"));
    ports.iter().map(|port| format!("link {port} on {bridge}")).collect()
}

/// Elements of maps and sets: there is one for each host port.
fn table_elements(table: &str) -> Vec<String> {
    let ran = shell::run("nft", ["-j", "list", "ruleset"]);
    if ran.code != 0 {
        return Vec::new();
    }
    let ruleset: serde_json::Value =
        serde_json::from_str(&ran.stdout).or_fail("read the nftables rules");
    let objects = ruleset["nftables"].as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for object in &objects {
        for kind in ["map", "set"] {
            let body = &object[kind];
            if body["table"] == table {
                let elements = body["elem"].as_array().cloned().unwrap_or_default();
                found.extend(
                    elements.iter().map(|one| format!("nft {table} {} {one}", body["name"])),
                );
            }
        }
    }
    found
}

/// A pod's cgroup below the node's, in the hierarchy that freezes.
pub fn freezer_group(node: &str, pod: &str) -> PathBuf {
    let all = hierarchies();
    let v1 = all.iter().find(|at| at.ends_with("freezer"));
    let root = v1.unwrap_or(&all[0]);
    root.join(node.trim_start_matches('/')).join(format!("pod{pod}"))
}

/// The file that freezes a cgroup, and the texts that stop and start it.
pub fn freezer_of(group: &Path) -> (PathBuf, &'static str, &'static str) {
    let v1 = group.join("freezer.state");
    if v1.is_file() { (v1, "FROZEN", "THAWED") } else { (group.join("cgroup.freeze"), "1", "0") }
}

/// Where the cgroup hierarchies are mounted.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").or_fail("read the mounts");
    let is_cgroup = |line: &&str| {
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        matches!(kind, Some("cgroup" | "cgroup2"))
    };
    text.lines()
        .filter(is_cgroup)
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect()
}

/// The directories below the cgroup `path` in all hierarchies, deepest first, without itself.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        below(&hierarchy.join(path.trim_start_matches('/')), &mut found);
    }
    found
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for name in names(dir) {
        let path = dir.join(name);
        if path.is_dir() && !path.is_symlink() {
            below(&path, found);
            found.push(path);
        }
    }
}

/// Processes in the node's cgroups: containers and pause by the pods' parent, monitors by the
/// daemon's, which they are born in.
fn processes(node: &Names) -> Vec<(u32, String)> {
    let parent = format!(":{}", node.cgroup);
    let daemon = format!(":{}", node.daemon_cgroup);
    let mut found = Vec::new();
    for name in names(Path::new("/proc")) {
        let Ok(pid) = name.parse::<u32>() else { continue };
        let dir = Path::new("/proc").join(&name);
        let cgroups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
        let ours = cgroups.lines().any(|line| {
            let within = |prefix: &str| {
                line.find(prefix).is_some_and(|at| {
                    matches!(line.as_bytes().get(at + prefix.len()), None | Some(b'/'))
                })
            };
            within(&parent) || within(&daemon)
        });
        if !ours || is_zombie(&dir) {
            continue;
        }
        let command =
            fs::read_to_string(dir.join("cmdline")).unwrap_or_default().replace('\0', " ");
        found.push((pid, format!("process {pid} {}", command.trim())));
    }
    found
}

/// Ended, but its parent (which may be our own shell) has not asked yet.
fn is_zombie(dir: &Path) -> bool {
    let stat = fs::read_to_string(dir.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Files below the directories that hold only what belongs to pods and containers. Their logs are the
/// kubelet's: it takes them away.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let dirs = [
        "state/pods",
        "state/containers",
        "state/plans",
        "state/run",
        "state/network",
        "state/cni",
        "state/netns",
        "data/containers",
    ];
    for dir in dirs {
        let mut paths = Vec::new();
        every_file(&root.join(dir), &mut paths);
        found.extend(paths.iter().map(|path| format!("file {}", path.display())));
    }
    found
}

fn every_file(dir: &Path, found: &mut Vec<PathBuf>) {
    for name in names(dir) {
        let path = dir.join(name);
        if path.is_dir() && !path.is_symlink() {
            every_file(&path, found);
        }
        found.push(path);
    }
}

/// Removes everything of the node by force, the boot baseline too: what a failed test left, and what a
/// test run left that was killed.
pub fn clear(node: &Names) {
    for dir in cgroups(&node.cgroup) {
        // In a frozen cgroup of v1 no signal takes effect. Only one hierarchy has such a file.
        for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            drop(fs::write(dir.join(file), thawed));
        }
    }
    let gone = crate::eventually::blocking(crate::eventually::deadline(), || {
        let left = processes(node);
        for (pid, _) in &left {
            let pid = i32::try_from(*pid).or_fail("name a process");
            // It may be gone by now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    for dir in cgroups(&node.cgroup) {
        drop(fs::remove_dir(dir));
    }
    for hierarchy in hierarchies() {
        for path in [&node.cgroup, &node.daemon_cgroup] {
            drop(fs::remove_dir(hierarchy.join(path.trim_start_matches('/'))));
        }
    }
    if Path::new("/sys/class/net").join(&node.bridge).is_dir() {
        for port in names(&Path::new("/sys/class/net").join(&node.bridge).join("brif")) {
            drop(shell::run("ip", ["link", "delete", &port]));
        }
        drop(shell::run("ip", ["link", "delete", &node.bridge]));
    }
    for family in ["inet", "ip", "ip6"] {
        drop(shell::run("nft", ["delete", "table", family, &node.table]));
    }
    for line in mounts(&node.root) {
        if let Some(at) = line.split(' ').nth(1) {
            drop(shell::run("umount", ["-l", at]));
        }
    }
    let removed = fs::remove_dir_all(&node.root);
    if let Err(err) = removed {
        assert!(
            err.kind() == std::io::ErrorKind::NotFound,
            "cannot remove {}: {err}",
            node.root.display()
        );
    }
    gone.map_err(|left| format!("processes that will not die: {left}"))
        .unwrap_or_else(|text| panic!("{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_another_node_are_not_this_nodes() {
        let node = "/var/tmp/hlt1";
        for line in [
            "36 28 0:31 / /var/tmp/hlt1/state/netns/a rw - nsfs nsfs rw",
            "36 28 0:31 / /var/tmp/hlt1 rw - tmpfs tmpfs rw",
            "36 28 0:31 / /mnt rw - overlay overlay rw,upperdir=/var/tmp/hlt1/data/u,workdir=/w",
            "36 28 0:31 / /var/tmp/hlt12/x rw - overlay overlay rw,lowerdir=/var/tmp/hlt1:/l",
        ] {
            assert!(names_path(line, node), "{line}");
        }
        let other = "36 28 0:31 / /var/tmp/hlt12/state/netns/a rw - nsfs nsfs rw";
        assert!(!names_path(other, node), "{other}");
    }
}
