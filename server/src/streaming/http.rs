// SPDX-License-Identifier: Apache-2.0
//! HTTP/1.1 up to the upgrade: which session a URL stands for, and what then carries it.

use super::{Asked, Streaming, attach, forward, remote};
use hull_streaming::session::{Patience, Watched};
use hull_streaming::upgrade::{Speak, choose, refuse};
use hull_streaming::{spdy, websocket};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send its request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Pause after the listener failed, which means that descriptors ran out.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection is quiet before the client's kernel is asked whether there still is one.
const PROBE: Duration = Duration::from_secs(30);
/// After how many questions in vain it counts as gone.
const PROBES: u32 = 3;

/// Serves for as long as the daemon lives.
pub(super) async fn serve(streaming: Arc<Streaming>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Others wait in the backlog. The semaphore is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let streaming = Arc::clone(&streaming);
                tokio::spawn(async move {
                    connection(streaming, stream).await;
                    drop(place);
                });
            }
            Err(err) => {
                warn!(error = %err, "streaming connection not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(streaming: Arc<Streaming>, stream: TcpStream) {
    // Keystrokes must not wait for more of them.
    let _slower = stream.set_nodelay(true);
    let Ok((stream, second)) = twice(stream) else { return };
    let (session, mut begun) = tokio::sync::mpsc::channel(1);
    let answer = service_fn(|request| {
        let answer = answer(&streaming, request, &session);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await;
    if let Err(err) = served {
        debug!(error = %err, "streaming connection broke");
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
}

type Begin = tokio::sync::mpsc::Sender<Begun>;

fn answer(streaming: &Streaming, request: Request<Incoming>, begin: &Begin) -> Response<String> {
    let mut parts = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (path, token) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (tokens, now) = (&streaming.tokens, Instant::now());
    let unknown =
        || refuse(StatusCode::NOT_FOUND, "this URL was used before, has expired or never was");
    let Some(asked) = tokens.see(token, now).filter(|asked| asked.path() == path) else {
        return unknown();
    };
    let (speak, response) = match choose(&request, asked.used()) {
        Ok(chosen) => chosen,
        Err(refused) => return refused,
    };
    // Of two that were accepted at once, one was first.
    let Some(asked) = tokens.take(token, now) else { return unknown() };
    let upgrade = hyper::upgrade::on(request);
    if begin.try_send(Begun { asked, speak, upgrade }).is_err() {
        return refuse(StatusCode::BAD_REQUEST, "one session per connection");
    }
    response
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
