// SPDX-License-Identifier: Apache-2.0
//! Sockets on which a container on the host network listens: those in `/proc/<pid>/net` that one of its
//! processes has open. Links are read, never followed.

use super::procfs::{FILE_BYTES_MAX, read_at};
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd};

/// Limit on the number of descriptors of a process.
const DESCRIPTORS_MAX: usize = 65_536;
/// Limit on the number of reported sockets.
const SOCKETS_MAX: usize = 100;
/// `LISTEN` of TCP, and an unconnected UDP socket (`TCP_CLOSE`).
const STATES: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

/// Adds the inode numbers of the sockets that a process has open. `dir` is its directory in /proc.
pub(super) fn sockets(dir: BorrowedFd<'_>, found: &mut BTreeSet<u64>) {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // A process that has ended has none.
    let Ok(entries) = openat(dir, "fd", how, Mode::empty()).and_then(Dir::new) else { return };
    for entry in entries.flatten().take(DESCRIPTORS_MAX) {
        let path = [b"fd/", entry.file_name().to_bytes()].concat();
        let Ok(link) = readlinkat(dir, path.as_slice(), Vec::new()) else { continue };
        let Ok(link) = link.into_string() else { continue };
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        found.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
}

/// The open sockets (`held`, by inode number) that listen, as `tcp 0.0.0.0:80`.
pub(super) fn listening(dir: BorrowedFd<'_>, held: &BTreeSet<u64>) -> Vec<String> {
    let mut all = BTreeSet::new();
    for (protocol, state) in STATES {
        let text =
            read_at(dir.as_fd(), &format!("net/{protocol}"), FILE_BYTES_MAX).unwrap_or_default();
        let lines = text.lines().skip(1).filter_map(|line| listener(line, state));
        let ours = lines.filter(|(_, inode)| held.contains(inode));
        all.extend(
            ours.map(|(address, _)| format!("{} {address}", protocol.trim_end_matches('6'))),
        );
    }
    all.into_iter().take(SOCKETS_MAX).collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`, `proc_pid_net(5)`.
fn listener(line: &str, wanted: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, remote, state) = (words.get(1)?, words.get(2)?, words.get(3)?);
    if *state != wanted || !remote.ends_with(":0000") {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = address_of(address)?;
    let shown =
        if address.is_ipv6() { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    Some((shown, words.get(9)?.parse().ok()?))
}

/// Parses an address in words of 32 bits, in the byte order of the machine.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words: Option<Vec<[u8; 4]>> = (0..4).map(|index| word(index * 8)).collect();
            let bytes: [u8; 16] = words?.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_have_their_address() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0";
        assert_eq!(listener(line, "0A"), Some(("127.0.0.1:8080".into(), 77)));
        let six = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 78 1";
        assert_eq!(listener(six, "0A"), Some(("[::1]:80".into(), 78)));
    }

    #[test]
    fn connections_and_invalid_lines_are_skipped() {
        for line in [
            "",
            "0: 0100007F:1F90 0100007F:0050 01 0 0 0 0 0 77",
            "0: 0100007F 00000000:0000 0A 0 0 0 0 0 77",
            "0: 01007F:1F90 00000000:0000 0A 0 0 0 0 0 77",
            "0: 0100007F:1F90 00000000:0000 0A 0 0 0 0 0 x",
            "0: é10000:1F90 00000000:0000 0A 0 0 0 0 0 77",
        ] {
            assert_eq!(listener(line, "0A"), None, "{line}");
        }
    }
}
