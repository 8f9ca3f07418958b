// SPDX-License-Identifier: Apache-2.0
//! One daemon for a bridge, one for an nftables table, and one for a parent cgroup: a daemon sweeps what it finds of
//! pods that it does not know, so a second one with the same names would end the first one's pods.
//!
//! ```text
//! \0hull-network-bridge-<name>, \0hull-network-table-<name>, \0hull-cgroup-<parent>
//!                                                        held as long as the daemon lives
//! ```
//!
//! Names of abstract sockets belong to a network namespace, as bridges and tables do, and the kernel takes them away
//! with the process, however it ends (`unix(7)`). Anybody in the namespace can hold such a name: only root beside this
//! daemon is believed to be another one, others are passed over.

use crate::config::Config;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use tracing::warn;

/// Namespaces that all daemons of a host have in common.
const SHARED: [&str; 2] = ["pid", "user"];
/// How much of a cgroup's path fits the name of a socket (108 bytes, `unix(7)`) behind its prefix.
const CGROUP_BYTES_MAX: usize = 90;
/// How much of a command line stands in a message, in bytes.
const COMMAND_BYTES_MAX: usize = 200;

/// Why the names of the pods' network are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("use {kind} `{name}`: the daemon with process id {pid} (`{command}`) uses it")]
    Taken { kind: &'static str, name: String, pid: i32, command: String },
    #[error("hold the name of {kind} `{name}` as a socket")]
    Hold { kind: &'static str, name: String, source: io::Error },
}

impl Error {
    /// Advice for the operator, if there is any.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { .. } => Some(
                "stop the other daemon, or give this one its own `cgroup.parent`, `network.bridge`, `network.table` and `network.pod_cidr`".into(),
            ),
            Self::Hold { .. } => None,
        }
    }
}

/// The names that this daemon holds.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "held, not looked at")] Vec<UnixListener>);

/// Holds the names of the parent cgroup and of the built-in network, if that attaches new pods or has attached earlier
/// ones. CNI plugins look after their own.
pub(crate) fn claim(config: &Config) -> Result<Claim, Error> {
    let Config { network, cgroup, .. } = config;
    let mut names = vec![("parent cgroup", &cgroup.parent, cgroup_socket(&cgroup.parent))];
    if config.network_mode().attaches_by_builtin() || hull_network::has_records(&config.bridge()) {
        for (kind, name) in [("bridge", &network.bridge), ("table", &network.table)] {
            names.push((kind, name, format!("hull-network-{kind}-{name}")));
        }
    }
    let mut held = Vec::new();
    for (kind, name, socket) in names {
        let bound = SocketAddr::from_abstract_name(&socket)
            .and_then(|address| UnixListener::bind_addr(&address));
        match bound {
            Ok(listener) => held.push(listener),
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => match holder(&socket) {
                Some(pid) => {
                    let (name, command) = (name.clone(), command(pid));
                    return Err(Error::Taken { kind, name, pid, command });
                }
                None => warn!(
                    name = socket,
                    "the name of this daemon's {kind} is held by a process that is not a daemon; another daemon would not be noticed"
                ),
            },
            Err(source) => return Err(Error::Hold { kind, name: name.clone(), source }),
        }
    }
    Ok(Claim(held))
}

/// The name for a parent cgroup. A path may be longer than such a name: then its hash stands for it.
fn cgroup_socket(parent: &str) -> String {
    let path: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    let path = path.join("/");
    if path.len() <= CGROUP_BYTES_MAX {
        return format!("hull-cgroup-{path}");
    }
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    format!("hull-cgroup-hash-{:016x}", hasher.finish())
}

/// The process that listens there, if it may be a daemon: root in our pid and user namespaces.
fn holder(name: &str) -> Option<i32> {
    let socket = reach(name).ok()?;
    let peer = hull_sys::peer(socket.as_fd());
    let peer = peer.ok().filter(|peer| peer.uid == 0 && peer.pid > 0)?;
    // The number may be another process's by now.
    if !is_alive(&socket) {
        return None;
    }
    let is_shared = SHARED.iter().all(|kind| {
        let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", peer.pid));
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"));
        matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
    });
    is_shared.then_some(peer.pid)
}

/// Whether the process that listens there is still the one that began to. Kernels before 6.5 do not tell.
fn is_alive(socket: &OwnedFd) -> bool {
    match hull_sys::peer_pidfd(socket.as_fd()) {
        Ok(pidfd) => hull_sys::pidfd_send_signal(pidfd.as_fd(), 0).is_ok(),
        Err(err) => err.errno() == Errno::NOPROTOOPT,
    }
}

/// Connects without waiting: nobody there takes connections.
fn reach(name: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(socket)
}

fn command(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    hull_sys::text::shown(words.join(&b' '), COMMAND_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::{Cgroup, Network, NetworkMode};
    use std::path::Path;

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
        let unique = |kind| format!("{kind}{}", std::process::id());
        let (bridge, table) = (unique("b"), unique("t"));
        let parent = unique("/");
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        let first = claim(&config(&ours, &bridge, &table, &parent)).unwrap();
        let mut cni = config(&theirs, &bridge, &table, &unique("/other"));
        cni.network.mode = NetworkMode::Cni;
        let others = claim(&cni).unwrap();
        drop(first);
        let again = claim(&config(&ours, &bridge, &table, &parent)).unwrap();

        // A daemon with pods on the bridge changes it, whatever attaches its new pods.
        drop((again, others));
        let name = SocketAddr::from_abstract_name(format!("hull-network-bridge-{bridge}")).unwrap();
        let is_held = || UnixListener::bind_addr(&name).is_err();
        let others = claim(&cni).unwrap();
        assert!(!is_held());
        drop(others);
        let leases = cni.bridge().state_dir;
        fs::create_dir_all(&leases).unwrap();
        fs::write(leases.join("pod.json"), "{}").unwrap();
        let _others = claim(&cni).unwrap();
        assert!(is_held());
    }

    #[test]
    fn spellings_of_a_parent_cgroup_are_one_and_long_ones_fit() {
        assert_eq!(cgroup_socket("/hull"), cgroup_socket("hull//"));
        let long = cgroup_socket(&"/x".repeat(2000));
        assert!(long.len() < 108 && long != cgroup_socket(&"/x".repeat(2001)));
    }
}
