// SPDX-License-Identifier: Apache-2.0
//! The host's resolv.conf for pods without a DNS config, resolv.conf(5). Servers on loopback, such as the stub of
//! systemd-resolved at 127.0.0.53, answer nothing in a pod with a network of its own; then its upstream servers count.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// The host's own file.
const OWN: &str = "/etc/resolv.conf";
/// The servers behind the stub: systemd-resolved.service(8).
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The resolv.conf of pods with a network of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PodDns {
    /// The host's file, as it is.
    Own(String),
    /// The host's file without its servers on loopback.
    WithoutLoopback(String),
    /// The upstream servers of systemd-resolved.
    Upstream(String),
    /// The host's file, all of whose servers are on loopback: names cannot be resolved.
    Unreachable(String),
}

impl PodDns {
    /// Reads the host's files.
    pub(crate) fn read() -> Self {
        choose(own(), || read(UPSTREAM))
    }

    /// The content of /etc/resolv.conf.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Own(text)
            | Self::WithoutLoopback(text)
            | Self::Upstream(text)
            | Self::Unreachable(text) => text,
        }
    }
}

/// The host's own file, which holds for pods on its network; empty where it cannot be read.
pub(crate) fn own() -> String {
    read(OWN).unwrap_or_default()
}

fn read(path: &str) -> Option<String> {
    let metadata = fs::metadata(Path::new(path)).ok()?;
    (metadata.is_file() && metadata.len() <= FILE_BYTES_MAX)
        .then(|| fs::read_to_string(path).ok())?
}

fn choose(own: String, upstream: impl FnOnce() -> Option<String>) -> PodDns {
    let (loopback, other) = servers(&own);
    match (loopback, other) {
        (0, _) => PodDns::Own(own),
        (_, 0) => match upstream().filter(|text| servers(text).1 > 0) {
            Some(text) => PodDns::Upstream(without_loopback(&text)),
            None => PodDns::Unreachable(own),
        },
        _ => PodDns::WithoutLoopback(without_loopback(&own)),
    }
}

/// The numbers of servers on loopback, and of others.
fn servers(text: &str) -> (usize, usize) {
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    let (loopback, other): (Vec<_>, Vec<_>) =
        text.lines().filter(is_server).partition(|line| is_loopback(line));
    (loopback.len(), other.len())
}

fn is_loopback(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten();
    address.and_then(|text| text.parse::<IpAddr>().ok()).is_some_and(|ip| ip.is_loopback())
}

fn without_loopback(text: &str) -> String {
    text.lines().filter(|line| !is_loopback(line)).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_loopback_are_replaced() {
        let stub =
            "# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        let upstream = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch lan\n";
        let chosen = |own: &str, upstream: Option<&str>| {
            choose(own.to_owned(), || upstream.map(str::to_owned))
        };
        assert_eq!(chosen(stub, Some(upstream)), PodDns::Upstream(upstream.into()));
        assert_eq!(chosen(stub, None), PodDns::Unreachable(stub.into()));
        assert_eq!(chosen(stub, Some(stub)), PodDns::Unreachable(stub.into()));
        assert_eq!(chosen("nameserver ::1\n", Some(upstream)), PodDns::Upstream(upstream.into()));
        assert_eq!(
            chosen("nameserver 127.0.0.1\nnameserver 192.0.2.7\nsearch a\n", Some(upstream)),
            PodDns::WithoutLoopback("nameserver 192.0.2.7\nsearch a\n".into())
        );
        for plain in [
            "",
            "search lan\n",
            "nameserver 192.0.2.7\n",
            "nameserver\n",
            "nameservers 127.0.0.1\n",
        ] {
            assert_eq!(chosen(plain, Some(upstream)), PodDns::Own(plain.into()), "{plain:?}");
        }
    }
}
