// SPDX-License-Identifier: Apache-2.0
//! A session with one client: its streams, and the liveness of the client. Independent of the protocol (SPDY or
//! WebSocket), which the code that copies does not know either.
//!
//! The rule: every disconnected client is detected. `hangup` reports a closed connection. A silent client gets
//! an [`Outgoing::Ping`] and must send something, at least the answer. A client that does not read either gets
//! more time, because it may be a pager that its user has left open. While the daemon does not read from the
//! client, nothing can arrive, and only the kernel's keepalive probes detect a loss.

use crate::channel::{Inbound, Outbound, Outgoing};
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Most messages that may wait to be sent.
pub const OUT_WAITING: usize = 16;
/// Time for the client to close its side at the end of a session.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The headers with which a client opens a stream; names in lower case.
pub type Headers = HashMap<String, String>;

/// A stream that the client has opened.
#[derive(Debug)]
pub struct Stream {
    pub headers: Headers,
    pub input: Inbound,
    pub output: Outbound,
}

/// Time limits for the silence of a client.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Interval of pings.
    pub interval: Duration,
    /// Longest silence of a client that reads.
    pub silence_max: Duration,
    /// Longest silence of a client that does not read.
    pub blocked_max: Duration,
}

impl KeepAlive {
    /// Well above the 61 seconds after which Kubernetes clients give up on their own pings.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_secs(20),
        silence_max: Duration::from_mins(2),
        blocked_max: Duration::from_hours(1),
    };
}

/// Reports the end of a session's client.
#[derive(Debug, Clone)]
pub struct Liveness(watch::Receiver<bool>);

impl Liveness {
    /// Waits until the client has disconnected or the session has ended.
    pub async fn disconnected(&mut self) {
        // Without a sender the session has ended too.
        drop(self.0.wait_for(|disconnected| *disconnected).await);
    }
}

/// A session. On drop its connection is cut.
#[derive(Debug)]
pub struct Session {
    pub streams: mpsc::Receiver<Stream>,
    pub liveness: Liveness,
    out: mpsc::Sender<Outgoing>,
    /// The reader and the writer of the connection.
    tasks: JoinSet<()>,
    /// The task that watches the liveness of the client.
    _watch: JoinSet<()>,
}

impl Session {
    /// Runs the reader and the writer of a protocol. `hangup` resolves when the client has closed the connection.
    /// `read` notices that too, but not while it waits until its last chunk is consumed.
    pub fn start(
        streams: mpsc::Receiver<Stream>,
        out: mpsc::Sender<Outgoing>,
        halves: (
            impl Future<Output = ()> + Send + 'static,
            impl Future<Output = ()> + Send + 'static,
        ),
        (last_activity, keep_alive): (Arc<LastActivity>, KeepAlive),
        hangup: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (read, write) = halves;
        let (life, liveness) = watch::channel(false);
        let (mut tasks, mut watching) = (JoinSet::new(), JoinSet::new());
        let ended = life.clone();
        tasks.spawn(async move {
            read.await;
            ended.send_replace(true);
        });
        tasks.spawn(write);
        let pings = out.downgrade();
        watching.spawn(async move {
            tokio::select! {
                () = hangup => {}
                () = wait_for_silence(&last_activity, keep_alive, &pings) => {}
            }
            life.send_replace(true);
        });
        Self { streams, liveness: Liveness(liveness), out, tasks, _watch: watching }
    }

    /// Adds a task that ends by itself when the reader and the writer have ended.
    pub fn attach_task(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until `last` has queued the last messages, then [finishes](Self::finish). A client that disconnects, or is
    /// silent for too long, meanwhile does not get them.
    pub async fn finish_after(mut self, last: impl Future<Output = ()>) {
        tokio::select! {
            () = last => self.finish().await,
            () = self.liveness.disconnected() => {}
        }
    }

    /// Sends all queued messages, closes this side and waits for the client to close its side, at most
    /// [`CLOSE_TIMEOUT`]: closing a socket with unread bytes would discard the last messages.
    pub async fn finish(self) {
        let Self { streams, out, mut tasks, .. } = self;
        let closing = async {
            drop(streams);
            let _closed = out.send(Outgoing::Close).await;
            while tasks.join_next().await.is_some() {}
        };
        let _slow = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Sends pings; resolves when the client has been silent for too long.
async fn wait_for_silence(
    last_activity: &LastActivity,
    keep_alive: KeepAlive,
    out: &mpsc::WeakSender<Outgoing>,
) {
    loop {
        tokio::time::sleep(keep_alive.interval).await;
        if last_activity.silent_for()
            > if last_activity.is_blocked() {
                keep_alive.blocked_max
            } else {
                keep_alive.silence_max
            }
        {
            return;
        }
        if let Some(out) = out.upgrade() {
            // If the queue is full, the client has enough to read.
            let _full = out.try_send(Outgoing::Ping);
        }
    }
}

/// When a connection last received bytes, and whether its client reads.
#[derive(Debug)]
pub struct LastActivity {
    began: Instant,
    /// Start of the current wait for bytes, in milliseconds since `began` plus one; 0 if nothing waits.
    waiting: AtomicU64,
    /// Whether the last write had to wait for the client.
    blocked: AtomicBool,
}

impl LastActivity {
    /// How long the client has been silent while the daemon was reading.
    fn silent_for(&self) -> Duration {
        match self.waiting.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self.began.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    fn set_waiting(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        // The silence begins with the first of several attempts to read.
        let _earlier = self.waiting.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
    }

    fn set_received(&self) {
        self.waiting.store(0, Ordering::Release);
    }
}

/// A connection that records its activity.
#[derive(Debug)]
pub struct TrackedIo<I> {
    io: I,
    last_activity: Arc<LastActivity>,
}

impl<I> TrackedIo<I> {
    pub fn new(io: I) -> Self {
        let (waiting, blocked) = (AtomicU64::new(0), AtomicBool::new(false));
        Self {
            io,
            last_activity: Arc::new(LastActivity { began: Instant::now(), waiting, blocked }),
        }
    }

    pub fn last_activity(&self) -> Arc<LastActivity> {
        Arc::clone(&self.last_activity)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for TrackedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        if read.is_pending() {
            self.last_activity.set_waiting();
        } else {
            self.last_activity.set_received();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for TrackedIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.last_activity.blocked.store(written.is_pending(), Ordering::Release);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const QUICK: KeepAlive = KeepAlive {
        interval: Duration::from_millis(5),
        silence_max: Duration::from_millis(400),
        blocked_max: Duration::from_millis(800),
    };

    /// A protocol that discards all input and sends `x` for every ping.
    fn session(io: tokio::io::DuplexStream) -> (Session, mpsc::Sender<Outgoing>) {
        let io = TrackedIo::new(io);
        let last_activity = io.last_activity();
        let (mut from, mut to) = tokio::io::split(io);
        let (out, mut queue) = mpsc::channel(OUT_WAITING);
        let (_none, streams) = mpsc::channel(1);
        let read = async move { while from.read_u8().await.is_ok() {} };
        let write = async move {
            while queue.recv().await.is_some() && to.write_all(b"x").await.is_ok() {}
        };
        let never = std::future::pending();
        let accepted =
            Session::start(streams, out.clone(), (read, write), (last_activity, QUICK), never);
        (accepted, out)
    }

    #[tokio::test]
    async fn a_client_that_answers_is_alive_and_a_silent_one_is_disconnected() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut session, _out) = session(ours);
        let answers = async {
            let began = Instant::now();
            while began.elapsed() < QUICK.silence_max * 2 {
                let ping = theirs.read_u8().await.unwrap();
                theirs.write_u8(ping).await.unwrap();
            }
        };
        tokio::select! {
            () = answers => {}
            () = session.liveness.disconnected() => panic!("it answered"),
        }
        let fell_silent = Instant::now();
        // It still reads.
        let takes = async { while theirs.read_u8().await.is_ok() {} };
        tokio::select! {
            () = takes => panic!("the connection ended first"),
            () = session.liveness.disconnected() => {}
        }
        assert!(fell_silent.elapsed() >= QUICK.silence_max - Duration::from_millis(50));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_has_more_time_but_not_forever() {
        let (ours, theirs) = tokio::io::duplex(1);
        let (mut session, _out) = session(ours);
        let began = Instant::now();
        session.liveness.disconnected().await;
        assert!(began.elapsed() >= QUICK.blocked_max - Duration::from_millis(50));
        drop(theirs);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_does_not_keep_a_session_that_is_over() {
        let (ours, theirs) = tokio::io::duplex(1);
        let (session, out) = session(ours);
        let last = async move {
            // More than the queue takes.
            while out.send(Outgoing::Ping).await.is_ok() {}
        };
        let limit = QUICK.blocked_max * 20;
        tokio::time::timeout(limit, session.finish_after(last)).await.unwrap();
        drop(theirs);
    }
}
