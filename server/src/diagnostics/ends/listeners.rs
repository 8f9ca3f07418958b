// SPDX-License-Identifier: Apache-2.0
//! The processes that listen on a port, from `/proc/<pid>/net/tcp` and its like. `proc_pid_net(5)`.
//!
//! A pod decides how long these tables are and how many descriptors its processes have, so all of it is bounded.

use super::facts::Listener;
use hull_sys::text::shown;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::time::{Duration, Instant};

/// `TCP_LISTEN`; sockets of UDP that are bound have `TCP_CLOSE`.
const LISTENS: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];
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
    let mut found: Vec<(u16, u64)> = Vec::new();
    for (file, state) in LISTENS {
        let Ok(table) = File::open(format!("/proc/{process}/net/{file}")) else { continue };
        let lines = BufReader::new(table.take(TABLE_BYTES_MAX)).lines().map_while(Result::ok);
        for (port, inode) in parse(lines, state) {
            if ports.contains(&port) && found.iter().all(|(known, _)| *known != port) {
                found.push((port, inode));
            }
        }
    }
    let holders = if found.is_empty() { Vec::new() } else { holders(&found, pids) };
    let named =
        |inode| holders.iter().find(|(held, _)| *held == inode).map(|(_, name)| name.clone());
    found.into_iter().map(|(port, inode)| Listener { port, holder: named(inode) }).collect()
}

/// Ports and inodes of the sockets of a table with that state.
fn parse<'t>(
    lines: impl Iterator<Item = String> + 't,
    state: &'t str,
) -> impl Iterator<Item = (u16, u64)> + 't {
    lines.skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let (is, inode) = (fields.nth(1)?, fields.nth(5)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        Some((port, inode.parse().ok()?)).filter(|_| is == state)
    })
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

    #[test]
    fn other_states_and_broken_lines_are_left_out() {
        let table = "head\n 0: 0100007F:0050 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n 1: 0:0051 0:0 01 0:0 0:0 0 0 0 78\n 2: x\n";
        let lines = table.lines().map(str::to_owned);
        assert_eq!(parse(lines, "0A").collect::<Vec<_>>(), [(80, 77)]);
    }
}
