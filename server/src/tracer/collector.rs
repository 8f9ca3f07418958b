// SPDX-License-Identifier: Apache-2.0
//! The connection to a collector: plain, or by TLS with the files of the settings.
//!
//! The rule: files are read at every connection, so that renewed certificates need no restart. They are also read when
//! the daemon starts: one that cannot be used is an error then.

use crate::config::Tracing;
use crate::error::Chain;
use crate::storage::blocking;
use hyper_util::rt::TokioIo;
use opentelemetry_otlp::ExporterBuildError;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use tracing::warn;

/// Time to connect, with the handshake of TLS.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Time of one batch, as in other programs of OpenTelemetry.
const EXPORT_MAX: Duration = Duration::from_secs(10);
/// The port of an address by TLS that names none.
const HTTPS_PORT: u16 = 443;

/// Why traces cannot be sent. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("send traces to `{endpoint}` (`tracing.endpoint`)")]
    Address { endpoint: String, source: tonic::transport::Error },
    #[error("send traces to `{endpoint}` (`tracing.endpoint`)")]
    Exporter { endpoint: String, source: ExporterBuildError },
    #[error("send traces to `{endpoint}` by TLS")]
    Tls { endpoint: String, source: Box<hull_image::Cause> },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } | Self::Exporter { .. } => {
                "set `tracing.endpoint` to an address such as http://127.0.0.1:4317"
            }
            Self::Tls { .. } => {
                "`tracing.ca_file`, `tracing.client_cert` and `tracing.client_key` must be regular PEM files that root can read, and the key that of the certificate; without `ca_file` the system needs certificates of CAs (package ca-certificates)"
            }
        }
    }
}

/// A channel to the collector, which connects when there is something to send.
pub(super) fn channel(settings: &Tracing, endpoint: &str) -> Result<Channel, Error> {
    let address = |source| Error::Address { endpoint: endpoint.to_owned(), source };
    let limited = |of: Endpoint| of.timeout(EXPORT_MAX).connect_timeout(CONNECT_MAX);
    let given = Endpoint::from_shared(endpoint.to_owned()).map_err(address)?;
    let Some(rest) = endpoint.strip_prefix("https://") else {
        return Ok(limited(given).connect_lazy());
    };
    // To tonic it is plain: the connector does TLS, and requests have the address as it is.
    let plain = Endpoint::from_shared(format!("http://{rest}")).map_err(address)?;
    let plain = limited(plain).origin(given.uri().clone());
    let host = given.uri().host().unwrap_or_default();
    let by_tls = Arc::new(ByTls {
        // An IPv6 address is in brackets.
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: given.uri().port_u16().unwrap_or(HTTPS_PORT),
        ca: settings.ca_file.clone(),
        identity: settings.client_cert.clone().zip(settings.client_key.clone()),
        failure: Mutex::default(),
    });
    let unusable = |source| Error::Tls { endpoint: endpoint.to_owned(), source };
    let _usable = by_tls.config().map_err(unusable)?;
    Ok(plain.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let by_tls = Arc::clone(&by_tls);
        async move { by_tls.connect().await.map(TokioIo::new) }
    })))
}

/// A collector that is reached by TLS.
struct ByTls {
    host: String,
    port: u16,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    /// The failure that was logged last, until a connection succeeds.
    failure: Mutex<Option<String>>,
}

impl ByTls {
    /// Reads the files. Blocks.
    fn config(&self) -> Result<ClientConfig, Box<hull_image::Cause>> {
        let identity = self.identity.as_ref().map(|(of, key)| (of.as_path(), key.as_path()));
        let mut config = hull_image::tls_client(self.ca.as_deref(), identity).map_err(Box::new)?;
        // gRPC is HTTP/2.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// Connects. A failure is logged if the last one was another.
    async fn connect(self: &Arc<Self>) -> io::Result<TlsStream<TcpStream>> {
        let connected = self.handshake().await;
        let failure = connected.as_ref().err().map(|err| Chain(err).to_string());
        let mut last = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &failure
            && *last != failure
        {
            warn!(
                host = self.host,
                port = self.port,
                error,
                hint = "a collector with a CA of your own needs `tracing.ca_file`, one that asks for a certificate `tracing.client_cert`",
                "the collector of traces is not reached by TLS"
            );
        }
        *last = failure;
        connected
    }

    async fn handshake(self: &Arc<Self>) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let by_tls = Arc::clone(self);
        let config = blocking(move || by_tls.config()).await.map_err(io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn by_tls(ca: &Path) -> Tracing {
        Tracing {
            endpoint: Some("https://[::1]:4317".into()),
            ca_file: Some(ca.to_owned()),
            ..Tracing::default()
        }
    }

    fn failure(settings: &Tracing) -> (String, &'static str) {
        let endpoint = settings.endpoint.as_deref().unwrap_or_default();
        let err = channel(settings, endpoint).unwrap_err();
        (Chain(&err).to_string(), err.hint())
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_an_error_at_the_start_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink("/dev/zero", path("endless")).unwrap();
        fs::write(path("nonsense"), "nonsense").unwrap();
        for (name, why) in [
            ("missing", "No such file"),
            ("endless", "it is not a regular file"),
            ("nonsense", "it has no CA certificate in PEM form"),
        ] {
            let (text, hint) = failure(&by_tls(&path(name)));
            assert!(text.contains(why) && text.contains(name), "{text}");
            assert!(text.starts_with("send traces to `https://[::1]:4317` by TLS"), "{text}");
            assert!(hint.contains("`tracing.ca_file`"), "{hint}");
        }
        let settings =
            Tracing { endpoint: Some("http://not an address".into()), ..Tracing::default() };
        let (text, hint) = failure(&settings);
        assert!(text.starts_with("send traces to `http://not an address`"), "{text}");
        assert!(hint.contains("`tracing.endpoint`"), "{hint}");
    }
}
