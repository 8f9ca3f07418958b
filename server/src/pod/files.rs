// SPDX-License-Identifier: Apache-2.0
//! The three files that every pod gets: hosts, hostname, resolv.conf.
//!
//! What goes in them is decided here, purely; writing is [`write`]. They are the runtime's defaults:
//! a container whose config mounts something there gets that instead.

use super::host_dns::{self, PodDns};
use super::run_pods;
use crate::oci_spec;
use hull_proto::cri;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// /etc/resolv.conf from the DNS config, or the host's when there is none.
fn resolv_conf(config: &cri::PodSandboxConfig, of_host: &str) -> String {
    let Some(dns) = &config.dns_config else { return of_host.to_owned() };
    if dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty() {
        return of_host.to_owned();
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

/// /etc/hosts of a pod with these addresses.
fn hosts(config: &cri::PodSandboxConfig, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    if !config.hostname.is_empty() {
        for ip in ips {
            let _ = writeln!(text, "{ip}\t{}", config.hostname);
        }
    }
    text + &added_hosts(config)
}

/// The lines that `hull run --add-host` adds, checked when the pod was requested.
fn added_hosts(config: &cri::PodSandboxConfig) -> String {
    let hosts = run_pods::hosts(config).unwrap_or_default();
    hosts.iter().map(|(ip, name)| format!("{ip}\t{name}\n")).collect()
}

/// Longest host name, in bytes: `HOST_NAME_MAX`, gethostname(2).
const HOSTNAME_BYTES_MAX: usize = 64;

/// Refuses what would smuggle a line into a file.
pub(crate) fn check(config: &cri::PodSandboxConfig) -> Result<(), String> {
    run_pods::hosts(config)?;
    let dns = config.dns_config.iter();
    let mut words = dns.flat_map(|dns| dns.servers.iter().chain(&dns.searches).chain(&dns.options));
    if let Some(bad) =
        words.find(|word| word.chars().any(|c| c.is_control() || c == ' ') && !word.is_empty())
    {
        return Err(format!("`{}` in dns_config is not one word", bad.escape_default()));
    }
    let host = &config.hostname;
    let fits = host.len() <= HOSTNAME_BYTES_MAX
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if fits {
        return Ok(());
    }
    Err(format!(
        "hostname `{}` is not a name of at most {HOSTNAME_BYTES_MAX} letters, digits, `-`, `_` and `.`",
        host.chars().take(80).flat_map(char::escape_default).collect::<String>()
    ))
}

/// Writes the files that can be written before the pod has its addresses.
pub(crate) fn write(
    dir: &Path,
    config: &cri::PodSandboxConfig,
    host_network: bool,
) -> io::Result<()> {
    let of_host = if host_network { host_dns::own() } else { PodDns::read().into_text() };
    fs::write(dir.join("resolv.conf"), resolv_conf(config, &of_host))?;
    fs::write(dir.join("hostname"), format!("{}\n", oci_spec::hostname(config)))?;
    if host_network {
        // On the host's network its names hold.
        let of_host = fs::read_to_string("/etc/hosts");
        let text = of_host.map_or_else(
            |_| hosts(config, &[]),
            |text| {
                let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
                text + end + &added_hosts(config)
            },
        );
        fs::write(dir.join("hosts"), text)?;
    }
    Ok(())
}

/// Writes /etc/hosts once the addresses are known.
pub(crate) fn write_hosts(
    dir: &Path,
    config: &cri::PodSandboxConfig,
    ips: &[IpAddr],
) -> io::Result<()> {
    fs::write(dir.join("hosts"), hosts(config, ips))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hostname: &str, dns: Option<cri::DnsConfig>) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig { hostname: hostname.into(), dns_config: dns, ..Default::default() }
    }

    #[test]
    fn dns_config_becomes_resolv_conf() {
        let dns = cri::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&config("web", Some(dns)), "nameserver 9.9.9.9\n"),
            "search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(
            resolv_conf(&config("web", None), "nameserver 9.9.9.9\n"),
            "nameserver 9.9.9.9\n"
        );
    }

    #[test]
    fn hosts_names_the_pod() {
        let ips = ["10.88.0.2".parse().unwrap()];
        let text = hosts(&config("web", None), &ips);
        assert!(text.ends_with("10.88.0.2\tweb\n"), "{text}");
        let uid = "0123456789abcdef0123456789abcdef".to_owned();
        let mut of_run = config("web", None);
        of_run.metadata = Some(cri::PodSandboxMetadata { uid: uid.clone(), ..Default::default() });
        of_run.annotations.insert(run_pods::HOSTS.to_owned(), "10.0.0.9 db\n::1 six".to_owned());
        let text = hosts(&of_run, &ips);
        assert!(text.ends_with("10.88.0.2\tweb\n"), "not of a pod of others: {text}");
        of_run.labels.insert(run_pods::UID_LABEL.to_owned(), uid);
        let text = hosts(&of_run, &ips);
        assert!(text.ends_with("10.88.0.2\tweb\n10.0.0.9\tdb\n::1\tsix\n"), "{text}");
        of_run.annotations.insert(run_pods::HOSTS.to_owned(), "10.0.0.9 db\tevil".to_owned());
        check(&of_run).unwrap_err();
    }

    #[test]
    fn a_line_cannot_be_smuggled_in() {
        let dns =
            cri::DnsConfig { servers: vec!["1.1.1.1\noptions evil".into()], ..Default::default() };
        check(&config("web", Some(dns))).unwrap_err();
        check(&config("web\n127.0.0.1 bank", None)).unwrap_err();
        // As long as the kubelet's `setHostnameAsFQDN` allows, and the kernel takes.
        check(&config(&"a".repeat(64), None)).unwrap();
        check(&config(&"a".repeat(65), None)).unwrap_err();
        check(&config("web-0.web", None)).unwrap();
    }
}
