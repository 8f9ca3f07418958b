// SPDX-License-Identifier: Apache-2.0
//! The normalized address of a registry.
//!
//! ```text
//! REG.example.org   reg.example.org:443   reg.example.org:0443   →  reg.example.org
//! index.docker.io   registry-1.docker.io  docker.io:443          →  docker.io
//! 127.1   0x7f000001   [::ffff:127.0.0.1]   127.0.0.1:80         →  127.0.0.1
//! [0:0:0:0:0:0:0:1]:5000                                         →  [::1]:5000
//! UPPER                                                          →  upper:443
//! ```
//!
//! Pure. The rule: two texts that lead to the same place by the rules of addresses alone (the URL
//! standard, which the HTTP client goes by) have the same normal form, and the normal form of a normal
//! form is itself. What DNS or `/etc/hosts` make of a name is not known here.

use reqwest::Url;
use std::net::{IpAddr, Ipv6Addr};

/// The default registry.
pub(super) const DEFAULT_HOST: &str = "docker.io";
/// Other names of the default registry.
pub(super) const DEFAULT_HOST_ALIASES: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
const HTTPS_PORT: u16 = 443;
/// Registries on this machine are spoken to without TLS.
const HTTP_PORT: u16 = 80;
const WRONG: &str = "the registry is not a host name or address";

/// The normal form of `host` or `host:port`, or why the text is not one.
pub(crate) fn normal(text: &str) -> Result<String, &'static str> {
    let (name, port) = split_port(text)?;
    check_name(name)?;
    // A name that the HTTP client refuses cannot be reached, so it cannot be confused with another.
    let url = Url::parse(&format!("https://{name}/")).ok();
    let name =
        url.as_ref().and_then(Url::host_str).map_or_else(|| name.to_ascii_lowercase(), address);
    let default = default_port(&name);
    let port = port.filter(|port| *port != default);
    Ok(match port {
        None if DEFAULT_HOST_ALIASES.contains(&name.as_str()) => DEFAULT_HOST.to_owned(),
        Some(port) => format!("{name}:{port}"),
        // One word alone would be taken for a part of a repository.
        None if name != "localhost" && !name.contains(['.', ':']) => format!("{name}:{default}"),
        None => name,
    })
}

/// The normal form, or at least lower case: for what settings call a host.
pub(crate) fn normal_or_lower(text: &str) -> String {
    normal(text).unwrap_or_else(|_| text.to_ascii_lowercase())
}

/// The host of a registry's address in any of its historical forms.
pub(crate) fn bare(address: &str) -> &str {
    let behind = address.split_once("://").map_or(address, |(_, behind)| behind);
    behind.split('/').next().unwrap_or(behind)
}

/// Whether the registry runs on this machine, so that plain HTTP harms nobody.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = name_of(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether connections to it end on this machine: loopback, the unspecified address, and names that
/// are reserved for this (RFC 6761, 6.3).
pub(crate) fn is_this_machine(host: &str) -> bool {
    let name = name_of(host);
    is_loopback(host)
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

/// The port, or the default one. `host` is in its normal form.
pub(crate) fn port_of(host: &str) -> u16 {
    let (name, port) = split_port(host).unwrap_or((host, None));
    port.unwrap_or_else(|| default_port(name))
}

/// Without the port and brackets.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn default_port(name: &str) -> u16 {
    if is_loopback(name) { HTTP_PORT } else { HTTPS_PORT }
}

/// An address of IPv4 that is written as one of IPv6 is reached by IPv4.
fn address(name: &str) -> String {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare.and_then(|bare| bare.parse::<Ipv6Addr>().ok()).map(|of| of.to_canonical()) {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        None => name.to_owned(),
    }
}

/// The name, with the brackets of IPv6, and the port.
fn split_port(host: &str) -> Result<(&str, Option<u16>), &'static str> {
    let end = match host.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or(WRONG)? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    if port.is_empty() {
        return Ok((name, None));
    }
    let digits = port.strip_prefix(':').ok_or(WRONG)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port = if is_number { digits.parse().ok() } else { None };
    port.map(|port| (name, Some(port)))
        .ok_or("the port of the registry is not a number up to 65535")
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or_default();
        let is_good = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
        let is_address = !address.is_empty() && address.bytes().all(is_good);
        return if is_address { Ok(()) } else { Err(WRONG) };
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(word)
    };
    if name.split('.').all(label) { Ok(()) } else { Err(WRONG) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_place_has_one_normal_form() {
        for (wanted, spellings) in [
            (
                "reg.example.org",
                &[
                    "reg.example.org",
                    "REG.Example.org",
                    "reg.example.org:443",
                    "Reg.example.ORG:0443",
                ][..],
            ),
            ("reg.example.org:80", &["reg.example.org:80", "REG.example.org:080"]),
            (
                "docker.io",
                &[
                    "docker.io",
                    "Docker.IO:443",
                    "index.docker.io",
                    "registry-1.docker.io",
                    "registry-1.docker.io:443",
                    "registry.hub.docker.com",
                ],
            ),
            ("docker.io:5000", &["docker.io:5000"]),
            (
                "127.0.0.1:5000",
                &[
                    "127.0.0.1:5000",
                    "127.1:5000",
                    "127.0.1:05000",
                    "0x7f.0.0.1:5000",
                    "0177.0.0.1:5000",
                    "2130706433:5000",
                    "0x7f000001:5000",
                    "[::ffff:127.0.0.1]:5000",
                    "[::FFFF:7f00:1]:5000",
                ],
            ),
            ("127.0.0.1", &["127.0.0.1", "127.0.0.1:80"]),
            ("127.0.0.1:443", &["127.0.0.1:443"]),
            ("localhost", &["localhost", "LOCALHOST", "localhost:80"]),
            ("localhost:443", &["localhost:443"]),
            ("[::1]:5000", &["[::1]:5000", "[0:0:0:0:0:0:0:1]:5000", "[::0001]:5000"]),
            ("[2001:db8::1]", &["[2001:db8::1]", "[2001:DB8:0::1]:443"]),
            ("upper:443", &["UPPER", "upper", "Upper:443"]),
            ("xn--bcher-kva.example", &["xn--bcher-kva.example", "XN--Bcher-KVA.example:443"]),
        ] {
            for text in spellings {
                assert_eq!(normal(text).as_deref(), Ok(wanted), "{text}");
            }
        }
    }

    #[test]
    fn a_text_that_is_not_a_host_is_refused() {
        for text in [
            "",
            ".",
            "reg.example.org.",
            "reg.example.org.:443",
            "-a.b",
            "a..b",
            "a_b.c",
            "bücher.example",
            "[::1",
            "[::1]x",
            "[]",
            "[fe80::1%25eth0]",
            "a.b:",
            "a.b:x",
            "a.b:65536",
            "a.b:+1",
            "u@a.b",
            "a.b/c",
            "a%2eb.c",
            "a.b\n",
        ] {
            assert!(normal(text).is_err(), "{}", text.escape_debug());
        }
    }

    #[test]
    fn this_machine_has_many_names_and_few_may_do_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host) && is_this_machine(host), "{host}");
        }
        for host in ["0.0.0.0:5000", "[::]:5000", "registry.localhost:5000"] {
            assert!(!is_loopback(host) && is_this_machine(host), "{host}");
        }
        for host in
            ["localhost.example.org", "128.0.0.1", "[::2]", "127.0.0.1.example.org", "docker.io"]
        {
            assert!(!is_loopback(host) && !is_this_machine(host), "{host}");
        }
        let ports = ["localhost", "0.0.0.0:80", "[::1]:5000", "[::1]", "a.example"].map(port_of);
        assert_eq!(ports, [80, 80, 5000, 80, 443]);
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_where_the_client_goes(
            text in "[a-zA-Z0-9x.:\\[\\]-]{1,24}", port in proptest::option::of(0_u16..)
        ) {
            let text = port.map_or(text.clone(), |port| format!("{text}:{port}"));
            if let Ok(once) = normal(&text) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
                let scheme = if is_loopback(&once) { "http" } else { "https" };
                let goes = |host: &str| Url::parse(&format!("{scheme}://{host}/")).ok().map(|url| url.origin());
                let is_docker = once == DEFAULT_HOST;
                let is_mapped = text.contains('[') && !once.contains('[');
                prop_assert!(is_docker || is_mapped || goes(&text) == goes(&once), "{} {}", text, once);
            }
        }
    }
}
