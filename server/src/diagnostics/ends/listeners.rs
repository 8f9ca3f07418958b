// SPDX-License-Identifier: Apache-2.0
//! The processes of a pod that listen on a port.
//!
//! A pod decides how long these tables are and how many descriptors its processes have, so all of it is bounded.

use super::facts::Listener;
use hull_network::Protocol;
use hull_sys::text::shown;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most ports that are looked for.
const PORTS_MAX: usize = 4;
/// Most bytes of a table that are read.
const TABLE_BYTES_MAX: u64 = 1 << 20;
/// Most time for the search for processes.
const SEARCH_MAX: Duration = Duration::from_millis(200);
/// Longest name of a process in a message, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The listeners on `ports` in the network namespace of `process`, a pid or `self`; named if they are among `pids`, the
/// processes of the pod.
pub(super) fn of(process: &str, ports: &[u16], pids: &[i32]) -> Vec<Listener> {
    let ports = &ports[..ports.len().min(PORTS_MAX)];
    let tables = PathBuf::from(format!("/proc/{process}/net"));
    let mut found: Vec<(u16, u64)> = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for of in hull_network::listeners(&tables, protocol, TABLE_BYTES_MAX) {
            if ports.contains(&of.port) && found.iter().all(|(known, _)| *known != of.port) {
                found.push((of.port, of.inode));
            }
        }
    }
    let holders = if found.is_empty() { Vec::new() } else { holders(&found, pids) };
    let named =
        |inode| holders.iter().find(|(held, _)| *held == inode).map(|(_, name)| name.clone());
    found.into_iter().map(|(port, inode)| Listener { port, holder: named(inode) }).collect()
}

/// The processes that have these sockets, by inode: `process nginx (pid 42)`.
fn holders(sockets: &[(u16, u64)], pids: &[i32]) -> Vec<(u64, String)> {
    let until = Instant::now() + SEARCH_MAX;
    let mut found: Vec<(u64, String)> = Vec::new();
    for pid in pids {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if found.len() == sockets.len() || Instant::now() > until {
                return found;
            }
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            let inode = link.to_str().and_then(|link| {
                link.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            });
            let inode = inode.filter(|inode| sockets.iter().any(|(_, of)| of == inode));
            let Some(inode) = inode.filter(|inode| found.iter().all(|(of, _)| of != inode)) else {
                continue;
            };
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let name = format!("process {} (pid {pid})", shown(command.trim(), NAME_BYTES_MAX));
            found.push((inode, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_and_named_if_it_is_of_the_pod() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = of("self", &[port], &[own]);
        assert_eq!(found.len(), 1);
        let holder = found[0].holder.as_deref().unwrap_or_default();
        assert!(holder.ends_with(&format!("(pid {own})")), "{holder}");
        let stranger = of("self", &[port], &[]);
        assert_eq!(stranger, [Listener { port, holder: None }], "a process of somebody else");
        assert!(of("self", &[0, 0, 0, 0, port], &[own]).is_empty(), "too many ports");
    }
}
