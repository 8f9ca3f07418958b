// SPDX-License-Identifier: Apache-2.0
//! Host ports on which a process of the node listens.
//!
//! The rules that publish a port come before the sockets of the node, so such a process would be cut off from its
//! clients without a word. The rule: a pod is refused only where the process would lose all of them. A process that
//! listens at one address of the node, loopback among them, loses the clients of that address: a remark says so.

use crate::listeners::{Listener, listeners};
use crate::types::{PortMapping, Protocol};
use hull_sys::text::shown;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Where the kernel lists the sockets of this thread's network namespace: proc_pid_net(5).
const TABLES: &str = "/proc/thread-self/net";
/// First and last of the ports that the kernel gives to clients: ip(7).
const CLIENT_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Most bytes of a table that are read: a node has hundreds of thousands of sockets.
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// An address of loopback that no program uses: only a wildcard keeps a socket from it.
const UNUSED_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 254);
/// Longest name of a process in messages, in bytes.
const NAME_MAX: usize = 60;
/// Programs that a node needs: no hint suggests to stop them.
const OF_THE_NODE: [&str; 12] = [
    "containerd",
    "crio",
    "dockerd",
    "etcd",
    "hull",
    "init",
    "kube-apiserver",
    "kube-proxy",
    "kubelet",
    "sshd",
    "systemd",
    "NetworkManager",
];

/// The address families of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Families {
    fn have(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// A process that has a socket at a host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The name of its program, escaped, and its pid; `None` if it could not be found.
    process: Option<(String, u32)>,
}

impl Holder {
    /// Whether it may be stopped without harm to the node as a whole.
    pub(crate) fn may_be_stopped(&self) -> bool {
        self.process.as_ref().is_some_and(|(name, pid)| {
            let is_needed = |of: &&str| {
                name == of
                    || name.starts_with(&format!("{of}-"))
                    || name.starts_with(&format!("{of}:"))
            };
            *pid != 1 && *pid != std::process::id() && !OF_THE_NODE.iter().any(is_needed)
        })
    }
}

/// Formats as in "`nginx` (pid 812)".
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((name, pid)) => write!(f, "`{name}` (pid {pid})"),
            None => f.write_str("a process"),
        }
    }
}

/// The effect of a published port on the processes of the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// No process loses clients.
    Free,
    /// This process loses the clients of one address.
    InPart { ip: IpAddr, holder: Holder },
    /// This process loses all clients that the mapping reaches; it listens at this address.
    Whole { ip: IpAddr, holder: Holder },
}

/// Looks for processes that listen on the port.
pub(crate) fn held(port: &PortMapping, families: Families) -> Held {
    if !addresses(port).into_iter().any(|address| is_in_use(port.protocol, address)) {
        return Held::Free;
    }
    // Sockets that are connected from this port do not count.
    let found = reached(Path::new(TABLES), port, client_ports());
    let takes_v4 = || {
        let address = SocketAddr::new(UNUSED_LOOPBACK.into(), port.host_port);
        is_in_use(port.protocol, address)
    };
    if let Some(of) = found.iter().find(|of| loses_all(of.ip, port, families, takes_v4)) {
        return Held::Whole { ip: of.ip, holder: holder(of.inode) };
    }
    match found.iter().find(|of| !of.ip.is_unspecified() && families.have(of.ip)) {
        Some(of) => Held::InPart { ip: of.ip, holder: holder(of.inode) },
        None => Held::Free,
    }
}

/// The addresses at which a mapping is published.
fn addresses(port: &PortMapping) -> Vec<SocketAddr> {
    let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let all = port.only_at().map_or_else(|| any.to_vec(), |ip| vec![ip]);
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

/// Whether the mapping takes all clients of a socket at `ip` that are of the pods' families. `takes_v4` says whether a
/// wildcard of IPv6 takes clients of IPv4, too.
fn loses_all(
    ip: IpAddr,
    port: &PortMapping,
    families: Families,
    takes_v4: impl Fn() -> bool,
) -> bool {
    if port.only_at().is_some() {
        return true;
    }
    match ip {
        IpAddr::V4(ip) => ip.is_unspecified() && families.v4,
        IpAddr::V6(ip) => ip.is_unspecified() && (families.v6 || families.v4 && takes_v4()),
    }
}

/// The sockets whose clients the mapping reaches, from the tables below `dir`. UDP sockets without a peer are of
/// clients, too, at the ports that the kernel gives to those: these are left out.
fn reached(dir: &Path, port: &PortMapping, clients: RangeInclusive<u16>) -> Vec<Listener> {
    if port.protocol == Protocol::Udp && clients.contains(&port.host_port) {
        return Vec::new();
    }
    let wanted = port.only_at();
    let is_meant = |listener: &Listener| match wanted {
        // A wildcard of IPv6 takes IPv4, too.
        Some(ip) => listener.ip == ip || listener.ip.is_unspecified(),
        None => listener.ip.is_unspecified() || port.is_for(listener.ip),
    };
    let all = listeners(dir, port.protocol, TABLE_BYTES_MAX);
    all.filter(|of| of.port == port.host_port).filter(is_meant).collect()
}

/// The ports that the kernel gives to clients; those of its default where they cannot be read.
fn client_ports() -> RangeInclusive<u16> {
    let text = fs::read_to_string(CLIENT_PORTS).unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}

/// A process that has the socket open. Pid 1 opens sockets for services that start later, so another one is preferred.
fn holder(inode: u64) -> Holder {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let has = |pid: u32| {
        // It may have ended meanwhile.
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|of| of == wanted))
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| *pid != 1).find(|pid| has(*pid));
    let pid = found.or_else(|| has(1).then_some(1));
    Holder { process: pid.map(|pid| (name_of(pid), pid)) }
}

/// The name of a process, which the process itself sets.
fn name_of(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    shown(name.trim_ascii_end(), NAME_MAX).replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    const BOTH: Families = Families { v4: true, v6: true };
    const V4: Families = Families { v4: true, v6: false };

    fn mapping(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { protocol, container_port: 80, host_port, host_ip }
    }

    fn process(name: &str, pid: u32) -> Holder {
        Holder { process: Some((name.into(), pid)) }
    }

    #[test]
    fn a_process_that_listens_at_every_address_is_named() {
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let me = format!("(pid {})", std::process::id());
        for host_ip in [None, Some("0.0.0.0"), Some("127.0.0.1")] {
            let held = held(&mapping(Protocol::Tcp, host_ip, port), V4);
            assert!(
                matches!(&held, Held::Whole { ip, holder } if ip.is_unspecified() && holder.to_string().ends_with(&me)),
                "{host_ip:?}: {held:?}"
            );
        }
        drop(tcp);
    }

    #[test]
    fn a_process_that_listens_at_one_address_holds_that_address() {
        let alone = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = alone.local_addr().unwrap().port();
        let of_all = held(&mapping(Protocol::Tcp, None, port), BOTH);
        assert!(
            matches!(&of_all, Held::InPart { ip, .. } if *ip == Ipv4Addr::LOCALHOST),
            "{of_all:?}"
        );
        let there = held(&mapping(Protocol::Tcp, Some("127.0.0.1"), port), BOTH);
        assert!(
            matches!(&there, Held::Whole { ip, .. } if *ip == Ipv4Addr::LOCALHOST),
            "{there:?}"
        );
        assert_eq!(held(&mapping(Protocol::Tcp, Some("127.0.0.2"), port), BOTH), Held::Free);
    }

    #[test]
    fn clients_hold_no_port() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(held(&mapping(Protocol::Tcp, None, port), BOTH), Held::Free);
        // The kernel chose its port, as for a client.
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        assert_eq!(held(&mapping(Protocol::Udp, None, port), BOTH), Held::Free);
    }

    #[test]
    fn a_wildcard_counts_for_the_families_of_the_pods() {
        let at = |ip: &str| ip.parse().unwrap();
        let v6 = Families { v4: false, v6: true };
        let all = mapping(Protocol::Tcp, None, 80);
        for (ip, families, takes_v4, wanted) in [
            ("0.0.0.0", V4, true, true),
            ("0.0.0.0", v6, true, false),
            ("::", V4, true, true),
            ("::", V4, false, false),
            ("::", v6, false, true),
            ("169.254.20.10", BOTH, true, false),
            ("192.168.122.1", BOTH, true, false),
            ("::1", BOTH, true, false),
        ] {
            assert_eq!(loses_all(at(ip), &all, families, || takes_v4), wanted, "{ip} {families:?}");
        }
        let one = mapping(Protocol::Tcp, Some("192.168.122.1"), 80);
        assert!(loses_all(at("192.168.122.1"), &one, BOTH, || false));
    }

    #[test]
    fn udp_sockets_at_ports_of_servers_count() {
        let dir = tempfile::tempdir().unwrap();
        let line =
            "0: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 77 2 x 0";
        fs::write(dir.path().join("udp"), format!("head\n{line}\n")).unwrap();
        let dns = mapping(Protocol::Udp, None, 53);
        assert_eq!(reached(dir.path(), &dns, 32_768..=60_999).len(), 1);
        assert_eq!(reached(dir.path(), &dns, 1..=60_999), Vec::new());
        assert!(client_ports().end() > &1024);
    }

    #[test]
    fn nobody_is_told_to_stop_what_the_node_needs() {
        assert!(process("nginx", 812).may_be_stopped());
        for (name, pid) in [
            ("systemd", 1),
            ("x", 1),
            ("kubelet", 9),
            ("hull", 9),
            ("systemd-resolve", 9),
            ("sshd", 9),
        ] {
            assert!(!process(name, pid).may_be_stopped(), "{name}");
        }
        assert!(!process("x", std::process::id()).may_be_stopped());
        assert!(!Holder { process: None }.may_be_stopped());
        assert_eq!(process("nginx", 812).to_string(), "`nginx` (pid 812)");
        assert!(!name_of(std::process::id()).is_empty());
    }
}
