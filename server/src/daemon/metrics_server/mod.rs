// SPDX-License-Identifier: Apache-2.0
//! Serves the daemon's own metrics: `GET /metrics`, as OpenMetrics text.
//!
//! ```text
//! <state_dir>/metrics.sock    always; only root can connect
//! metrics.address             by setting; with TLS and certificates of clients, or on loopback
//! ```
//!
//! Ids of traces (exemplars) are only in the answer to a client that names OpenMetrics in its `Accept` header.
//!
//! The rule: a client costs the daemon little. There is one answer per connection, within [`CONNECTION_MAX`];
//! connections are limited for each of the two listeners, so that clients of TCP cannot keep others from the socket.

mod tls;

use crate::config::Config;
use crate::metrics::Exemplars;
use crate::node::Node;
use crate::observe::scrape;
use crate::storage::blocking;
use hull_sys::{SocketFile, SocketPathError, listen_at};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tls::Files;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

/// The name of the socket in `state_dir`.
const SOCKET: &str = "metrics.sock";
/// The path of the metrics.
const PATH: &str = "/metrics";
/// The type of the text: OpenMetrics 1.0.
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// Most connections at a time, of each listener.
const CONNECTIONS_MAX: usize = 16;
/// Time of a connection, from its handshake to the end of its answer.
const CONNECTION_MAX: Duration = Duration::from_secs(20);
/// Time of a client to send its request, or its part of a handshake.
const HEAD_MAX: Duration = crate::limits::HEAD_S.time();
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Pause after a failed accept, which means that no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);

/// Why metrics cannot be served. Each text reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("serve metrics at {}", path.display())]
    Socket { path: PathBuf, source: SocketPathError },
    #[error("serve metrics at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("serve metrics at {address} (`metrics.address`)")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls { source: tls::Error },
}

impl Error {
    /// The change by which an operator fixes this.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Socket { path, source: SocketPathError::NotASocket { .. } } => Some(format!(
                "move {} away: hull removes only sockets",
                path.display()
            )),
            Self::Socket { .. } | Self::Listen { .. } => {
                Some("check that `state_dir` is writable".into())
            }
            Self::Tcp { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(
                "set `metrics.address` to a port that no other program serves (ss -ltnp), or remove it".into(),
            ),
            Self::Tcp { .. } => {
                Some("set `metrics.address` to an address of this node, or remove it".into())
            }
            Self::Tls { source } => Some(source.hint()),
        }
    }
}

/// The listeners, from which nothing has been accepted yet.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    unix: UnixListener,
    file: SocketFile,
    tcp: Option<(TcpListener, Option<Arc<Files>>)>,
}

impl MetricsServer {
    /// Listens where the configuration says.
    pub(crate) async fn listen(config: &Config) -> Result<Self, Error> {
        let path = config.state_dir.join(SOCKET);
        let (unix, file) =
            listen_at(&path).map_err(|source| Error::Socket { path: path.clone(), source })?;
        let failed = |source| Error::Listen { path: path.clone(), source };
        unix.set_nonblocking(true).map_err(failed)?;
        let unix = UnixListener::from_std(unix).map_err(failed)?;
        let tcp = match config.metrics.address {
            None => None,
            Some(address) => {
                let files = Files::of(&config.metrics).map(Arc::new);
                if let Some(files) = files.clone() {
                    // A file that cannot be used is an error now, and not at the first scrape.
                    let read = blocking(move || files.acceptor().map(drop)).await;
                    read.map_err(|source| Error::Tls { source })?;
                }
                let listener = TcpListener::bind(address).await;
                let listener = listener.map_err(|source| Error::Tcp { address, source })?;
                info!(%address, tls = files.is_some(), "metrics are served over TCP, too");
                Some((listener, files))
            }
        };
        Ok(Self { unix, file, tcp })
    }

    /// Serves for the lifetime of the daemon. Returns the file of the socket, which goes with the daemon.
    pub(crate) fn start(self, node: &Arc<Node>) -> SocketFile {
        tokio::spawn(serve_unix(Arc::clone(node), self.unix));
        if let Some((listener, files)) = self.tcp {
            tokio::spawn(serve_tcp(Arc::clone(node), listener, files));
        }
        self.file
    }
}

async fn serve_unix(node: Arc<Node>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                pause(&err).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let served = tokio::time::timeout(CONNECTION_MAX, answer(&node, stream, "socket"));
            if served.await.is_err() {
                debug!("client of metrics does not read");
            }
            drop(slot);
        });
    }
}

async fn serve_tcp(node: Arc<Node>, listener: TcpListener, files: Option<Arc<Files>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(err) => {
                pause(&err).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (node, files) = (Arc::clone(&node), files.clone());
        tokio::spawn(async move {
            let served = tokio::time::timeout(CONNECTION_MAX, of_tcp(&node, stream, files));
            if served.await.is_err() {
                debug!(%peer, "client of metrics does not read");
            }
            drop(slot);
        });
    }
}

async fn pause(err: &io::Error) {
    warn!(error = %err, "connection for metrics not accepted");
    tokio::time::sleep(PAUSE).await;
}

/// Serves a connection of TCP: with TLS, only after a handshake with a certificate.
async fn of_tcp(node: &Arc<Node>, stream: TcpStream, files: Option<Arc<Files>>) {
    let Some(files) = files else { return answer(node, stream, "tcp").await };
    let acceptor = match blocking(move || files.acceptor()).await {
        Ok(acceptor) => acceptor,
        Err(err) => {
            warn!(error = %err, hint = err.hint(), "client of metrics refused: TLS cannot be used");
            return;
        }
    };
    match tokio::time::timeout(HEAD_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => answer(node, stream, "tls").await,
        Ok(Err(err)) => debug!(error = %err, "client of metrics refused"),
        Err(_) => debug!("client of metrics sends no handshake"),
    }
}

/// Answers the one request of a connection.
async fn answer<S>(node: &Arc<Node>, stream: S, by: &'static str)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let respond = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(match refusal(request.method(), request.uri().path()) {
            Some(refused) => refused,
            None => metrics(node, by, exemplars(request.headers())).await,
        })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), respond);
    if let Err(err) = served.await {
        debug!(error = %err, "connection for metrics broke");
    }
}

/// The response to a request for something else.
fn refusal(method: &Method, path: &str) -> Option<Response<String>> {
    if method != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Some(refused);
    }
    (path != PATH).then(|| text(StatusCode::NOT_FOUND, "metrics are at /metrics\n"))
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    let mut response = Response::new(body.to_owned());
    *response.status_mut() = status;
    response
}

/// Whether a client with these headers reads exemplars: it names OpenMetrics among the types that it accepts.
fn exemplars(headers: &HeaderMap) -> Exemplars {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    if ranges.any(names_openmetrics) { Exemplars::Included } else { Exemplars::LeftOut }
}

/// Whether this range of an `Accept` header is OpenMetrics, and not one that is refused by weight 0.
fn names_openmetrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_openmetrics =
        parts.next().is_some_and(|of| of.eq_ignore_ascii_case("application/openmetrics-text"));
    let is_refused = |part: &str| {
        let weight = part.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("q"));
        weight.is_some_and(|(_, value)| value.trim().parse() == Ok(0.0_f32))
    };
    is_openmetrics && !parts.any(is_refused)
}

async fn metrics(node: &Arc<Node>, by: &'static str, exemplars: Exemplars) -> Response<String> {
    let node = Arc::clone(node);
    let Ok(body) = blocking(move || scrape::text(&node, by, exemplars)).await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n");
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_are_for_clients_that_name_openmetrics() {
        for (accepted, wanted) in [
            (vec![], Exemplars::LeftOut),
            (vec!["*/*"], Exemplars::LeftOut),
            (vec!["text/plain;version=0.0.4;q=0.5,*/*;q=0.1"], Exemplars::LeftOut),
            (vec!["application/openmetrics-text;version=1.0.0;q=0"], Exemplars::LeftOut),
            (vec!["application/openmetrics-text-other"], Exemplars::LeftOut),
            (vec!["application/openmetrics-text"], Exemplars::Included),
            (
                vec!["text/plain;q=0.2, Application/OpenMetrics-Text; version=1.0.0; q=0.6"],
                Exemplars::Included,
            ),
            (vec!["text/plain", "application/openmetrics-text;q=0.001"], Exemplars::Included),
        ] {
            let mut headers = HeaderMap::new();
            for value in &accepted {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(exemplars(&headers), wanted, "{accepted:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(exemplars(&headers), Exemplars::LeftOut);
    }

    #[test]
    fn only_the_metrics_are_served_and_only_read() {
        assert!(refusal(&Method::GET, "/metrics").is_none());
        let elsewhere = refusal(&Method::GET, "/metrics/").unwrap();
        assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
        let written = refusal(&Method::POST, "/metrics").unwrap();
        assert_eq!(written.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(written.headers()[ALLOW], "GET");
    }
}
