// SPDX-License-Identifier: Apache-2.0
//! One daemon for a bridge, one for an nftables table, and one for a parent cgroup: a daemon sweeps what it finds of
//! pods that it does not know, so a second one with the same names would end the first one's pods.
//!
//! ```text
//! /run/hull/claims                            root's alone (0700); locked while claims change
//!   network-bridge-<namespace>-<name>         locked as long as the daemon lives; pid and command line in it
//!   network-table-<namespace>-<name>
//!   cgroup-<namespace>-<parent>
//! ```
//!
//! The directory is the same whatever `state_dir` is: daemons with different ones must meet. It can only be entered by
//! root, because a process that can open a file can lock it. Bridges and tables belong to a network namespace, and parent
//! cgroups to a cgroup namespace. The kernel releases a lock with the process, however it ends (`flock(2)`); the file of
//! a daemon that was killed is removed by the next that claims anything.

use crate::config::Config;
use rustix::fs::OFlags;
use std::fs::{self, DirEntry, File, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tracing::warn;

/// The directory of the claims of all daemons of a host.
const CLAIMS_DIR: &str = "/run/hull/claims";
/// How much of a command line stands in a message, in bytes.
const COMMAND_BYTES_MAX: usize = 200;
/// How much of a claim's file is read, in bytes.
const CLAIM_BYTES_MAX: u64 = 4096;
/// Longest name of a file that is made of the claimed name, in bytes: a file system takes 255.
const FILE_BYTES_MAX: usize = 200;

/// Why the names of the pods' network are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use {kind} `{name}`: the daemon with process id {pid} (`{command}`) uses it")]
    Taken { kind: &'static str, name: String, pid: String, command: String },
    #[error("hold the name of {kind} `{name}` in {}", path.display())]
    Hold { kind: &'static str, name: String, path: PathBuf, source: io::Error },
    #[error("use {} for the claims of daemons", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some(
                "stop the other daemon, or give this one its own `cgroup.parent`, `network.bridge`, `network.table` and `network.pod_cidr`".into(),
            ),
            Self::Hold { .. } | Self::Directory { .. } => Some(format!(
                "make {CLAIMS_DIR} a directory of root on a writable file system: the daemons of a host lock there what only one may use"
            )),
        }
    }
}

/// The names that this daemon holds.
#[derive(Debug)]
pub(crate) struct Claim {
    dir: PathBuf,
    held: Vec<(PathBuf, File)>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Without the lock the files stay for the next daemon to remove: another one may just look at them.
        if !self.held.is_empty()
            && let Ok(_changes) = locked(&self.dir)
        {
            for (path, _) in &self.held {
                let _left = fs::remove_file(path);
            }
        }
    }
}

/// Holds the names of the parent cgroup and of the built-in network, if that attaches new pods or has attached earlier
/// ones. CNI plugins look after their own.
pub(crate) fn claim(config: &Config) -> Result<Claim, Error> {
    claim_in(Path::new(CLAIMS_DIR), config)
}

fn claim_in(dir: &Path, config: &Config) -> Result<Claim, Error> {
    let directory = |source| Error::Directory { path: dir.to_owned(), source };
    let Config { network, cgroup, .. } = config;
    let parent: Vec<&str> = cgroup.parent.split('/').filter(|part| !part.is_empty()).collect();
    let namespace = |kind| namespace(kind).map_err(directory);
    let file = file_name("cgroup", namespace("cgroup")?, &parent.join("/"));
    let mut names = vec![("parent cgroup", &cgroup.parent, file)];
    if config.network_mode().attaches_by_builtin() || hull_network::has_records(&config.bridge()) {
        let network_namespace = namespace("net")?;
        for (kind, name) in [("bridge", &network.bridge), ("table", &network.table)] {
            let file = file_name(&format!("network-{kind}"), network_namespace, name);
            names.push((kind, name, file));
        }
    }
    hull_records::create_dir(dir).map_err(|err| directory(io::Error::other(err)))?;
    let _changes = locked(dir).map_err(directory)?;
    remove_unheld(dir);
    let mut claim = Claim { dir: dir.to_owned(), held: Vec::new() };
    for (kind, name, file) in names {
        match hold(&dir.join(file)) {
            Ok(held) => claim.held.push(held),
            Err(refused) => {
                // Not by the end of the claim, which would wait for the lock that this holds.
                for (path, _) in std::mem::take(&mut claim.held) {
                    let _left = fs::remove_file(path);
                }
                return Err(refused.error(kind, name));
            }
        }
    }
    Ok(claim)
}

/// The number of this process's namespace of a kind.
fn namespace(kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/self/ns/{kind}")).map(|of| of.ino())
}

/// The file of a name, which may be a path, and of any length.
fn file_name(kind: &str, namespace: u64, name: &str) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let each = name.bytes().map(|byte| match Some(byte).filter(is_plain) {
        Some(plain) => char::from(plain).to_string(),
        None => format!("%{byte:02x}"),
    });
    let text: String = each.collect();
    if text.len() <= FILE_BYTES_MAX {
        return format!("{kind}-{namespace}-{text}");
    }
    format!("{kind}-{namespace}-%hash-{:016x}", fnv1a(name.as_bytes()))
}

/// Of every build the same, which the standard library's hashes are not.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The directory, which only root can enter, locked until it is closed.
fn locked(dir: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(dir)?;
    if opened.metadata()?.uid() != 0 {
        return Err(io::Error::other("it is another user's"));
    }
    opened.set_permissions(Permissions::from_mode(0o700))?;
    opened.lock()?;
    Ok(opened)
}

/// Removes the files of daemons that were killed. Called with the directory locked: nobody has opened one and not locked
/// it yet.
fn remove_unheld(dir: &Path) {
    let remove = |entry: DirEntry| -> io::Result<()> {
        let path = entry.path();
        let file = open(&path)?;
        if file.try_lock().is_ok() { fs::remove_file(&path) } else { Ok(()) }
    };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Err(error) = remove(entry) {
            warn!(path = %path.display(), %error, "a file among the claims of daemons is left");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A FIFO would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    options.custom_flags(flags.bits().cast_signed()).open(path)
}

/// Why a name cannot be held.
enum Refused {
    Taken { pid: String, command: String },
    Failed { path: PathBuf, source: io::Error },
}

impl Refused {
    fn error(self, kind: &'static str, name: &str) -> Error {
        let name = name.to_owned();
        match self {
            Self::Taken { pid, command } => Error::Taken { kind, name, pid, command },
            Self::Failed { path, source } => Error::Hold { kind, name, path, source },
        }
    }
}

/// Locks the file of a name, and writes into it who has.
fn hold(path: &Path) -> Result<(PathBuf, File), Refused> {
    let failed = |source| Refused::Failed { path: path.to_owned(), source };
    let mut file = open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(holder(&file)),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let text = format!("{}\n{}\n", std::process::id(), own_command());
    file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(failed)?;
    Ok((path.to_owned(), file))
}

/// The process that holds a name, by what it has written: its number there is that of its own pid namespace.
fn holder(file: &File) -> Refused {
    let mut text = Vec::new();
    let _unreadable = file.take(CLAIM_BYTES_MAX).read_to_end(&mut text);
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| hull_sys::text::shown(line, COMMAND_BYTES_MAX));
    let mut line = || lines.next().filter(|line| !line.is_empty()).unwrap_or_else(|| "?".into());
    Refused::Taken { pid: line(), command: line() }
}

fn own_command() -> String {
    let words = fs::read("/proc/self/cmdline").unwrap_or_default();
    let words: Vec<_> = words.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    hull_sys::text::shown(words.join(&b' '), COMMAND_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::{Cgroup, Network, NetworkMode};

    fn config(state_dir: &Path, bridge: &str, table: &str, parent: &str) -> Config {
        let network = Network { bridge: bridge.into(), table: table.into(), ..Network::default() };
        Config {
            network,
            state_dir: state_dir.to_owned(),
            cgroup: Cgroup { parent: parent.into(), ..Cgroup::default() },
            ..Config::default()
        }
    }

    #[test]
    fn what_is_held_is_free_when_its_holder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        let claims = dir.path().join("claims");
        let first = claim_in(&claims, &config(&ours, "b", "t", "/p")).unwrap();
        let mut cni = config(&theirs, "b", "t", "/other");
        cni.network.mode = NetworkMode::Cni;
        let others = claim_in(&claims, &cni).unwrap();
        let second = || claim_in(&claims, &config(&theirs, "b", "t", "/third"));
        let taken = second().unwrap_err();
        let Error::Taken { kind: "bridge", name, pid, command } = &taken else { panic!("{taken}") };
        assert_eq!((name.as_str(), pid), ("b", &std::process::id().to_string()));
        assert!(command.contains("hull"), "{command}");
        assert!(matches!(
            claim_in(&claims, &config(&theirs, "b2", "t2", "p//")),
            Err(Error::Taken { kind: "parent cgroup", .. })
        ));
        drop(first);
        let again = second().unwrap();

        // A daemon with pods on the bridge changes it, whatever attaches its new pods.
        drop((again, others));
        assert_eq!(fs::read_dir(&claims).unwrap().count(), 0, "nothing is left");
        drop(claim_in(&claims, &cni).unwrap());
        let leases = cni.bridge().state_dir;
        fs::create_dir_all(&leases).unwrap();
        fs::write(leases.join("pod.json"), "{}").unwrap();
        let _others = claim_in(&claims, &cni).unwrap();
        assert!(matches!(second(), Err(Error::Taken { kind: "bridge", .. })));
    }

    #[test]
    fn a_file_of_a_killed_daemon_is_free_and_only_root_can_reach_it() {
        let dir = tempfile::tempdir().unwrap();
        let claims = dir.path().join("claims");
        fs::create_dir(&claims).unwrap();
        fs::set_permissions(&claims, Permissions::from_mode(0o755)).unwrap();
        fs::write(claims.join("network-bridge-1-old"), "7\nhull serve\n").unwrap();
        let claim = claim_in(&claims, &config(dir.path(), "b", "t", "/p")).unwrap();
        assert!(!claims.join("network-bridge-1-old").try_exists().unwrap());
        assert_eq!(fs::metadata(&claims).unwrap().mode() & 0o777, 0o700);
        for (path, _) in &claim.held {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
        drop(claim);
        std::os::unix::fs::chown(&claims, Some(65534), None).unwrap();
        let refused = claim_in(&claims, &config(dir.path(), "b", "t", "/p")).unwrap_err();
        assert!(refused.hint().unwrap().contains("directory of root"), "{refused}");
    }

    #[test]
    fn different_names_have_different_files_and_long_ones_fit() {
        assert_ne!(file_name("cgroup", 1, "a/b"), file_name("cgroup", 1, "a-b"));
        assert_ne!(file_name("cgroup", 1, "a/b"), file_name("cgroup", 1, "a%2fb"));
        assert_ne!(file_name("cgroup", 1, "a"), file_name("cgroup", 2, "a"));
        let long = file_name("cgroup", 1, &"/x".repeat(2000));
        assert!(long.len() < 255 && long != file_name("cgroup", 1, &"/x".repeat(2001)));
        // As in every build before.
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
