// SPDX-License-Identifier: Apache-2.0
//! Sockets of the host below a mounted host directory: a breadth-first search with limits on entries, depth and
//! time. A search that reaches a limit is reported as incomplete.

use super::facts::{DaemonFacts, FileOwner, Socket};
use super::mounts::{Mount, MountTable, is_within};
use super::procfs::SHOWN_MAX;
use hull_sys::text::shown;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Limit on the number of entries of one mount.
const ENTRIES_MAX: usize = 20_000;
/// Limit on the depth of directories below a mount.
const DEPTH_MAX: usize = 8;
/// Limit on the time of all searches for one container.
const SEARCH_MAX: Duration = Duration::from_secs(3);
/// Limit on the number of reported sockets of one mount.
const SOCKETS_MAX: usize = 256;
/// The usual sockets of runtimes and of helpers of the kubelet.
const KNOWN: [&str; 8] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/hull/hull.sock",
    "/run/podman/podman.sock",
    "/run/cri-dockerd.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/nri/nri.sock",
];
/// File names of sockets whose servers act with the power of root.
const RUNTIMES: [&str; 8] = [
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "hull.sock",
    "podman.sock",
    "cri-dockerd.sock",
    "buildkitd.sock",
    "nri.sock",
];
/// Filesystems that may not respond.
const MAY_NOT_RESPOND: [&str; 8] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "autofs"];
/// Filesystems that cannot contain sockets.
const WITHOUT_SOCKETS: [&str; 9] =
    ["proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "devpts", "mqueue"];

/// Searches for all mounts of a container.
pub(super) struct Search<'a> {
    host: &'a MountTable,
    given: &'a DaemonFacts,
    until: Instant,
}

impl<'a> Search<'a> {
    pub(super) fn new(host: &'a MountTable, given: &'a DaemonFacts) -> Self {
        Self { host, given, until: Instant::now() + SEARCH_MAX }
    }

    /// Owner and mode of a path of the host, without following symlinks; `None` on filesystems that may not respond.
    pub(super) fn owned(&self, path: &str) -> Option<FileOwner> {
        self.stat(Path::new(path)).map(|found| owned(&found))
    }

    /// The sockets at a path of the host and below it, and why the search is incomplete.
    pub(super) fn sockets(&mut self, path: &str) -> (Vec<Socket>, Option<String>) {
        let mut found = BTreeMap::new();
        self.add(Path::new(path), &mut found);
        let own = self.given.sockets.iter().map(String::as_str);
        for socket in KNOWN.into_iter().chain(own).filter(|socket| is_within(socket, path)) {
            self.add(Path::new(socket), &mut found);
        }
        let cut = self.below(path, &mut found);
        (found.into_values().collect(), cut)
    }

    fn below(&self, path: &str, found: &mut BTreeMap<PathBuf, Socket>) -> Option<String> {
        let on = self.host.at(path)?;
        if WITHOUT_SOCKETS.contains(&on.fstype.as_str()) {
            return None;
        }
        if may_not_respond(on) {
            return Some("no search for sockets: its filesystem may not respond".into());
        }
        let mut waiting = VecDeque::from([(PathBuf::from(path), 0_usize)]);
        let (mut seen, mut too_deep) = (0_usize, false);
        while let Some((dir, depth)) = waiting.pop_front() {
            // Another filesystem is a mount of its own in the container, if it is visible there at all.
            if self.host.at(&dir.to_string_lossy()).is_none_or(|at| at.id != on.id) {
                continue;
            }
            let open = open_on_host(&dir, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::new);
            let Ok(entries) = open else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let is_late = seen % 64 == 63 && Instant::now() > self.until;
                if seen >= ENTRIES_MAX || found.len() >= SOCKETS_MAX || is_late {
                    return Some(format!("the search for sockets ended after {seen} entries"));
                }
                seen += 1;
                let bytes = std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
                let path = dir.join::<&std::ffi::OsStr>(bytes);
                match entry.file_type() {
                    FileType::Directory if depth < DEPTH_MAX => {
                        waiting.push_back((path, depth + 1))
                    }
                    FileType::Directory => too_deep = true,
                    FileType::Socket | FileType::Unknown => self.add(&path, found),
                    FileType::RegularFile
                    | FileType::Symlink
                    | FileType::Fifo
                    | FileType::BlockDevice
                    | FileType::CharacterDevice => {}
                }
            }
        }
        too_deep
            .then(|| format!("the search for sockets skipped directories deeper than {DEPTH_MAX}"))
    }

    /// Adds the path if it is a socket.
    fn add(&self, path: &Path, found: &mut BTreeMap<PathBuf, Socket>) {
        let Some(stat) = self.stat(path) else { return };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return;
        }
        let text = path.to_string_lossy();
        let is_runtime = path.file_name().is_some_and(|name| RUNTIMES.iter().any(|of| name == *of));
        let is_ours = self.given.sockets.iter().any(|own| *own == text)
            || self.given.daemon_dirs.iter().any(|dir| is_within(&text, dir));
        let socket = Socket {
            path: shown(&*text, SHOWN_MAX),
            of_root: is_runtime || is_ours,
            owned: Some(owned(&stat)),
        };
        let _before = found.insert(path.to_owned(), socket);
    }

    fn stat(&self, path: &Path) -> Option<Stat> {
        if may_not_respond(self.host.at(&path.to_string_lossy())?) {
            return None;
        }
        open_on_host(path, OFlags::PATH | OFlags::NOFOLLOW).and_then(fstat).ok()
    }
}

fn owned(found: &Stat) -> FileOwner {
    FileOwner { uid: found.st_uid, gid: found.st_gid, mode: found.st_mode }
}

fn may_not_respond(on: &Mount) -> bool {
    on.fstype.starts_with("fuse") || MAY_NOT_RESPOND.contains(&on.fstype.as_str())
}

fn open_on_host(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    let no_links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(CWD, path, how | OFlags::CLOEXEC, Mode::empty(), no_links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_below_are_found_and_an_incomplete_search_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let deep = root.join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        let _listener = UnixListener::bind(deep.join("plain")).unwrap();
        let _own = UnixListener::bind(root.join("cri")).unwrap();
        let host = MountTable::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap());
        let own = root.join("cri").display().to_string();
        let given = DaemonFacts { sockets: vec![own.clone()], ..DaemonFacts::default() };
        let mut search = Search::new(&host, &given);
        let text = root.display().to_string();
        let (found, cut) = search.sockets(&text);
        let seen: Vec<(&str, bool)> =
            found.iter().map(|of| (of.path.as_str(), of.of_root)).collect();
        let other = deep.join("plain").display().to_string();
        assert_eq!(seen, [(other.as_str(), false), (own.as_str(), true)]);
        assert_eq!(cut, None);
        search.until = Instant::now();
        for number in 0..100 {
            fs::write(root.join(format!("{number}")), "").unwrap();
        }
        let (_, cut) = search.sockets(&text);
        assert_eq!(cut.unwrap(), "the search for sockets ended after 63 entries");
        // Sockets in the daemon's directories are its own.
        let given = DaemonFacts { daemon_dirs: vec![text.clone()], ..DaemonFacts::default() };
        let (found, _) = Search::new(&host, &given).sockets(&text);
        assert!(found.len() == 2 && found.iter().all(|of| of.of_root), "{found:?}");
        fs::create_dir_all(root.join("1d/2/3/4/5/6/7/8/9/10")).unwrap();
        let (_, cut) = Search::new(&host, &given).sockets(&text);
        assert!(cut.unwrap().contains("deeper than 8"));
    }
}
