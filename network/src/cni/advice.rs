// SPDX-License-Identifier: Apache-2.0
//! Advice for what plugins and their agents report, in the operator's terms: what to start, clear, enlarge or install.
//!
//! Pure. The rule: the plugin's words stay in the error as they are. Advice is chosen by phrases of the reference
//! plugins, of Flannel, Calico, Cilium, Weave, Multus and the clouds' plugins, and by the codes of the specification;
//! what is not recognised leads to the log of the plugin's agent.

use super::reference_plugins::has_no_agent;
use std::net::IpAddr;
use std::path::Path;

/// Advice for one kind of report, with what it needs of the message.
struct Rule {
    /// Any of these, in lower case.
    phrases: &'static [&'static str],
    /// `None` where the message is about something else after all.
    advice: fn(&Report<'_>) -> Option<String>,
}

/// An error report of a plugin.
pub(super) struct Report<'r> {
    /// The plugin's `type`.
    pub(super) program: &'r str,
    /// The network's name.
    pub(super) network: &'r str,
    /// The file with the plugin's configuration; empty if it is not known.
    pub(super) file: &'r Path,
    pub(super) message: &'r str,
    /// The code of the report; `None` if the plugin wrote no report.
    pub(super) code: Option<u64>,
}

/// Phrases of plugins about their own configuration, in lower case.
const CONFIGURATION: [&str; 14] = [
    "invalid cidr",
    "netconf",
    "network configuration is invalid",
    "failed to parse config",
    "error parsing configuration",
    "cannot unmarshal",
    "invalid character",
    "must be specified",
    "field is required",
    "invalid range",
    "invalid subnet",
    "invalid gateway",
    "invalid ip address",
    "unknown field",
];

impl Report<'_> {
    /// Whether the plugin rejects its configuration.
    pub(super) fn blames_configuration(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        // Unsupported field, undecodable, and invalid configuration in the specification's list of errors.
        matches!(self.code, Some(2 | 6 | 7)) || CONFIGURATION.iter().any(|of| text.contains(of))
    }

    fn correct_configuration(&self) -> String {
        format!("correct {}, see the message", self.configuration())
    }

    /// Names the configuration, by its file if that is known.
    fn configuration(&self) -> String {
        let network = self.network;
        if self.file.as_os_str().is_empty() {
            return format!("the configuration of network `{network}`");
        }
        format!("{} (the configuration of network `{network}`)", self.file.display())
    }
}

/// In the order in which they are tried: what names a cause comes before what names a symptom.
const RULES: [Rule; 12] = [
    Rule {
        phrases: &["failed to find plugin"],
        advice: |of| {
            let named = between(of.message, "find plugin \"", '"').unwrap_or("it");
            Some(format!("install `{named}` in a directory of `bin_dirs` under `[network.cni]`"))
        },
    },
    Rule {
        phrases: &[
            "no ip addresses available",
            "no available ip",
            "no addresses available",
            "no free address",
            "no free ip",
            "no more ips",
            "range is full",
            "ranges are full",
            "pool exhausted",
            "pool is exhausted",
            "addresses exhausted",
            "ips exhausted",
            "failed to assign an ip address",
            "not enough free",
        ],
        advice: |of| {
            Some(format!(
                "enlarge the address range of network `{network}` (`ipam` in its configuration, or in `{program}`'s own settings), or remove pods; addresses of pods that are gone stay reserved: with host-local, delete their files in /var/lib/cni/networks/{network} (or `ipam.dataDir`), which name the holder in their first line",
                network = of.network,
                program = of.program,
            ))
        },
    },
    Rule {
        phrases: &["duplicate allocation", "is not available in range set"],
        advice: |of| {
            Some(format!(
                "choose another address; if its holder is gone, delete the address's file in /var/lib/cni/networks/{} (or `ipam.dataDir`)",
                of.network
            ))
        },
    },
    Rule {
        phrases: &["already has an ip address different from"],
        advice: |of| {
            let link = quoted_before(of.message, "already has an ip address");
            let (named, remove) = link.map_or_else(
                || (String::new(), "ip link delete, by its name".to_owned()),
                |link| (format!(" {link}"), format!("ip link delete {link}")),
            );
            Some(format!(
                "the bridge{named} is left from another subnet: drain the node, remove the bridge ({remove}), or set the former subnet again"
            ))
        },
    },
    Rule {
        phrases: &["unauthorized", "forbidden", "certificate has expired", "x509:"],
        advice: |of| {
            Some(format!(
                "restart the agent of `{}` on this node, which renews its credentials for the API server; check its RBAC rights and this node's clock",
                of.program
            ))
        },
    },
    Rule {
        phrases: &[
            "connection refused",
            "i/o timeout",
            "deadline exceeded",
            "timeout exceeded",
            "error dialing",
            "dial unix",
            "dial tcp",
            "not reachable",
            "unable to connect",
            "failed to connect",
            "could not connect",
            "connection reset",
            "agent is not",
        ],
        advice: |of| {
            let at = dialed(of.message);
            if let Some(at) = at.filter(|at| !is_on_node(at)) {
                return Some(format!(
                    "the node cannot reach {at} (the Service of the API server, or another server of `{}`): check kube-proxy, the node's routes and firewall, and that server",
                    of.program
                ));
            }
            let forbids = of.message.to_ascii_lowercase().contains("permission denied");
            if let Some(at) = at.filter(|_| forbids) {
                return Some(format!(
                    "let hull, which runs `{}`, open {at}: run it as root, and see what a security module of the node denies",
                    of.program
                ));
            }
            let at = at.map_or_else(String::new, |at| format!(" at {at}"));
            Some(format!(
                "the agent of `{}`{at} does not answer on this node: check that its pod or service runs here, see its log, and restart it",
                of.program
            ))
        },
    },
    Rule {
        phrases: &["executable file not found", "failed to locate iptables", "command not found"],
        advice: |of| {
            let named = between(of.message, "exec: \"", '"').unwrap_or("the program that it names");
            Some(format!("install {named} on this node, in a directory of hull's PATH"))
        },
    },
    Rule {
        phrases: &["no such file or directory"],
        advice: |of| {
            let written = ["/run/", "/var/run/", "/var/lib/"];
            let path = path(of.message)?;
            if !written.iter().any(|top| path.starts_with(top)) || path.contains("/netns/") {
                return None;
            }
            Some(format!(
                "the agent of `{}` writes {path} once it is ready: check that its pod or service runs on this node, and see its log",
                of.program
            ))
        },
    },
    Rule {
        phrases: &["link not found", "no such device", "failed to lookup master", "lookup link"],
        advice: |of| {
            Some(format!(
                "name a link that this node has (ip link) in the configuration of network `{}`, as `master` or `device`",
                of.network
            ))
        },
    },
    Rule { phrases: &CONFIGURATION, advice: |of| Some(of.correct_configuration()) },
    Rule {
        phrases: &["operation not supported"],
        advice: |of| {
            Some(format!(
                "load the kernel module of the links or rules that `{}` makes (such as bridge, veth, macvlan, ifb, nf_tables)",
                of.program
            ))
        },
    },
    Rule {
        phrases: &["operation not permitted", "permission denied", "read-only file system"],
        advice: |_| {
            Some("run hull serve as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN, and writable directories for the plugin's state (/var/lib/cni, /run)".into())
        },
    },
];

/// Advice for a report.
pub(super) fn of(report: &Report<'_>) -> String {
    let text = report.message.to_ascii_lowercase();
    let matches = |rule: &&Rule| rule.phrases.iter().any(|phrase| text.contains(phrase));
    let advice = RULES.iter().filter(matches).find_map(|rule| (rule.advice)(report));
    advice.unwrap_or_else(|| by_code(report))
}

/// By the codes of the specification, "Error".
fn by_code(of: &Report<'_>) -> String {
    let Report { program, network, .. } = of;
    match of.code {
        Some(1) => format!(
            "set `cniVersion` of network `{network}` to one that `{program}` supports, or update the plugin"
        ),
        Some(2 | 6 | 7) => of.correct_configuration(),
        Some(11) => format!(
            "the plugin reports a temporary condition, and the kubelet tries again; if it stays, check the agent of `{program}` on this node and see its log"
        ),
        Some(50 | 51) => format!(
            "the plugin reports that it cannot serve pods now: check the agent of `{program}` on this node and see its log"
        ),
        _ if has_no_agent(program) => format!(
            "see the message, which is all that `{program}` reports: correct what it names on this node, or {}",
            of.configuration()
        ),
        _ => format!("see the log of network plugin `{program}` and its agent"),
    }
}

/// The text between `start` and the next `end`.
fn between<'t>(text: &'t str, start: &str, end: char) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    let (found, _) = rest.split_once(end)?;
    (!found.is_empty()).then_some(found)
}

/// The text in quotes directly before the phrase, which is in lower case.
fn quoted_before<'t>(text: &'t str, phrase: &str) -> Option<&'t str> {
    let at = text.to_ascii_lowercase().find(phrase)?;
    let before = text.get(..at)?.trim_end().strip_suffix('"')?;
    let (_, found) = before.rsplit_once('"')?;
    (!found.is_empty() && !found.contains(char::is_whitespace)).then_some(found)
}

/// Whether an address that was dialed is of this node: a socket's path, or loopback.
fn is_on_node(at: &str) -> bool {
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    at.starts_with(['/', '@']) || host == "localhost" || is_loopback
}

/// The address in a message of Go's `net.Dial`, as in `dial tcp 127.0.0.1:50051: connect: …`.
fn dialed(text: &str) -> Option<&str> {
    let starts = ["dial tcp ", "dial unix ", "dial udp "];
    let (_, rest) = starts.iter().find_map(|start| text.split_once(start))?;
    let word = rest.split_whitespace().next()?.trim_end_matches([':', ',', ';', '"']);
    (!word.is_empty()).then_some(word)
}

/// The first absolute path in a message.
fn path(text: &str) -> Option<&str> {
    let word = text.split_whitespace().find(|word| word.starts_with('/') && word.len() > 1)?;
    Some(word.trim_end_matches([':', ',', ';', '"']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(program: &str, code: u64, message: &str) -> String {
        let file = Path::new("/etc/cni/net.d/10-pods.conflist");
        of(&Report { program, network: "pods", file, message, code: Some(code) })
    }

    /// Messages as the plugins write them: plugin, code, message, and words of the advice.
    const REPORTS: [(&str, u64, &str, &str); 36] = [
        (
            "bridge",
            999,
            "invalid CIDR address: 10.82.0.0/33",
            "correct /etc/cni/net.d/10-pods.conflist (the configuration of network `pods`)",
        ),
        ("macvlan", 100, "failed to load netconf: json: cannot unmarshal", "10-pods.conflist"),
        ("x", 6, "unexpected end", "correct /etc/cni/net.d/10-pods.conflist"),
        ("tuning", 999, "something", "all that `tuning` reports"),
        ("win-bridge", 999, "something", "all that `win-bridge` reports"),
        ("dhcp", 999, "something", "see the log of network plugin `dhcp` and its agent"),
        (
            "bridge",
            999,
            "failed to allocate for range 0: no IP addresses available in range set: 10.77.0.1-10.77.0.2",
            "enlarge the address range of network `pods`",
        ),
        ("cilium-cni", 999, "Unable to allocate IP: range is full", "or remove pods"),
        ("aws-cni", 999, "add cmd: failed to assign an IP address to container", "enlarge"),
        (
            "aws-cni",
            11,
            "ipam daemon not reachable; dial tcp 127.0.0.1:50051: connection refused",
            "the agent of `aws-cni` at 127.0.0.1:50051 does not answer",
        ),
        (
            "cilium-cni",
            999,
            "unable to connect to Cilium agent: dial unix /var/run/cilium/cilium.sock: connect: no such file or directory",
            "at /var/run/cilium/cilium.sock",
        ),
        (
            "weave-net",
            100,
            "unable to allocate IP address: Post \"http://127.0.0.1:6784/ip/x\": dial tcp 127.0.0.1:6784: connect: connection refused",
            "127.0.0.1:6784",
        ),
        (
            "flannel",
            999,
            "loadFlannelSubnetEnv failed: open /run/flannel/subnet.env: no such file or directory",
            "writes /run/flannel/subnet.env once it is ready",
        ),
        (
            "calico",
            999,
            "stat /var/lib/calico/nodename: no such file or directory: check that the calico/node container is running",
            "writes /var/lib/calico/nodename",
        ),
        (
            "calico",
            999,
            "error getting ClusterInformation: connection is unauthorized: Unauthorized",
            "renews its credentials",
        ),
        (
            "bridge",
            999,
            "failed to set bridge addr: \"cni0\" already has an IP address different from 10.244.1.1/24",
            "ip link delete cni0",
        ),
        (
            "multus-shim",
            999,
            "plugin type=\"multus-shim\" failed (add): error adding container to network \"cbr0\": plugin type=\"bridge\" failed (add): failed to set bridge addr: \"cni0\" already has an IP address different from 10.244.1.1/24",
            "ip link delete cni0",
        ),
        (
            "multus-shim",
            999,
            "adding to network \"cbr0\": the bridge already has an IP address different from 10.244.1.1/24",
            "ip link delete, by its name",
        ),
        (
            "calico",
            999,
            "error getting ClusterInformation: Get \"https://10.96.0.1:443/apis\": dial tcp 10.96.0.1:443: i/o timeout",
            "the node cannot reach 10.96.0.1:443",
        ),
        ("calico", 999, "dial tcp [fd00::1]:443: connect: connection refused", "check kube-proxy"),
        (
            "x",
            999,
            "dial tcp [::1]:443: connect: connection refused",
            "the agent of `x` at [::1]:443",
        ),
        ("x", 999, "dial tcp localhost:443: connect: connection refused", "on this node"),
        (
            "cilium-cni",
            999,
            "unable to connect to Cilium agent: dial unix /var/run/cilium/cilium.sock: connect: permission denied",
            "open /var/run/cilium/cilium.sock: run it as root",
        ),
        (
            "ptp",
            999,
            "failed to find plugin \"host-local\" in path [/opt/cni/bin]",
            "install `host-local`",
        ),
        ("macvlan", 999, "failed to lookup master \"eth9\": Link not found", "name a link"),
        (
            "portmap",
            999,
            "exec: \"iptables\": executable file not found in $PATH",
            "install iptables on this node",
        ),
        ("bandwidth", 999, "create ifb device: operation not supported", "kernel module"),
        ("tuning", 999, "failed to set sysctl: permission denied", "as root"),
        (
            "host-local",
            999,
            "failed to allocate for range 0: 10.88.0.5 has been allocated to 5f, duplicate allocation is not allowed",
            "if its holder is gone",
        ),
        (
            "x",
            999,
            "failed to open netns \"/var/run/netns/x\": no such file or directory",
            "see the log of network plugin `x`",
        ),
        ("x", 999, "rpc error: code = ResourceExhausted", "see the log of network plugin"),
        ("x", 1, "incompatible CNI versions", "set `cniVersion`"),
        ("x", 7, "missing field", "correct /etc/cni/net.d/10-pods.conflist"),
        ("x", 11, "later", "temporary condition"),
        ("x", 50, "no", "cannot serve pods now"),
        ("x", 103, "something", "see the log of network plugin `x`"),
    ];

    #[test]
    fn reports_of_plugins_and_agents_lead_to_what_an_operator_can_do() {
        for (program, code, message, wanted) in REPORTS {
            let advice = advice(program, code, message);
            assert!(advice.contains(wanted), "{message}: {advice}");
        }
    }

    #[test]
    fn parts_of_odd_messages_are_left_out() {
        for message in
            ["dial tcp ", "dial unix", "no such file or directory", "x /", "find plugin \"\""]
        {
            let _any = advice("x", 0, message);
        }
        assert_eq!(dialed("dial tcp "), None);
        assert_eq!(quoted_before("\"\" already", "already"), None);
        assert_eq!(quoted_before("already", "already"), None);
        assert_eq!(path("no such file or directory / x"), None);
        assert_eq!(between("find plugin \"\"", "find plugin \"", '"'), None);
    }
}
