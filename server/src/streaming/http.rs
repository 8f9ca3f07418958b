// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 up to the upgrade: which session a URL stands for, and what then carries it.
//!
//! The rule: one request per connection, soon. A connection that has not shown a token after
//! [`HEAD_MAX`], or is refused, is closed. Browsers are sent away: see [`is_led_here`].

use super::waiting::{Place, SessionPlace};
use super::{Asked, Streaming, attach, forward, remote};
use crate::limits;
use hull_streaming::session::{Patience, Watched};
use hull_streaming::upgrade::{Speak, choose, refuse};
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

/// How long a connection may take in all until it has shown its token.
const HEAD_MAX: Duration = limits::HEAD_S.time();
/// Most of a request's head, in bytes: proxies hand on their clients' tokens and cookies.
const HEAD_BYTES_MAX: usize = limits::HEAD_BYTES.count();
/// Added by proxies, each time: k8s.io/apimachinery `UpgradeAwareHandler`, RFC 7239 of old.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Pause after the listener failed, which means that descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection is quiet before the client's kernel is asked whether there still is one.
const PROBE: Duration = Duration::from_secs(30);
/// After how many questions in vain it counts as gone.
const PROBES: u32 = 3;

/// Serves for as long as the daemon lives.
pub(super) async fn serve(streaming: Arc<Streaming>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => streaming.waiting.enter(|place| {
                tokio::spawn(connection(Arc::clone(&streaming), stream, place)).abort_handle()
            }),
            Err(err) => {
                warn!(error = %err, "streaming connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(streaming: Arc<Streaming>, stream: TcpStream, place: Place) {
    // Keystrokes must not wait for more of them.
    let _slower = stream.set_nodelay(true);
    let Ok((stream, second)) = twice(stream) else { return };
    let (session, mut begun) = tokio::sync::mpsc::channel(1);
    let answer = service_fn(|request| {
        let answer = answer(&streaming, request, &session).inspect(|_| place.leave());
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
    if let Ok(session) = begun.try_recv() {
        run(&streaming, session, hangup(second)).await;
    }
}

/// The same connection by a second descriptor, which is only watched.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    // Nobody hears the end of a client whose last bytes do not fit into our socket: its kernel keeps
    // them until it gives up, silently. Then only this asks.
    sockopt::set_tcp_keepidle(&stream, PROBE)?;
    sockopt::set_tcp_keepintvl(&stream, PROBE)?;
    sockopt::set_tcp_keepcnt(&stream, PROBES)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    let second = TcpStream::from_std(stream.try_clone()?)?;
    Ok((TcpStream::from_std(stream)?, second))
}

/// Resolves when the client has closed the connection, whatever is still to be read from it.
async fn hangup(stream: TcpStream) {
    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        // Others read it; here only the next change is waited for.
        let _none = stream.try_io(Interest::READABLE, nothing);
    }
}

/// A session whose client has been told to begin.
struct Begun {
    asked: Asked,
    speak: Speak,
    upgrade: hyper::upgrade::OnUpgrade,
    _place: SessionPlace,
}

type Begin = tokio::sync::mpsc::Sender<Begun>;

/// The answer that begins a session; or the one that refuses it.
fn answer(
    streaming: &Streaming,
    request: Request<Incoming>,
    begin: &Begin,
) -> Result<Response<String>, Response<String>> {
    if is_led_here(request.headers(), streaming.address) {
        let why = "this address is for the node's kubelet: Host or Origin names another";
        return Err(refuse(StatusCode::FORBIDDEN, why));
    }
    let mut parts = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (path, token) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (tokens, now) = (&streaming.tokens, Instant::now());
    let unknown =
        || refuse(StatusCode::NOT_FOUND, "this URL was used before, has expired or never was");
    let asked = tokens.see(token, now).filter(|asked| asked.path() == path).ok_or_else(unknown)?;
    let (speak, response) = choose(&request, asked.used())?;
    let place = streaming.sessions.enter(asked.with()).ok_or_else(|| {
        refuse(StatusCode::SERVICE_UNAVAILABLE, "too many sessions are open; close some of them")
    })?;
    // Of two that were accepted at once, one was first.
    let asked = tokens.take(token, now).ok_or_else(unknown)?;
    let upgrade = hyper::upgrade::on(request);
    begin
        .try_send(Begun { asked, speak, upgrade, _place: place })
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "one session per connection"))?;
    Ok(response)
}

/// Whether a page has led its reader's browser here: by a name that resolves to loopback (`Host`), or from elsewhere
/// (`Origin`). Kubelets hand on both as their clients sent them, and say for whom they speak, which no page
/// can have a browser do when it asks for an upgrade.
fn is_led_here(headers: &HeaderMap, address: SocketAddr) -> bool {
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
    streaming: &Streaming,
    begun: Begun,
    hangup: impl Future<Output = ()> + Send + 'static,
) {
    let upgraded = match begun.upgrade.await {
        Ok(upgraded) => upgraded,
        Err(err) => {
            debug!(error = %err, "streaming connection broke at its upgrade");
            return;
        }
    };
    let io = Watched::new(TokioIo::new(upgraded));
    let pulse = (io.pulse(), Patience::USUAL);
    let version = begun.speak.version();
    let session = match (begun.speak, &begun.asked) {
        (
            Speak::Channels(channels, _),
            Asked::Exec { wanted, .. } | Asked::Attach { wanted, .. },
        ) => websocket::open(io, channels, *wanted, pulse, hangup).await,
        (Speak::Tunnel, _) => {
            let (inner, carry) = websocket::tunnel::through(io).await;
            let mut session = spdy::open(inner, pulse, hangup);
            session.along(carry);
            session
        }
        (Speak::Spdy(_) | Speak::Channels(..), _) => spdy::open(io, pulse, hangup),
    };
    match begun.asked {
        Asked::Exec { container, cmd, wanted } => {
            let node = &streaming.node;
            remote::exec(node, &container, cmd, wanted, version, session).await;
        }
        Asked::Attach { container, wanted } => {
            attach::serve(&streaming.node, &container, wanted, version, session).await;
        }
        Asked::PortForward { pod } => forward::serve(&streaming.node, &pod, session).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_led(headers: &[(HeaderName, &'static str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        is_led_here(&headers.collect(), SocketAddr::from(([127, 0, 0, 1], 4000)))
    }

    #[test]
    fn browsers_are_sent_away_and_kubelets_hand_on_what_they_were_sent() {
        assert!(!is_led(&[(HOST, "127.0.0.1:4000")]));
        assert!(!is_led(&[(HOST, "Localhost:4000"), (ORIGIN, "http://127.0.0.1:4000")]));
        for host in ["127.0.0.1", "127.0.0.1:4001", "rebound.example:4000", "", "localhost"] {
            assert!(is_led(&[(HOST, host)]), "{host}");
        }
        for origin in
            ["null", "http://page.example", "https://127.0.0.1:4000", "http://127.0.0.1:40000"]
        {
            assert!(is_led(&[(HOST, "127.0.0.1:4000"), (ORIGIN, origin)]), "{origin}");
        }
        assert!(is_led(&[]));
        let by_kubelet = [
            (HOST, "api.example:6443"),
            (ORIGIN, "https://dashboard.example"),
            (FORWARDED_FOR, "192.0.2.1"),
        ];
        assert!(!is_led(&by_kubelet));
    }
}
