// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 until the upgrade: finds the session of a URL, and starts it with the negotiated protocol.
//!
//! The rule: one request per connection. A connection that has not shown a token within [`HEAD_MAX`], or is refused,
//! is closed. Browsers are refused: see [`is_from_browser`].

use super::admission::{PendingSlot, SessionSlot};
use super::state::State;
use super::tokens::StreamRequest;
use super::{attach, forward, remote};
use crate::limits;
use crate::metrics::Level;
use hull_streaming::session::{KeepAlive, TrackedIo};
use hull_streaming::upgrade::{Protocol, negotiate, refuse};
use hull_streaming::{spdy, websocket};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// Total time for a connection to show its token.
const HEAD_MAX: Duration = limits::HEAD_S.time();
/// Most bytes of a request's head: proxies pass on the tokens and cookies of their clients.
const HEAD_BYTES_MAX: usize = limits::HEAD_BYTES.count();
/// Added by every proxy: k8s.io/apimachinery `UpgradeAwareHandler`; the header from before RFC 7239.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Pause after a failed accept, which means that no descriptors are left.
const PAUSE: Duration = Duration::from_millis(100);
/// Idle time of a connection before the kernel sends keepalive probes to the client's.
const PROBE: Duration = Duration::from_secs(30);
/// Unanswered probes after which the connection is closed.
const PROBES: u32 = 3;

/// Accepts connections for the lifetime of the daemon.
pub(super) async fn serve(state: Arc<State>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => state.pending.enter(|slot| {
                tokio::spawn(connection(Arc::clone(&state), stream, slot)).abort_handle()
            }),
            Err(err) => {
                warn!(error = %err, "streaming connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, slot: PendingSlot) {
    // Keystrokes must not be delayed. Without this they only are slower.
    let _slower = stream.set_nodelay(true);
    let Ok((stream, second)) = duplicate(stream) else { return };
    let (session, mut accepted) = tokio::sync::mpsc::channel(1);
    let answer = service_fn(|request| {
        let answer = answer(&state, request, &session).inspect(|_| slot.leave());
        let answer = answer.unwrap_or_else(|mut refused| {
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            refused
        });
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    match tokio::time::timeout(HEAD_MAX, served).await {
        Ok(Ok(())) => {}
        Ok(Err(err)) => debug!(error = %err, "streaming connection broke"),
        Err(_) => debug!("streaming connection closed: no session within {HEAD_MAX:?}"),
    }
    if let Ok(session) = accepted.try_recv() {
        run(&state, session, hangup(second)).await;
    }
}

/// A second descriptor of the same connection, on which only its end is awaited. Enables keepalive probes.
fn duplicate(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    // If the last bytes of a client do not fit into the daemon's socket, its end does not arrive: the client's
    // kernel keeps them and gives up silently. Only probes detect that.
    sockopt::set_tcp_keepidle(&stream, PROBE)?;
    sockopt::set_tcp_keepintvl(&stream, PROBE)?;
    sockopt::set_tcp_keepcnt(&stream, PROBES)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    let second = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, second))
}

/// Resolves when the client has closed the connection, even if there are unread bytes.
async fn hangup(stream: TcpStream) {
    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // The session reads the bytes; this only waits for the next change.
        let _none = stream.try_io(Interest::READABLE, nothing);
    }
}

/// A session that was accepted by the response to its client.
struct AcceptedSession {
    stream_request: StreamRequest,
    protocol: Protocol,
    upgrade: hyper::upgrade::OnUpgrade,
    _slot: SessionSlot,
    _open: Level,
}

type Accept = tokio::sync::mpsc::Sender<AcceptedSession>;

/// The response that accepts a session.
///
/// # Errors
/// The response that refuses it.
fn answer(
    state: &State,
    request: Request<Incoming>,
    accept: &Accept,
) -> Result<Response<String>, Response<String>> {
    if is_from_browser(request.headers(), state.address) {
        let why = "this address is for the node's kubelet: Host or Origin names another";
        return Err(refuse(StatusCode::FORBIDDEN, why));
    }
    let mut parts = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (path, token) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (tokens, now) = (&state.tokens, Instant::now());
    let unknown =
        || refuse(StatusCode::NOT_FOUND, "this URL is unknown, was used already, or has expired");
    let stream_request =
        tokens.peek(token, now).filter(|of| of.path() == path).ok_or_else(unknown)?;
    let (protocol, response) = negotiate(&request, stream_request.purpose())?;
    let slot = state.sessions.enter(stream_request.target_id()).ok_or_else(|| {
        refuse(StatusCode::SERVICE_UNAVAILABLE, "too many sessions are open; close some of them")
    })?;
    // Of two concurrent requests, one gets the session.
    let stream_request = tokens.redeem(token, now).ok_or_else(unknown)?;
    let kind = [stream_request.path()];
    state.node.metrics.sessions_opened.count(&kind);
    let open = state.node.metrics.sessions.enter(&kind);
    let upgrade = hyper::upgrade::on(request);
    accept
        .try_send(AcceptedSession { stream_request, protocol, upgrade, _slot: slot, _open: open })
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "one session per connection"))?;
    Ok(response)
}

/// Whether a web page made its reader's browser send this request: `Host` is another name that resolves to loopback,
/// or `Origin` is another site. Kubelets pass on both headers of their clients, but also add `X-Forwarded-For`, which
/// a page cannot make a browser send with an upgrade.
fn is_from_browser(headers: &HeaderMap, address: SocketAddr) -> bool {
    if headers.contains_key(FORWARDED_FOR) {
        return false;
    }
    let (own, local) = (address.to_string(), format!("localhost:{}", address.port()));
    let is_own = |name: &str| name == own || name.eq_ignore_ascii_case(&local);
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).unwrap_or_default();
    let host = headers.get(HOST).map(text).unwrap_or_default();
    let origin = headers.get(ORIGIN).map(text);
    !is_own(&host)
        || origin.is_some_and(|origin| !origin.strip_prefix("http://").is_some_and(is_own))
}

async fn run(
    state: &State,
    accepted: AcceptedSession,
    hangup: impl Future<Output = ()> + Send + 'static,
) {
    let upgraded = match accepted.upgrade.await {
        Ok(upgraded) => upgraded,
        Err(err) => {
            debug!(error = %err, "streaming connection broke at its upgrade");
            return;
        }
    };
    let io = TrackedIo::new(TokioIo::new(upgraded));
    let last_activity = (io.last_activity(), KeepAlive::DEFAULT);
    let version = accepted.protocol.version();
    let session = match (accepted.protocol, &accepted.stream_request) {
        (
            Protocol::Channels(channels, _),
            StreamRequest::Exec { requested, .. } | StreamRequest::Attach { requested, .. },
        ) => websocket::open(io, channels, *requested, last_activity, hangup).await,
        (Protocol::Tunnel, _) => {
            let (inner, carry) = websocket::tunnel::through(io).await;
            let mut session = spdy::open(inner, last_activity, hangup);
            session.attach_task(carry);
            session
        }
        (Protocol::Spdy(_) | Protocol::Channels(..), _) => spdy::open(io, last_activity, hangup),
    };
    match accepted.stream_request {
        StreamRequest::Exec { container, cmd, requested } => {
            let node = &state.node;
            remote::exec(node, &container, cmd, requested, version, session).await;
        }
        StreamRequest::Attach { container, requested } => {
            attach::serve(&state.node, &container, requested, version, session).await;
        }
        StreamRequest::PortForward { pod } => forward::serve(&state.node, &pod, session).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_browser(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        is_from_browser(&headers.collect(), SocketAddr::from(([127, 0, 0, 1], 4000)))
    }

    #[test]
    fn browsers_are_refused_and_proxying_kubelets_are_not() {
        assert!(!is_browser(&[(HOST, "127.0.0.1:4000")]));
        assert!(!is_browser(&[(HOST, "Localhost:4000"), (ORIGIN, "http://127.0.0.1:4000")]));
        for host in ["127.0.0.1", "127.0.0.1:4001", "rebound.example:4000", "", "localhost"] {
            assert!(is_browser(&[(HOST, host)]), "{host}");
        }
        for origin in
            ["null", "http://page.example", "https://127.0.0.1:4000", "http://127.0.0.1:40000"]
        {
            assert!(is_browser(&[(HOST, "127.0.0.1:4000"), (ORIGIN, origin)]), "{origin}");
        }
        assert!(is_browser(&[]));
        let by_kubelet = [
            (HOST, "api.example:6443"),
            (ORIGIN, "https://dashboard.example"),
            (FORWARDED_FOR, "192.0.2.1"),
        ];
        assert!(!is_browser(&by_kubelet));
    }
}
