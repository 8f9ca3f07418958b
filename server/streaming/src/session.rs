// SPDX-License-Identifier: Apache-2.0
//! A session with one client: the streams it has, and whether the client is still there. What carries
//! the bytes (SPDY, WebSocket) is not known here, nor to whoever copies.
//!
//! The rule: a client that is gone is noticed, however it went. One that closes its connection is
//! told by `hangup`; one that stays silent is asked by a [`Out::Beat`] and must say something, be it
//! only the answer; one that does not even take what we send has more time, as it may well be a
//! pager that its user has left alone. While *we* hold up the client there is nothing to hear, and
//! the kernel's own probes must do.

use crate::channel::{Inbound, Out, Outbound};
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

/// Frames that may wait to be sent.
pub const OUT_WAITING: usize = 16;
/// How long the client may take to close its side once all is said.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// What the client says a stream is for, by names in lower case.
pub type Headers = HashMap<String, String>;

/// A stream of the session.
#[derive(Debug)]
pub struct Stream {
    pub headers: Headers,
    pub input: Inbound,
    pub output: Outbound,
}

/// How long a client may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often it is asked.
    pub beat: Duration,
    /// While it takes what we send.
    pub silent: Duration,
    /// While it does not.
    pub full: Duration,
}

impl Patience {
    /// Clients of Kubernetes give up after 61 seconds without an answer to their own questions.
    pub const USUAL: Self = Self {
        beat: Duration::from_secs(20),
        silent: Duration::from_mins(2),
        full: Duration::from_hours(1),
    };
}

/// Resolves when a session's client is gone.
#[derive(Debug, Clone)]
pub struct Alive(watch::Receiver<bool>);

impl Alive {
    pub async fn gone(&mut self) {
        // With no sender left the session is over as well.
        drop(self.0.wait_for(|gone| *gone).await);
    }
}

/// A session; dropped, it is cut off.
#[derive(Debug)]
pub struct Session {
    pub streams: mpsc::Receiver<Stream>,
    pub alive: Alive,
    out: mpsc::Sender<Out>,
    /// Those who read and write.
    tasks: JoinSet<()>,
    /// Those who only look after the client.
    _watch: JoinSet<()>,
}

impl Session {
    /// Runs the two halves of a protocol. `hangup` resolves when the client has closed the connection:
    /// `read` finds that out too, but not while it waits for somebody to take what came last.
    pub fn begin(
        streams: mpsc::Receiver<Stream>,
        out: mpsc::Sender<Out>,
        halves: (
            impl Future<Output = ()> + Send + 'static,
            impl Future<Output = ()> + Send + 'static,
        ),
        (pulse, patience): (Arc<Pulse>, Patience),
        hangup: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (read, write) = halves;
        let (life, alive) = watch::channel(false);
        let (mut tasks, mut watching) = (JoinSet::new(), JoinSet::new());
        let ended = life.clone();
        tasks.spawn(async move {
            read.await;
            ended.send_replace(true);
        });
        tasks.spawn(write);
        let asked = out.downgrade();
        watching.spawn(async move {
            tokio::select! {
                () = hangup => {}
                () = silence(&pulse, patience, &asked) => {}
            }
            life.send_replace(true);
        });
        Self { streams, alive: Alive(alive), out, tasks, _watch: watching }
    }

    /// Takes a further task along, which ends by itself once reading and writing have.
    pub fn along(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Sends what waits, closes our side and waits for the client's, but not for long: closing a
    /// socket with unread bytes would throw away what was sent last.
    pub async fn finish(self) {
        let Self { streams, out, mut tasks, .. } = self;
        let farewell = async {
            drop(streams);
            let _gone = out.send(Out::Goodbye).await;
            while tasks.join_next().await.is_some() {}
        };
        let _slow = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

/// Asks the client now and then; resolves when it has been silent for too long.
async fn silence(pulse: &Pulse, patience: Patience, out: &mpsc::WeakSender<Out>) {
    loop {
        tokio::time::sleep(patience.beat).await;
        if pulse.silent_for() > if pulse.is_full() { patience.full } else { patience.silent } {
            return;
        }
        if let Some(out) = out.upgrade() {
            // With so much to send, there is enough for the client to take.
            let _full = out.try_send(Out::Beat);
        }
    }
}

/// What a connection tells of the client at its other end.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// Since when the client is waited for, in milliseconds since `began`, plus one; 0: it is not.
    waiting: AtomicU64,
    /// It does not take what we send.
    full: AtomicBool,
}

impl Pulse {
    /// How long the client has been silent while we listened.
    fn silent_for(&self) -> Duration {
        match self.waiting.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self.began.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn waits(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        // Only the first of several looks in vain is where the silence begins.
        let _waits = self.waiting.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
    }

    fn heard(&self) {
        self.waiting.store(0, Ordering::Release);
    }
}

/// A connection whose pulse is felt.
#[derive(Debug)]
pub struct Watched<I> {
    io: I,
    pulse: Arc<Pulse>,
}

impl<I> Watched<I> {
    pub fn new(io: I) -> Self {
        let (waiting, full) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { io, pulse: Arc::new(Pulse { began: Instant::now(), waiting, full }) }
    }

    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        if read.is_pending() {
            self.pulse.waits();
        } else {
            self.pulse.heard();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.pulse.full.store(written.is_pending(), Ordering::Release);
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

    const QUICK: Patience = Patience {
        beat: Duration::from_millis(5),
        silent: Duration::from_millis(400),
        full: Duration::from_millis(800),
    };

    /// A protocol that reads everything away and sends `x` for every beat.
    fn session(io: tokio::io::DuplexStream) -> (Session, mpsc::Sender<Out>) {
        let io = Watched::new(io);
        let pulse = io.pulse();
        let (mut from, mut to) = tokio::io::split(io);
        let (out, mut queue) = mpsc::channel(OUT_WAITING);
        let (_none, streams) = mpsc::channel(1);
        let read = async move { while from.read_u8().await.is_ok() {} };
        let write = async move {
            while queue.recv().await.is_some() && to.write_all(b"x").await.is_ok() {}
        };
        let never = std::future::pending();
        let begun = Session::begin(streams, out.clone(), (read, write), (pulse, QUICK), never);
        (begun, out)
    }

    #[tokio::test]
    async fn who_answers_is_there_and_who_falls_silent_is_gone() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut session, _out) = session(ours);
        let answers = async {
            let began = Instant::now();
            while began.elapsed() < QUICK.silent * 2 {
                let beat = theirs.read_u8().await.unwrap();
                theirs.write_u8(beat).await.unwrap();
            }
        };
        tokio::select! {
            () = answers => {}
            () = session.alive.gone() => panic!("it answered"),
        }
        let fell_silent = Instant::now();
        // It still takes what it is sent.
        let takes = async { while theirs.read_u8().await.is_ok() {} };
        tokio::select! {
            () = takes => panic!("the connection ended first"),
            () = session.alive.gone() => {}
        }
        assert!(fell_silent.elapsed() >= QUICK.silent - Duration::from_millis(50));
    }

    #[tokio::test]
    async fn who_takes_nothing_has_more_time_but_not_for_ever() {
        let (ours, theirs) = tokio::io::duplex(1);
        let (mut session, _out) = session(ours);
        let began = Instant::now();
        session.alive.gone().await;
        assert!(began.elapsed() >= QUICK.full - Duration::from_millis(50));
        drop(theirs);
    }
}
