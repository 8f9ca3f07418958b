// SPDX-License-Identifier: Apache-2.0
//! Sockets that take clients, from the kernel's tables of a network namespace: `proc_pid_net(5)`.

use crate::types::Protocol;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// States of `proc_pid_net(5)`: a TCP socket that listens, and a UDP socket without a peer.
const LISTENS: &str = "0A";
const NO_PEER: &str = "07";

/// A socket that takes clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Its own address; that of IPv4, if it is mapped into IPv6.
    pub ip: IpAddr,
    /// Its own port.
    pub port: u16,
    /// The inode number by which links in `/proc/<pid>/fd` name it.
    pub inode: u64,
}

/// The sockets of a protocol that take clients, from the tables in `dir`, such as `/proc/self/net`. For UDP these are
/// the sockets without a peer, those of clients among them; SCTP has no table. The namespace's owner decides how long
/// the tables are: of each, at most `bytes_max` are read. A table that cannot be read has none.
pub fn listeners(
    dir: &Path,
    protocol: Protocol,
    bytes_max: u64,
) -> impl Iterator<Item = Listener> + use<> {
    let (tables, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"].as_slice(), LISTENS),
        Protocol::Udp => (["udp", "udp6"].as_slice(), NO_PEER),
        Protocol::Sctp => ([].as_slice(), LISTENS),
    };
    let files = tables.iter().map(|table| File::open(dir.join(table))).collect::<Vec<_>>();
    files.into_iter().flatten().flat_map(move |file| {
        let lines = BufReader::new(file.take(bytes_max)).lines().map_while(Result::ok);
        lines.skip(1).filter_map(move |line| listener(&line, state))
    })
}

/// The socket of a line, if it has this state.
fn listener(line: &str, state: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != state {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { ip: ip(address)?, port, inode: fields.nth(5)?.parse().ok()? })
}

/// An address as the kernel prints it: words of 32 bits in hexadecimal digits, each in this machine's byte order.
fn ip(text: &str) -> Option<IpAddr> {
    if !matches!(text.len(), 8 | 32) {
        return None;
    }
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let six = Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?);
    Some(six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read_and_others_are_not() {
        let line = "  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1 x";
        let found = listener(line, LISTENS).unwrap();
        assert_eq!((found.ip, found.port, found.inode), (Ipv4Addr::UNSPECIFIED.into(), 8080, 4242));
        assert_eq!(listener(line, NO_PEER), None);
        for odd in [
            "",
            "0: x",
            "0: 0:0 0:0 0A",
            "0: ZZ:1F90 0:0 0A 0 0 0 0 0 1",
            "1: 0:0051 0:0 01 0:0 0:0 0 0 0 78",
            "0: 00000000:1F9099 0:0 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(listener(odd, LISTENS), None, "{odd}");
        }
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(ip(&format!("{local:08X}")), Some(Ipv4Addr::LOCALHOST.into()));
        let mapped =
            format!("{:08X}{:08X}{:08X}{local:08X}", 0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]));
        assert_eq!(ip(&mapped), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(ip("00"), None);
    }

    #[test]
    fn no_more_of_a_table_is_read_than_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let line = "0: 00000000:1F90 00000000:0000 0A 0 0 0 0 0 7 1 x\n";
        std::fs::write(dir.path().join("tcp"), format!("head\n{}", line.repeat(100))).unwrap();
        let found = |bytes_max| listeners(dir.path(), Protocol::Tcp, bytes_max).count();
        assert_eq!(found(1 << 20), 100);
        assert_eq!(found(5 + 10 * line.len() as u64), 10);
    }
}
