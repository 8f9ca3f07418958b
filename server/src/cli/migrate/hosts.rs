// SPDX-License-Identifier: Apache-2.0
//! Writes `hosts.toml`, the file with the endpoints of one registry that Hull and containerd read. Pure.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use toml::Value;

/// The directory of the files that a migration writes.
pub(crate) const DIRECTORY: &str = "/etc/hull/certs.d";

/// TLS settings of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) skip_verify: bool,
    pub(crate) ca: Vec<String>,
    /// A certificate and its key.
    pub(crate) client: Option<(String, String)>,
}

/// The requests that an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    All,
    /// Only content by digest: tags are resolved elsewhere.
    Digests,
}

/// An endpoint that is tried before the registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    /// Whether the address has the path of the API, and nothing is added to it.
    pub(crate) has_api_path: bool,
    pub(crate) serves: Serves,
    pub(crate) tls: Tls,
}

/// The endpoints of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Registry {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The address that stands for the registry itself, if it is not its own.
    pub(crate) server: Option<String>,
    pub(crate) server_has_api_path: bool,
    pub(crate) server_tls: Tls,
}

/// The path of the file for a registry; `*` stands for those without one of their own. `None` if the name cannot
/// be that of a registry.
pub(crate) fn path(host: &str) -> Option<PathBuf> {
    let name = if host == "*" { "_default" } else { host };
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let is_good = !name.is_empty() && name != "." && name != ".." && name.chars().all(is_plain);
    is_good.then(|| PathBuf::from(DIRECTORY).join(name).join("hosts.toml"))
}

/// Why Hull would refuse an endpoint with this address, without the address itself: it may be a secret.
pub(crate) fn refusal(address: &str) -> Option<String> {
    if address.contains('@') {
        return Some("its address has credentials, which Hull takes from pods or `image.docker_config` alone".into());
    }
    let of = Endpoint {
        address: address.to_owned(),
        has_api_path: false,
        serves: Serves::All,
        tls: Tls::default(),
    };
    let registry = Registry { endpoints: vec![of], ..Registry::default() };
    let why = hull_image::check_hosts(&text(&registry, "a check")).err()?;
    Some(why.rsplit_once("`: ").map_or("it is not an address", |(_, why)| why).to_owned())
}

/// An address, or another name, without the account in it.
pub(crate) fn without_account(text: &str) -> String {
    let Some((before, rest)) = text.rsplit_once('@') else { return text.to_owned() };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{rest}"),
        None => rest.to_owned(),
    }
}

/// The text of the file.
pub(crate) fn text(registry: &Registry, from: &str) -> String {
    let mut out = format!("# Taken over from {from} by `hull migrate`.\n");
    if let Some(server) = &registry.server {
        line(&mut out, "server", &server.as_str().into());
        if registry.server_has_api_path {
            line(&mut out, "override_path", &true.into());
        }
    }
    tls(&mut out, &registry.server_tls);
    let mut there = HashSet::new();
    // The file can have each address once.
    for of in registry.endpoints.iter().filter(|of| there.insert(of.address.as_str())) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n[host.{}]", Value::from(of.address.as_str()));
        if of.serves == Serves::Digests {
            line(&mut out, "capabilities", &Value::Array(vec!["pull".into()]));
        }
        if of.has_api_path {
            line(&mut out, "override_path", &true.into());
        }
        tls(&mut out, &of.tls);
    }
    out
}

fn tls(out: &mut String, of: &Tls) {
    if of.skip_verify {
        line(out, "skip_verify", &true.into());
    }
    if !of.ca.is_empty() {
        let all = of.ca.iter().map(|path| path.as_str().into()).collect();
        line(out, "ca", &Value::Array(all));
    }
    if let Some((certificate, key)) = &of.client {
        let pair = [certificate, key].map(|path| path.as_str().into());
        line(out, "client", &Value::Array(vec![Value::Array(pair.into())]));
    }
}

fn line(out: &mut String, key: &str, value: &Value) {
    let _ = writeln!(out, "{key} = {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_the_file_and_the_order_stays() {
        let registry = Registry {
            endpoints: vec![
                Endpoint {
                    address: "https://z.example/v2/proxy".into(),
                    has_api_path: true,
                    serves: Serves::Digests,
                    tls: Tls { skip_verify: true, ..Tls::default() },
                },
                Endpoint {
                    address: "http://a.example".into(),
                    has_api_path: false,
                    serves: Serves::All,
                    tls: Tls::default(),
                },
            ],
            server: Some("https://own.example".into()),
            server_has_api_path: false,
            server_tls: Tls {
                skip_verify: false,
                ca: vec!["/a\"b.crt".into()],
                client: Some(("/c".into(), "/k".into())),
            },
        };
        assert_eq!(
            text(&registry, "x"),
            "# Taken over from x by `hull migrate`.\nserver = \"https://own.example\"\n\
             ca = ['/a\"b.crt']\nclient = [[\"/c\", \"/k\"]]\n\n\
             [host.\"https://z.example/v2/proxy\"]\ncapabilities = [\"pull\"]\noverride_path = true\n\
             skip_verify = true\n\n[host.\"http://a.example\"]\n"
        );
    }

    #[test]
    fn addresses_that_hull_refuses_are_named_without_their_secrets() {
        for (address, why) in [
            ("https://m.example:5000", None),
            ("m.example/v2", None),
            ("ftp://m.example", Some("not an HTTP or HTTPS URL")),
            ("http://m.example/?token=hunter2", Some("no query")),
            ("http://user:hunter2@m.example", Some("has credentials")),
        ] {
            let found = refusal(address);
            assert_eq!(found.is_some(), why.is_some(), "{address}: {found:?}");
            let said = found.unwrap_or_default();
            assert!(said.contains(why.unwrap_or_default()), "{address}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert_eq!(without_account("http://u:p/w@m.example"), "http://m.example");
        assert_eq!(without_account("u:p@m.example"), "m.example");
    }

    #[test]
    fn names_of_registries_do_not_leave_the_directory() {
        let shown = |host: &str| path(host).map(|path| path.display().to_string());
        assert_eq!(shown("a:5000").as_deref(), Some("/etc/hull/certs.d/a:5000/hosts.toml"));
        assert_eq!(shown("*").as_deref(), Some("/etc/hull/certs.d/_default/hosts.toml"));
        for odd in ["", "..", "a/b", "*.example.com", "a\nb"] {
            assert_eq!(shown(odd), None, "{odd}");
        }
    }
}
