// SPDX-License-Identifier: Apache-2.0
//! Checks of the host's network sysctls that pods depend on: forwarding, which Hull enables with the
//! first pod of an address family, and whether the rules of the host apply to packets between pods of one
//! bridge, which Hull never changes: it is the decision of the operator.

use super::finding::Finding;
use crate::config::{Config, NetworkMode};
use std::fs;
use std::io;

const BRIDGED: &str = "br_netfilter";

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    if config.network.mode == NetworkMode::None {
        return Vec::new();
    }
    let ours = config.network.mode != NetworkMode::Cni;
    let subnets = &config.network.pod_cidr;
    // Without a configured subnet it is an IPv4 one.
    let has = |ipv4: bool| {
        subnets.iter().any(|net| net.addr().is_ipv4() == ipv4) || (ipv4 && subnets.is_empty())
    };
    let mut findings = Vec::new();
    if has(true) || !ours {
        findings.push(forwarding("ip_forward", "net.ipv4.ip_forward"));
    }
    if has(false) && ours {
        findings.push(forwarding("ipv6 forwarding", "net.ipv6.conf.all.forwarding"));
    }
    // CNI plugins set up bridges and sysctls themselves.
    for (ipv4, name) in [(true, "iptables"), (false, "ip6tables")] {
        let setting = format!("net.bridge.bridge-nf-call-{name}");
        let bridge = matches!(config.network.mode, NetworkMode::Auto | NetworkMode::Bridge);
        if bridge && has(ipv4) {
            findings.push(bridged(read(&setting).ok().as_deref(), &setting));
        }
    }
    findings
}

fn forwarding(subject: &'static str, setting: &str) -> Finding {
    let writable = || fs::File::options().write(true).open(path(setting)).is_ok();
    match read(setting).unwrap_or_default().as_str() {
        "1" => Finding::good(subject, "on"),
        "0" if writable() => Finding::good(subject, "off; Hull enables it with the first pod"),
        _ => Finding::warning(
            subject,
            "off, and Hull is not allowed to enable it",
            format!("sysctl {setting}=1; without it, pods reach only this host"),
        ),
    }
}

/// The finding for a value of the setting; `None` if br_netfilter is not loaded.
fn bridged(value: Option<&str>, setting: &str) -> Finding {
    let effect = "with kube-proxy, a pod that connects to a service gets no response from pods of the same node";
    match value {
        Some("1") => Finding::good(
            BRIDGED,
            format!(
                "{setting} is on: services work between pods of this node; the packet filter of the host applies to them"
            ),
        ),
        Some(_) => Finding::warning(
            BRIDGED,
            format!("{setting} is off: {effect}"),
            format!("sysctl {setting}=1, if kube-proxy runs here"),
        ),
        None => Finding::warning(
            BRIDGED,
            format!("br_netfilter is not loaded: {effect}"),
            format!(
                "modprobe br_netfilter, put it in /etc/modules-load.d/hull.conf, and sysctl {setting}=1, if kube-proxy runs here"
            ),
        ),
    }
}

fn path(setting: &str) -> String {
    format!("/proc/sys/{}", setting.replace('.', "/"))
}

fn read(setting: &str) -> io::Result<String> {
    fs::read_to_string(path(setting)).map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn the_finding_about_bridged_packets_says_what_follows() {
        let setting = "net.bridge.bridge-nf-call-iptables";
        assert_eq!(bridged(Some("1"), setting).verdict, Verdict::Good);
        for (value, words) in [(Some("0"), "is off"), (None, "br_netfilter is not loaded")] {
            let found = bridged(value, setting);
            assert!(found.found.contains(words), "{found:?}");
            let Verdict::Warning(hint) = found.verdict else { panic!("{:?}", found.verdict) };
            assert!(hint.contains("sysctl net.bridge.bridge-nf-call-iptables=1"), "{hint}");
        }
        assert_eq!(path(setting), "/proc/sys/net/bridge/bridge-nf-call-iptables");
    }
}
