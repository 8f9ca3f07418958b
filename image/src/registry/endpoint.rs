// SPDX-License-Identifier: Apache-2.0
//! Where a registry is really asked, and the HTTP clients for it.
//!
//! The rule: plain HTTP only where it is configured, or on this machine itself. Credentials are for
//! the registry that was named and are not shown to its mirrors.
//!
//! Clients are built when first needed: reading the CA certificates of the machine takes 20 ms and a
//! megabyte.

use super::token::Tokens;
use crate::error::Cause;
use crate::reference::Reference;
use crate::store::Registry;
use reqwest::redirect;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The registry of `docker.io` has another name than the names in it.
const DOCKER_HOST: &str = "registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may be silent before it counts as broken.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 10;
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// All HTTP of a store: clients by what they trust, and tokens by whose they are.
pub(crate) struct Clients {
    registries: Vec<Registry>,
    built: Mutex<HashMap<Trust, reqwest::Client>>,
    pub(super) tokens: Tokens,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("registries", &self.registries).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Trust {
    skip_verify: bool,
    ca_file: Option<PathBuf>,
    /// A proxy is never asked for this machine.
    is_loopback: bool,
}

/// A place to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `https://host[:port][/path]`, no slash at the end.
    pub(super) base: String,
    /// For messages.
    pub(super) host: String,
    /// The registry that was named, not a mirror.
    pub(super) is_registry: bool,
    /// What a mirror is told whom it stands for.
    pub(super) stands_for: Option<String>,
    pub(super) http: reqwest::Client,
}

impl Clients {
    pub(crate) fn new(registries: Vec<Registry>) -> Self {
        Self { registries, built: Mutex::default(), tokens: Tokens::default() }
    }

    /// Where to ask for what is on `host`: its mirrors in order, then itself.
    pub(super) fn endpoints(&self, host: &str) -> Result<Vec<Endpoint>, Cause> {
        let mut endpoints = Vec::new();
        for mirror in self.settings(host).map(|of| of.mirrors.as_slice()).unwrap_or_default() {
            let base = if mirror.contains("://") { mirror.clone() } else { self.base(mirror) };
            let name = host_of(&base).to_owned();
            endpoints.push(Endpoint {
                http: self.client(&name)?,
                base: base.trim_end_matches('/').trim_end_matches("/v2").to_owned(),
                is_registry: name == host,
                stands_for: Some(host.to_owned()),
                host: name,
            });
        }
        endpoints.push(Endpoint {
            base: self.base(host),
            host: host.to_owned(),
            is_registry: true,
            stands_for: None,
            http: self.client(host)?,
        });
        Ok(endpoints)
    }

    fn settings(&self, host: &str) -> Option<&Registry> {
        self.registries.iter().find(|of| of.host == host)
    }

    fn base(&self, host: &str) -> String {
        let settings = self.settings(host);
        let wants_tls = settings.is_some_and(|of| of.ca_file.is_some() || of.skip_verify);
        let is_plain = settings.is_some_and(|of| of.plain_http)
            || (Reference::is_loopback(host) && !wants_tls);
        let name = if host == "docker.io" { DOCKER_HOST } else { host };
        format!("{}://{name}", if is_plain { "http" } else { "https" })
    }

    fn client(&self, host: &str) -> Result<reqwest::Client, Cause> {
        let settings = self.settings(host);
        let trust = Trust {
            skip_verify: settings.is_some_and(|of| of.skip_verify),
            ca_file: settings.and_then(|of| of.ca_file.clone()),
            is_loopback: Reference::is_loopback(host),
        };
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = built.get(&trust) {
            return Ok(client.clone());
        }
        let client = build(&trust)?;
        built.insert(trust, client.clone());
        Ok(client)
    }
}

fn build(trust: &Trust) -> Result<reqwest::Client, Cause> {
    // Another crate of the process may have chosen a provider first: just as good.
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .redirect(redirect::Policy::custom(follow))
        .tls_danger_accept_invalid_certs(trust.skip_verify);
    if trust.is_loopback {
        builder = builder.no_proxy();
    }
    if let Some(path) = &trust.ca_file {
        let pem = crate::files::read(path, CA_FILE_BYTES_MAX)
            .map_err(|source| Cause::CaFile { path: path.clone(), source })?;
        let wrong = || Cause::Document {
            what: path.display().to_string(),
            why: "it has no CA certificate in PEM form".into(),
        };
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|_| wrong())?;
        if certificates.is_empty() {
            return Err(wrong());
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|err| Cause::Document {
        what: "the TLS settings".into(),
        why: super::exchange::words(&err),
    })
}

/// Registries send us elsewhere for layers. reqwest leaves credentials out when the host changes.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else if was_secure && attempt.url().scheme() != "https" {
        attempt.error("a redirect from HTTPS to plain HTTP")
    } else {
        attempt.follow()
    }
}

fn host_of(base: &str) -> &str {
    let behind = base.split_once("://").map_or(base, |(_, behind)| behind);
    behind.split('/').next().unwrap_or(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(host: &str) -> Registry {
        Registry { host: host.into(), ..Default::default() }
    }

    #[test]
    fn plain_http_is_for_this_machine_and_where_it_is_configured() {
        let clients = Clients::new(vec![
            Registry { plain_http: true, ..registry("plain.example.org") },
            Registry { skip_verify: true, ..registry("127.0.0.1:5001") },
        ]);
        for (host, wanted) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("127.0.0.1:5001", "https://127.0.0.1:5001"),
            ("plain.example.org", "http://plain.example.org"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ] {
            assert_eq!(clients.base(host), wanted);
        }
    }

    #[test]
    fn mirrors_come_first_and_are_told_whom_they_stand_for() {
        let mirrors = vec!["http://127.0.0.1:5000/v2/".to_owned(), "mirror.example.org".to_owned()];
        let clients = Clients::new(vec![Registry { mirrors, ..registry("registry.k8s.io") }]);
        let endpoints = clients.endpoints("registry.k8s.io").unwrap();
        let bases: Vec<&str> = endpoints.iter().map(|of| of.base.as_str()).collect();
        assert_eq!(
            bases,
            ["http://127.0.0.1:5000", "https://mirror.example.org", "https://registry.k8s.io"]
        );
        assert_eq!(endpoints[0].stands_for.as_deref(), Some("registry.k8s.io"));
        let named: Vec<bool> = endpoints.iter().map(|of| of.is_registry).collect();
        assert_eq!(named, [false, false, true], "credentials are for the registry itself");
    }
}
