// SPDX-License-Identifier: Apache-2.0
//! Host ports on which a process of the node listens.
//!
//! The rules that publish a port come before the sockets of the node, so such a process would be cut off from its
//! clients without a word. A process that listens on loopback alone keeps the clients that it can have from outside:
//! none, so it holds no port.

use crate::types::{PortMapping, Protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where the kernel lists the sockets of this thread's network namespace: proc_pid_net(5).
const TABLES: &str = "/proc/thread-self/net";
/// States of proc_pid_net(5): a TCP socket that listens, and a UDP socket without a peer.
const LISTENS: &str = "0A";
const NO_PEER: &str = "07";

/// The process that listens on this port, as in `nginx (pid 812)`; `None` if none does.
pub(crate) fn holder(port: &PortMapping) -> Option<String> {
    if !addresses(port).into_iter().any(|address| is_in_use(port.protocol, address)) {
        return None;
    }
    // Sockets that are connected from this port do not count.
    let listeners = listeners(Path::new(TABLES), port);
    let inode = listeners.first()?.inode;
    Some(process_of(inode).unwrap_or_else(|| "a process".to_owned()))
}

/// The addresses at which a mapping is published.
fn addresses(port: &PortMapping) -> Vec<SocketAddr> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let all = port.host_ip.map_or_else(|| any.to_vec(), |ip| vec![ip]);
    all.into_iter().map(|ip| SocketAddr::new(ip, port.host_port)).collect()
}

/// Whether a socket cannot be bound to the address because of another one. Nothing listens meanwhile.
fn is_in_use(protocol: Protocol, address: SocketAddr) -> bool {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        // Its sockets are in none of the tables.
        Protocol::Sctp => return false,
    };
    let Ok(socket) = socket_with(family, kind, SocketFlags::CLOEXEC, None) else { return false };
    // Connections that ended a moment ago do not count.
    let reuse = protocol == Protocol::Tcp && sockopt::set_socket_reuseaddr(&socket, true).is_err();
    let only = address.is_ipv6() && sockopt::set_ipv6_v6only(&socket, true).is_err();
    if reuse || only {
        return false;
    }
    bind(&socket, &address) == Err(Errno::ADDRINUSE)
}

/// A socket that takes clients.
#[derive(Debug, PartialEq, Eq)]
struct Listener {
    ip: IpAddr,
    inode: u64,
}

/// The sockets that clients of the mapping reach, from the tables below `dir`.
fn listeners(dir: &Path, port: &PortMapping) -> Vec<Listener> {
    let (tables, state) = match port.protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENS),
        Protocol::Udp => (["udp", "udp6"], NO_PEER),
        Protocol::Sctp => return Vec::new(),
    };
    let wanted = port.only_at();
    let is_meant = |listener: &Listener| match wanted {
        // A wildcard of IPv6 takes IPv4, too.
        Some(ip) => listener.ip == ip || listener.ip.is_unspecified(),
        None => {
            !listener.ip.is_loopback() && (listener.ip.is_unspecified() || port.is_for(listener.ip))
        }
    };
    let texts = tables.iter().filter_map(|table| fs::read_to_string(dir.join(table)).ok());
    let mut found = Vec::new();
    for text in texts {
        let lines = text.lines().skip(1).filter_map(|line| listener(line, port.host_port, state));
        found.extend(lines.filter(is_meant));
    }
    found
}

/// The socket of a line, if it has this port and state.
fn listener(line: &str, port: u16, state: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace();
    let (address, number) = fields.nth(1)?.split_once(':')?;
    if u16::from_str_radix(number, 16) != Ok(port) || fields.nth(1)? != state {
        return None;
    }
    Some(Listener { ip: ip(address)?, inode: fields.nth(5)?.parse().ok()? })
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

/// The name and pid of a process that has the socket open.
fn process_of(inode: u64) -> Option<String> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        if files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|of| of == wanted)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn mapping(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol, container_port: 80, host_port, host_ip }
    }

    #[test]
    fn a_process_that_listens_is_named() {
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let me = format!("(pid {})", std::process::id());
        for host_ip in [None, Some("0.0.0.0"), Some("127.0.0.1")] {
            let holder = holder(&mapping(Protocol::Tcp, host_ip, port)).unwrap();
            assert!(holder.ends_with(&me), "{host_ip:?}: {holder}");
        }
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(holder(&mapping(Protocol::Udp, None, port)).unwrap().ends_with(&me));
        drop(tcp);
        drop(udp);
    }

    #[test]
    fn clients_and_listeners_on_loopback_alone_hold_no_port() {
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = alone.local_addr().unwrap();
        assert_eq!(holder(&mapping(Protocol::Tcp, None, address.port())), None);
        assert!(holder(&mapping(Protocol::Tcp, Some("127.0.0.1"), address.port())).is_some());
        let client = TcpStream::connect(address).unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(holder(&mapping(Protocol::Tcp, None, port)), None);
        let talks = UdpSocket::bind("0.0.0.0:0").unwrap();
        talks.connect(address).unwrap();
        let port = talks.local_addr().unwrap().port();
        assert_eq!(holder(&mapping(Protocol::Udp, None, port)), None);
    }

    #[test]
    fn lines_of_the_kernel_are_read_and_others_are_not() {
        let line = "  0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1 x";
        let found = listener(line, 8080, LISTENS).unwrap();
        assert_eq!((found.ip, found.inode), (Ipv4Addr::UNSPECIFIED.into(), 4242));
        assert_eq!(listener(line, 8081, LISTENS), None);
        assert_eq!(listener(line, 8080, NO_PEER), None);
        for odd in ["", "0: x", "0: 0:0 0:0 0A", "0: ZZ:1F90 0:0 0A 0 0 0 0 0 1"] {
            assert_eq!(listener(odd, 8080, LISTENS), None, "{odd}");
        }
        let local = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(ip(&format!("{local:08X}")), Some(Ipv4Addr::LOCALHOST.into()));
        let mapped =
            format!("{:08X}{:08X}{:08X}{local:08X}", 0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]));
        assert_eq!(ip(&mapped), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(ip("00"), None);
    }
}
