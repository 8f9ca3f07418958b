// SPDX-License-Identifier: Apache-2.0
//! The processes that listen on a port, from `/proc/<pid>/net/tcp` and its like. `proc_pid_net(5)`.

use super::facts::Listener;
use hull_sys::text::shown;
use std::fs;

/// `TCP_LISTEN`; sockets of UDP that are bound have `TCP_CLOSE`.
const LISTENS: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];
/// Most descriptors that are looked at to find a socket's process.
const DESCRIPTORS_MAX: usize = 50_000;
/// Longest name of a process in a message, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The listeners on `ports` in the network namespace of `process`, a pid or `self`.
pub(super) fn of(process: &str, ports: &[u16]) -> Vec<Listener> {
    let mut found: Vec<Listener> = Vec::new();
    for (file, state) in LISTENS {
        let table = fs::read_to_string(format!("/proc/{process}/net/{file}")).unwrap_or_default();
        for (port, inode) in parse(&table, state) {
            if ports.contains(&port) && found.iter().all(|known| known.port != port) {
                found.push(Listener { port, holder: holder(inode) });
            }
        }
    }
    found
}

/// Ports and inodes of the sockets of a table with that state.
fn parse<'t>(table: &'t str, state: &'t str) -> impl Iterator<Item = (u16, u64)> + 't {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let (is, inode) = (fields.nth(1)?, fields.nth(5)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        Some((port, inode.parse().ok()?)).filter(|_| is == state)
    })
}

/// The process that has a socket: `nginx (pid 42)`.
fn holder(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let mut left = DESCRIPTORS_MAX;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        for descriptor in fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten() {
            left = left.checked_sub(1)?;
            if fs::read_link(descriptor.path())
                .is_ok_and(|link| link.as_os_str() == wanted.as_str())
            {
                let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(format!(
                    "process {} (pid {pid})",
                    shown(command.trim(), NAME_BYTES_MAX)
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = of("self", &[port]);
        assert_eq!(found.len(), 1);
        let holder = found[0].holder.as_deref().unwrap_or_default();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
        drop(listener);
        assert!(of("self", &[port]).is_empty());
    }

    #[test]
    fn other_states_and_broken_lines_are_left_out() {
        let table = "head\n 0: 0100007F:0050 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n 1: 0:0051 0:0 01 0:0 0:0 0 0 0 78\n 2: x\n";
        assert_eq!(parse(table, "0A").collect::<Vec<_>>(), [(80, 77)]);
    }
}
