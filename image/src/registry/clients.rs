// SPDX-License-Identifier: Apache-2.0
//! The endpoints of a registry, in the order in which they are tried.
//!
//! The rule: plain HTTP only where it is configured, or on this machine itself. Credentials are for
//! the registry that was named, or the server that the operator configured for it; they are never
//! sent to mirrors. Settings are found by the normalized name of a host.

use super::breaker::Breakers;
use super::client::{self, Key};
use super::counters::{Counters, PullFigures};
use super::directory;
use super::endpoint::Endpoint;
use super::hosts::{Host, Trust};
use super::token::Tokens;
use crate::error::Cause;
use crate::reference::host::{is_loopback, normal_or_lower};
use crate::types::{Registry, Remote};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The host of the registry `docker.io`.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// The HTTP clients of a store by their TLS settings, with the tokens and circuit breakers.
pub(crate) struct Clients {
    settings: Remote,
    built: Mutex<HashMap<Key, reqwest::Client>>,
    pub(super) tokens: Tokens,
    pub(super) breakers: Breakers,
    pub(crate) counters: Arc<Counters>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Clients {
    pub(crate) fn new(mut settings: Remote) -> Self {
        for of in &mut settings.registries {
            of.host = normal_or_lower(&of.host);
        }
        let (built, tokens, breakers, counters) = Default::default();
        Self { settings, built, tokens, breakers, counters }
    }

    /// The clients for other settings, which go on counting where these are.
    pub(crate) fn with(&self, settings: Remote) -> Self {
        Self { counters: Arc::clone(&self.counters), ..Self::new(settings) }
    }

    /// The figures of pulls so far; `running` of them go on.
    pub(crate) fn figures(&self, running: u64) -> PullFigures {
        self.counters.figures(self.breakers.states(), running)
    }

    /// How long a connection may receive nothing before it counts as stalled.
    pub(super) fn stall(&self) -> Duration {
        self.settings.stall
    }

    /// The first pause before a request is sent again.
    pub(super) fn pause(&self) -> Duration {
        self.settings.pause
    }

    /// The endpoints for `host`: its mirrors in order, then the registry.
    pub(super) fn endpoints(&self, host: &str) -> Result<Vec<Endpoint>, Cause> {
        let hosts = self.hosts(host)?;
        let mut endpoints = Vec::new();
        let last = hosts.len() - 1;
        for (number, of) in hosts.into_iter().enumerate() {
            let name = host_of(&of.api).to_owned();
            // Its name without TLS is another place.
            let is_itself =
                normal_or_lower(&name) == host && scheme(&of.api) == scheme(&self.base(host));
            let mut headers = HeaderMap::new();
            for (name, value) in &of.headers {
                // They were looked at when they were read.
                if let (Ok(name), Ok(mut value)) =
                    (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
                {
                    value.set_sensitive(true);
                    headers.append(name, value);
                }
            }
            let trust_elsewhere = Trust { client: None, ..of.trust.clone() };
            // Who gives a host more time to be reached does not want it cut short.
            let more = of.trust.connect_timeout.unwrap_or_default();
            let stall = self.stall().saturating_add(more);
            endpoints.push(Endpoint {
                stall,
                http: self.client(&name, of.trust)?,
                http_elsewhere: self.client(&name, trust_elsewhere)?,
                is_registry: number == last || is_itself,
                stands_for: (!is_itself).then(|| host.to_owned()),
                resolves: of.resolves,
                pulls: of.pulls,
                headers,
                api: of.api,
                has_answered: Arc::default(),
                host: if is_itself { host.to_owned() } else { name },
            });
        }
        Ok(endpoints)
    }

    fn hosts(&self, host: &str) -> Result<Vec<Host>, Cause> {
        if let Some(root) = &self.settings.config_path
            && let Some(hosts) = directory::find(root, host, &self.base(host))?
        {
            return Ok(hosts);
        }
        let settings = self.settings(host);
        let mut hosts = Vec::new();
        for mirror in settings.map(|of| of.mirrors.as_slice()).unwrap_or_default() {
            let base = if mirror.contains("://") { mirror.clone() } else { self.base(mirror) };
            let is_good = |url: Url| url.username().is_empty() && url.password().is_none();
            if !Url::parse(&base).is_ok_and(is_good) {
                return Err(Cause::Document {
                    what: format!("the address of a mirror of {host}"),
                    why: "it is not a URL, or has credentials in it".into(),
                });
            }
            hosts.push(self.host(&base));
        }
        hosts.push(self.host(&self.base(host)));
        Ok(hosts)
    }

    fn host(&self, base: &str) -> Host {
        let settings = self.settings(host_of(base));
        let trust = Trust {
            skip_verify: settings.is_some_and(|of| of.skip_verify),
            ca: settings.and_then(|of| of.ca_file.clone()).into_iter().collect(),
            ..Trust::default()
        };
        let base = base.trim_end_matches('/').trim_end_matches("/v2");
        let api = format!("{base}/v2");
        Host { api, resolves: true, pulls: true, trust, headers: Vec::new() }
    }

    fn settings(&self, host: &str) -> Option<&Registry> {
        let host = normal_or_lower(host);
        self.settings.registries.iter().find(|of| of.host == host)
    }

    fn base(&self, host: &str) -> String {
        let settings = self.settings(host);
        let wants_tls = settings.is_some_and(|of| of.ca_file.is_some() || of.skip_verify);
        let is_plain =
            settings.is_some_and(|of| of.plain_http) || (is_loopback(host) && !wants_tls);
        let name = if host == "docker.io" { DOCKER_HOST } else { host };
        format!("{}://{name}", if is_plain { "http" } else { "https" })
    }

    fn client(&self, host: &str, trust: Trust) -> Result<reqwest::Client, Cause> {
        let key = Key::new(trust, is_loopback(host));
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = built.get(&key) {
            return Ok(client.clone());
        }
        let client = client::build(&key)?;
        built.insert(key, client.clone());
        Ok(client)
    }
}

fn scheme(base: &str) -> &str {
    base.split_once("://").map_or("", |(scheme, _)| scheme)
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

    fn clients(registries: Vec<Registry>) -> Clients {
        Clients::new(Remote { registries, ..Default::default() })
    }

    #[test]
    fn plain_http_is_for_this_machine_and_where_it_is_configured() {
        let clients = clients(vec![
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
        let clients = clients(vec![Registry { mirrors, ..registry("registry.k8s.io") }]);
        let endpoints = clients.endpoints("registry.k8s.io").unwrap();
        let apis: Vec<&str> = endpoints.iter().map(|of| of.api.as_str()).collect();
        assert_eq!(
            apis,
            [
                "http://127.0.0.1:5000/v2",
                "https://mirror.example.org/v2",
                "https://registry.k8s.io/v2"
            ]
        );
        assert_eq!(endpoints[0].stands_for.as_deref(), Some("registry.k8s.io"));
        let named: Vec<bool> = endpoints.iter().map(|of| of.is_registry).collect();
        assert_eq!(named, [false, false, true], "credentials are for the registry itself");
    }

    #[test]
    fn settings_are_found_by_every_spelling_of_the_registry() {
        let mirrors = vec!["https://Mirror.example.org:443".to_owned()];
        let clients = clients(vec![
            Registry { mirrors, ..registry("Registry-1.docker.io:443") },
            Registry { plain_http: true, ..registry("PLAIN.example.org:8080") },
        ]);
        let apis: Vec<String> =
            clients.endpoints("docker.io").unwrap().into_iter().map(|of| of.api).collect();
        assert_eq!(apis, ["https://Mirror.example.org:443/v2", "https://registry-1.docker.io/v2"]);
        assert_eq!(clients.base("plain.example.org:8080"), "http://plain.example.org:8080");
    }

    #[test]
    fn a_mirror_is_the_registry_itself_in_any_spelling_but_not_without_tls() {
        for (mirror, is_registry) in [
            ("https://REG.example.org:443", true),
            ("https://reg.example.org/v2", true),
            ("http://reg.example.org", false),
            ("http://reg.example.org:443", false),
            ("https://reg.example.org:8443", false),
            ("https://reg.example.org.evil", false),
        ] {
            let clients = clients(vec![Registry {
                mirrors: vec![mirror.into()],
                ..registry("reg.example.org")
            }]);
            let first = clients.endpoints("reg.example.org").unwrap().remove(0);
            assert_eq!(first.is_registry, is_registry, "{mirror}");
        }
        for mirror in ["https://user:secret@mirror.example.org", "https://"] {
            let clients = clients(vec![Registry {
                mirrors: vec![mirror.into()],
                ..registry("reg.example.org")
            }]);
            let err = clients.endpoints("reg.example.org").unwrap_err().to_string();
            assert!(
                err.contains("a mirror of reg.example.org") && !err.contains("secret"),
                "{err}"
            );
        }
    }

    #[test]
    fn a_server_that_stands_in_place_of_the_registry_is_the_only_one_asked() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("docker.io");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("hosts.toml"), "server = \"https://inside.example.org\"").unwrap();
        let settings = Remote { config_path: Some(dir.path().into()), ..Default::default() };
        let endpoints = Clients::new(settings).endpoints("docker.io").unwrap();
        let asked: Vec<(&str, bool)> =
            endpoints.iter().map(|of| (of.api.as_str(), of.is_registry)).collect();
        assert_eq!(asked, [("https://inside.example.org/v2", true)]);
        assert_eq!(endpoints[0].stands_for.as_deref(), Some("docker.io"));
    }
}
