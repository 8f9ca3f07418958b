// SPDX-License-Identifier: Apache-2.0
//! HTTP clients: trusted CAs, client certificates, name resolution.
//!
//! Clients are built when first needed: reading the CA certificates of the machine takes 20 ms and a
//! megabyte. Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`), never for
//! this machine itself. Redirects are not followed here: see [`transport`](super::transport).

use super::failure::innermost_message;
use super::hosts::Trust;
use super::tls::{self, NOT_A_CLIENT_CERTIFICATE, wrong};
use crate::error::Cause;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONNECT_TIMEOUT: Duration = crate::limits::CONNECT_S.time();
const PEM_FILE_BYTES_MAX: u64 = 4 << 20;
/// Slower name resolution is logged, since a slow pull may wait for it.
const SLOW_NAME: Duration = Duration::from_secs(2);

/// The cache key of a client. It includes the times of the certificate files, so a change makes a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    trust: Trust,
    /// Whether the host is this machine, which is never reached through a proxy.
    is_loopback: bool,
    stamps: Vec<Option<(i64, i64, u64)>>,
}

impl Key {
    pub(super) fn new(trust: Trust, is_loopback: bool) -> Self {
        let client = trust.client.as_ref();
        let key = client.and_then(|(_, key)| key.as_ref());
        let files = trust.ca.iter().chain(client.map(|(certificate, _)| certificate)).chain(key);
        let stamps = files.map(|path| stamp(path)).collect();
        Self { trust, is_loopback, stamps }
    }
}

fn stamp(path: &Path) -> Option<(i64, i64, u64)> {
    let stat = std::fs::metadata(path).ok()?;
    Some((stat.mtime(), stat.mtime_nsec(), stat.len()))
}

/// Builds a client.
pub(super) fn build(key: &Key) -> Result<reqwest::Client, Cause> {
    // Another crate of the process may have chosen a provider first: just as good.
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let trust = &key.trust;
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("hull/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(trust.connect_timeout.unwrap_or(CONNECT_TIMEOUT))
        .redirect(redirect::Policy::none())
        .dns_resolver(Arc::new(Names))
        .tls_danger_accept_invalid_certs(trust.skip_verify);
    if key.is_loopback {
        builder = builder.no_proxy();
    }
    let mut identity = None;
    if let Some((certificate, key)) = &trust.client {
        identity = Some((certificate.as_path(), read_identity(certificate, key.as_deref())?));
    }
    let mut own = Vec::new();
    for path in &trust.ca {
        own.extend(tls::certificates(path, &read(path)?)?);
    }
    if own.is_empty() || trust.skip_verify {
        if let Some((path, pem)) = identity {
            let identity = reqwest::Identity::from_pem(&pem);
            builder =
                builder.identity(identity.map_err(|_| wrong(path, NOT_A_CLIENT_CERTIFICATE))?);
        }
    } else {
        let identity = identity.as_ref().map(|(path, pem)| (*path, pem.as_slice()));
        builder = builder.tls_backend_preconfigured(tls::config(own, identity)?);
    }
    builder.build().map_err(|err| Cause::Document {
        what: "the TLS settings".into(),
        why: innermost_message(&err),
    })
}

/// The TLS settings by which Hull is a client of a server that is not a registry, with the same trust: in the
/// certificates of the machine and those of `ca`. `identity` is a client certificate and its key. Blocks.
///
/// # Errors
/// A file cannot be read or used; or there are no certificates to trust.
pub fn tls_client(
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<rustls::ClientConfig, Cause> {
    let _chosen_already = rustls::crypto::ring::default_provider().install_default();
    let own = match ca {
        Some(path) => tls::certificates(path, &read(path)?)?,
        None => Vec::new(),
    };
    let mut pem = None;
    if let Some((certificate, key)) = identity {
        pem = Some((certificate, read_identity(certificate, Some(key))?));
    }
    tls::config(own, pem.as_ref().map(|(path, pem)| (*path, pem.as_slice())))
}

/// A client certificate with its key, which may be in the same file.
fn read_identity(certificate: &Path, key: Option<&Path>) -> Result<Vec<u8>, Cause> {
    let mut pem = read(certificate)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    Ok(pem)
}

fn read(path: &Path) -> Result<Vec<u8>, Cause> {
    hull_sys::files::read(path, PEM_FILE_BYTES_MAX)
        .map_err(|err| Cause::CaFile { path: path.to_owned(), source: Arc::new(err) })
}

/// The system's resolver, with a warning when it is slow.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let began = Instant::now();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            if began.elapsed() > SLOW_NAME {
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(host, took_ms, "name resolution is slow");
            }
            let addresses: Addrs = Box::new(found?.collect::<Vec<_>>().into_iter());
            Ok(addresses)
        })
    }
}
