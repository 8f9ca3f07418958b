// SPDX-License-Identifier: Apache-2.0
//! Causes in the network (pure): ports, names, peers.

use super::clues::Clue;
use super::facts::Facts;
use super::inference::{Inference, likely};
use super::phrases::Phrase;
use crate::oci_spec::DEFAULT_CAPABILITIES;
use hull_plan::Layer;

/// A bind to a port below the first free one, without the capability.
pub(super) fn privileged_port(clue: &Clue, facts: &Facts) -> Option<Inference> {
    let binds = ["bind", "listen", "binding", "sock_bind"].iter().any(|word| clue.has_word(word));
    // A socket of a path has no port.
    let names_path = clue.paths().next().is_some();
    if !binds || names_path || facts.has_capability("NET_BIND_SERVICE") {
        return None;
    }
    let is_low = |port: &&u16| u32::from(**port) < facts.first_free_port;
    let (of_line, of_spec) = (clue.ports(), facts.ports());
    let named = if of_line.is_empty() { &of_spec } else { &of_line };
    let port = named.iter().find(is_low)?;
    // Only a number of the spec is shown.
    let port = Some(format!("port {port}")).filter(|_| of_spec.contains(port));
    let port = port.unwrap_or_else(|| "a privileged port".to_owned());
    let who = without_capability(facts, "NET_BIND_SERVICE");
    Some(likely(
        "privileged-port",
        Layer::Security,
        format!(
            "{who} may not bind {port}: ports below {} need CAP_NET_BIND_SERVICE",
            facts.first_free_port
        ),
        "use a port above 1024, add NET_BIND_SERVICE to `capabilities.add` (effective for root), or set the pod's sysctl \
         `net.ipv4.ip_unprivileged_port_start` to 0",
    ))
}

/// The process, with the reason why it lacks a capability.
pub(super) fn without_capability(facts: &Facts, capability: &str) -> String {
    match facts.process.uid {
        // Only what containers have by default can have been dropped.
        0 if DEFAULT_CAPABILITIES.contains(&capability) => {
            format!("root without CAP_{capability} (dropped)")
        }
        0 => format!("root without CAP_{capability}, which containers do not have by default,"),
        uid => format!("uid {uid} without CAP_{capability}"),
    }
}

/// A port that somebody else listens on.
pub(super) fn address_in_use(clue: &Clue, facts: &Facts) -> Inference {
    if is_unix(clue) {
        return likely(
            "socket-left",
            Layer::Filesystem,
            "the file of the socket is there already: a program listens on it, or an earlier one left it in a volume",
            "remove the file before the program starts, or put the socket into an emptyDir",
        );
    }
    let (named, of_spec) = (clue.ports(), facts.ports());
    let held =
        |ports: &[u16]| facts.listeners.iter().find(|listener| ports.contains(&listener.port));
    let found = held(&named).or_else(|| held(&of_spec));
    let (place, fix) = if facts.host_network {
        (
            "on the node",
            "choose another port, stop its holder, or run the pod without `hostNetwork`",
        )
    } else {
        ("in the pod", "choose another port for one of the pod's containers, or stop the other one")
    };
    let cause = match found {
        Some(listener) => {
            let holder =
                listener.holder.as_ref().map_or(String::new(), |holder| format!(", by {holder}"));
            format!("port {} is in use {place} already{holder}", listener.port)
        }
        None => {
            let port = of_spec.iter().find(|port| named.is_empty() || named.contains(port));
            let port = port.map_or("the port".to_owned(), |port| format!("port {port}"));
            format!("{port} was in use {place}, or the program opens it twice")
        }
    };
    likely("port-taken", Layer::Namespace, cause, fix)
}

/// Whether an error is about a socket of a path.
pub(super) fn is_unix(clue: &Clue) -> bool {
    clue.has_word("unix")
        || clue.paths().any(|path| path.ends_with(".sock") || path.ends_with(".socket"))
}

/// An address that the pod does not have, or no free port to connect from.
pub(super) fn no_such_address(clue: &Clue) -> Inference {
    if ["connect", "connecting", "dial"].iter().any(|word| clue.has_word(word)) {
        return likely(
            "no-local-address",
            Layer::Namespace,
            "no local port is free for a further connection, or the pod has no address of the family (IPv4, IPv6)",
            "close or reuse connections (`net.ipv4.ip_local_port_range` has the ports), and check the pod's addresses",
        );
    }
    likely(
        "address-missing",
        Layer::Namespace,
        "it binds to an address that the pod does not have",
        "bind to 0.0.0.0 or [::], or to the pod's own address (downward API `status.podIP`)",
    )
}

/// Phrases about peers: kind, cause and fix.
const PEERS: [(Phrase, &str, &str, &str); 5] = [
    (
        Phrase::HostUnknown,
        "name-unknown",
        "the DNS of the pod does not know the name, or does not answer",
        "check the name (service.namespace), the cluster's DNS pods, `dnsPolicy`, and network policies for port 53",
    ),
    (
        Phrase::ConnectionRefused,
        "peer-refused",
        "nothing listens at the address and port that it connects to",
        "check that the service it needs is up and has ready endpoints, and the port; retry until then",
    ),
    (
        Phrase::Unreachable,
        "no-route",
        "the pod has no route to the address that it connects to",
        "check the pod's network plugin and its routes, and the address family (IPv4, IPv6)",
    ),
    (
        Phrase::TimedOut,
        "peer-silent",
        "the address that it connects to does not answer: a network policy or firewall drops packets, or it is gone",
        "check network policies, firewalls, and that the service has ready endpoints",
    ),
    (
        Phrase::Certificate,
        "certificate",
        "the image does not trust the CA of the server that it connects to, or the certificate is not valid",
        "install the CA in the image (ca-certificates) or mount it, and check name and dates of the certificate",
    ),
];

/// A peer that was not reached, or not trusted.
pub(super) fn peer(clue: &Clue, facts: &Facts) -> Option<Inference> {
    if clue.phrase == Phrase::ConnectionRefused && is_unix(clue) {
        return Some(likely(
            "peer-refused",
            Layer::Process,
            "nothing listens at the socket that it connects to",
            "check that the program that serves the socket runs, and that both mount the same directory",
        ));
    }
    let (_, kind, cause, fix) = PEERS.into_iter().find(|(known, ..)| *known == clue.phrase)?;
    let servers = match facts.dns.as_slice() {
        _ if clue.phrase != Phrase::HostUnknown => String::new(),
        [] => "; the pod's spec names no DNS server".to_owned(),
        servers => format!(
            "; the pod's DNS servers are {}",
            hull_sys::text::shown(servers.join(", "), 256)
        ),
    };
    Some(likely(kind, Layer::Namespace, format!("{cause}{servers}"), fix))
}
