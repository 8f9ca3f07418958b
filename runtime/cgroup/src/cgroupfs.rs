// SPDX-License-Identifier: Apache-2.0
//! Detects the host's cgroup hierarchies from its mounts. `cgroups(7)`.

use crate::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup setup of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One unified hierarchy with all controllers.
    V2,
    /// A hierarchy per controller.
    V1,
    /// A hierarchy per controller, and a unified hierarchy without controllers.
    Hybrid,
}

/// One v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers, as in `cpu`, `cpuacct`, `name=systemd`.
    pub controllers: Vec<String>,
    /// The mount point.
    pub mountpoint: PathBuf,
}

/// The hierarchies of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupFs {
    unified: Option<PathBuf>,
    /// Whether the v2 tree is mounted with `nsdelegate`.
    ns_delegate: bool,
    v1: Vec<Hierarchy>,
}

/// Names of controllers, to tell them from mount options.
const CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
];

impl CgroupFs {
    /// Reads the hierarchies from /proc/self/mountinfo.
    pub fn detect() -> Result<Self, Error> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let text = fs::read_to_string(&path).map_err(|source| Error::Mounts { path, source })?;
        let host = Self::parse(&text);
        if host.unified.is_none() && host.v1.is_empty() {
            return Err(Error::NoHierarchy);
        }
        Ok(host)
    }

    /// A host whose only hierarchy is a v2 one at `root`.
    #[must_use]
    pub fn v2_at(root: &Path) -> Self {
        Self { unified: Some(root.to_owned()), ns_delegate: false, v1: Vec::new() }
    }

    /// No hierarchy: for users without rights over any. Cgroups in it never have processes, and no limits.
    #[must_use]
    pub fn none() -> Self {
        Self { unified: None, ns_delegate: false, v1: Vec::new() }
    }

    pub(crate) fn parse(mountinfo: &str) -> Self {
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut host = Self::none();
        for mount in mounts.iter().filter(|of| of.is_hierarchy() && of.is_on_top(&mounts)) {
            let mountpoint = PathBuf::from(mount.at);
            match mount.fstype {
                "cgroup2" if host.unified.is_none() => {
                    host.unified = Some(mountpoint);
                    host.ns_delegate = mount.options.split(',').any(|of| of == "nsdelegate");
                }
                "cgroup" => {
                    let controllers: Vec<String> = mount
                        .options
                        .split(',')
                        .filter(|name| CONTROLLERS.contains(name) || name.starts_with("name="))
                        .map(str::to_owned)
                        .collect();
                    let known = host.v1.iter().any(|of| of.controllers == controllers);
                    if !controllers.is_empty() && !known {
                        host.v1.push(Hierarchy { controllers, mountpoint });
                    }
                }
                _ => {}
            }
        }
        host
    }

    /// The kind of setup.
    #[must_use]
    pub fn version(&self) -> Version {
        match (self.v1.is_empty(), &self.unified) {
            (true, _) => Version::V2,
            (false, None) => Version::V1,
            (false, Some(_)) => Version::Hybrid,
        }
    }

    /// The names of the available controllers.
    pub fn controllers(&self) -> Result<Vec<String>, Error> {
        if let (true, Some(root)) = (self.v1.is_empty(), &self.unified) {
            let text = crate::files::read(root, "cgroup.controllers")?;
            return Ok(text.split_whitespace().map(str::to_owned).collect());
        }
        let names = self.v1.iter().flat_map(|of| of.controllers.clone());
        Ok(names.filter(|name| !name.starts_with("name=")).collect())
    }

    /// The v1 hierarchies; none on a v2 host.
    #[must_use]
    pub fn hierarchies(&self) -> &[Hierarchy] {
        &self.v1
    }

    /// The root of the v2 tree, if the host has one.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Whether the root of a cgroup namespace keeps its limits from processes in the namespace: the v2 tree is mounted
    /// with `nsdelegate`. `Documentation/admin-guide/cgroup-v2.rst`, "Delegation".
    #[must_use]
    pub fn delegates_to_namespaces(&self) -> bool {
        self.ns_delegate
    }

    /// The directory of the calling process's cgroup in the v2 tree, where there is one.
    pub fn self_dir(&self) -> Result<Option<PathBuf>, Error> {
        let Some(root) = &self.unified else { return Ok(None) };
        let own = unified_path("self")?;
        Ok(own.map(|own| root.join(own.trim_start_matches('/'))))
    }

    /// The path of a process's cgroup in the v2 tree, if the host has one.
    pub fn unified_of(&self, pid: i32) -> Result<Option<String>, Error> {
        if self.unified.is_none() {
            return Ok(None);
        }
        unified_path(&pid.to_string())
    }

    /// The calling process's own cgroup in every hierarchy of a host that has ones of version 1: a controller of the
    /// hierarchy (none for the v2 tree), and the path.
    pub fn own_paths(&self) -> Result<Vec<(String, String)>, Error> {
        let path = PathBuf::from("/proc/self/cgroup");
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        Ok(self.paths_in(&text))
    }

    /// The paths of this host's hierarchies in a `/proc/PID/cgroup`, whose lines are `ID:CONTROLLERS:PATH`.
    fn paths_in(&self, text: &str) -> Vec<(String, String)> {
        let names = self.v1.iter().filter_map(|of| of.controllers.first().map(String::as_str));
        let names = names.chain(self.unified.as_ref().map(|_| ""));
        let path_of = |name: &str| {
            text.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers.split(',').any(|of| of == name).then(|| path.to_owned())
            })
        };
        names.filter_map(|name| Some((name.to_owned(), path_of(name)?))).collect()
    }

    /// The same hierarchies, each with one of these cgroups (see [`CgroupFs::own_paths`]) in place of its root: there the
    /// paths of cgroups begin.
    ///
    /// # Errors
    /// A path that leads out of the hierarchy, as in a cgroup namespace that does not have the process's own cgroup.
    pub fn beneath(mut self, paths: &[(String, String)]) -> Result<Self, Error> {
        for (controller, path) in paths {
            if path.split('/').any(|part| part == "..") {
                return Err(Error::BadPath { path: path.chars().take(200).collect() });
            }
            let below = path.trim_start_matches('/');
            let of = self.v1.iter_mut().find(|of| of.controllers.contains(controller));
            let root = match of {
                Some(hierarchy) => Some(&mut hierarchy.mountpoint),
                None => self.unified.as_mut().filter(|_| controller.is_empty()),
            };
            if let (Some(root), false) = (root, below.is_empty()) {
                root.push(below);
            }
        }
        Ok(self)
    }

    /// The v1 hierarchy of a controller.
    pub(crate) fn hierarchy(&self, controller: &str) -> Option<&Path> {
        let of = self.v1.iter().find(|of| of.controllers.iter().any(|name| name == controller))?;
        Some(&of.mountpoint)
    }

    /// The root of every hierarchy.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|of| of.mountpoint.as_path()).chain(self.unified())
    }
}

/// One line of mountinfo. `proc_pid_mountinfo(5)`.
struct Mount<'t> {
    id: u64,
    /// The id of the parent mount.
    on: u64,
    /// The directory of the filesystem that is mounted.
    root: &'t str,
    at: &'t str,
    fstype: &'t str,
    /// The filesystem's own options.
    options: &'t str,
}

impl<'t> Mount<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let (mut head, mut tail) = (head.split(' '), tail.split(' '));
        Some(Self {
            id: head.next()?.parse().ok()?,
            on: head.next()?.parse().ok()?,
            root: head.nth(1)?,
            at: head.next()?,
            fstype: tail.next()?,
            options: tail.nth(1).unwrap_or_default(),
        })
    }

    /// Whether a whole hierarchy is mounted, and not a bind mount of a part.
    fn is_hierarchy(&self) -> bool {
        self.root == "/" && matches!(self.fstype, "cgroup2" | "cgroup")
    }

    /// Whether the mount is visible at its path, and not covered by another mount there or above. Resolves
    /// the path as the kernel does, from mount to mount.
    fn is_on_top(&self, all: &[Self]) -> bool {
        // The parent of the first mount is not in the table.
        let on = |of: &Self| all.iter().any(|below| below.id == of.on && of.on != of.id);
        let mut reached: Option<&Self> = None;
        let ends = self.at.match_indices('/').map(|(at, _)| at.max(1)).chain([self.at.len()]);
        for end in ends {
            let path = &self.at[..end];
            // Of several mounts at one path the last is on top; and others may be on top of that one.
            while let Some(over) = all.iter().rev().find(|of| {
                of.at == path
                    && reached.map_or(!on(of), |below| of.on == below.id && of.on != of.id)
            }) {
                reached = Some(over);
            }
        }
        reached.is_some_and(|of| of.id == self.id)
    }
}

/// Reads the v2 path from `/proc/PID/cgroup`.
fn unified_path(process: &str) -> Result<Option<String>, Error> {
    let path = PathBuf::from(format!("/proc/{process}/cgroup"));
    let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_host_is_told_from_its_mounts() {
        let host = CgroupFs::parse(
            "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
             31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
             32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             34 30 0:29 /x /mnt rw - cgroup cgroup rw,memory\n",
        );
        assert_eq!((host.version(), host.delegates_to_namespaces()), (Version::Hybrid, true));
        assert_eq!(host.hierarchy("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(host.hierarchy("memory"), None, "a bind mount of a part is not a hierarchy");
        assert_eq!(host.hierarchies().len(), 2);
    }

    #[test]
    fn cgroups_of_a_process_take_the_place_of_the_roots() {
        let host = CgroupFs::parse(
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
        );
        assert!(!host.delegates_to_namespaces());
        let text = "5:name=systemd:/user.slice/a:b\n4:cpuacct,cpu:/user.slice\n3:pids:/\n2:memory:/m\n0::/u\n";
        let paths = host.paths_in(text);
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        let all = [
            pair("cpu", "/user.slice"),
            pair("name=systemd", "/user.slice/a:b"),
            pair("pids", "/"),
            pair("", "/u"),
        ];
        assert_eq!(paths, all);
        let below = host.clone().beneath(&paths).unwrap();
        let at = |controller: &str| below.hierarchy(controller).unwrap().display().to_string();
        assert_eq!(at("cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/user.slice");
        assert_eq!(at("name=systemd"), "/sys/fs/cgroup/systemd/user.slice/a:b");
        assert_eq!(at("pids"), "/sys/fs/cgroup/pids");
        assert_eq!(below.unified(), Some(Path::new("/sys/fs/cgroup/unified/u")));
        assert_eq!(host.clone().beneath(&[]).unwrap(), host);
        host.beneath(&[pair("pids", "/../..")]).unwrap_err();
    }

    #[test]
    fn a_mount_that_another_covers_is_not_taken() {
        let root = "25 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let first = "31 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let part = "90 31 0:27 /x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let again = "91 31 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let elsewhere = "92 25 0:27 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n";
        let above = "93 25 0:50 / /sys/fs rw - tmpfs tmpfs rw\n";
        let on_above = "94 93 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let at = |parts: &[&str]| {
            CgroupFs::parse(&parts.concat()).unified.map(|at| at.display().to_string())
        };
        let usual = Some("/sys/fs/cgroup".to_owned());
        assert_eq!(at(&[root, first]), usual);
        assert_eq!(at(&[root, first, part]), None, "only a part can be reached there");
        assert_eq!(at(&[root, first, again]), usual, "the same once more");
        assert_eq!(at(&[root, first, part, elsewhere]), Some("/mnt/cgroup".into()));
        assert_eq!(at(&[root, first, above]), None, "a directory above is covered");
        assert_eq!(at(&[root, first, above, on_above]), usual);
        // As in a chroot: no line for the root, and what lies on it lies on nothing in the table.
        assert_eq!(at(&[first]), usual);
        // As with an initial file system that was left: the root lies over another, or on itself.
        let initial = "1 1 0:1 / / rw - rootfs rootfs rw\n";
        assert_eq!(at(&[initial, root, first]), usual);
        assert_eq!(
            at(&[initial, root, "31 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"]),
            None
        );
    }

    #[test]
    fn a_v2_host_has_one_tree() {
        let host = CgroupFs::parse("31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(host.version(), Version::V2);
        assert_eq!(host.unified(), Some(Path::new("/sys/fs/cgroup")));
    }
}
