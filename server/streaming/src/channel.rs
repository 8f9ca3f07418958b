// SPDX-License-Identifier: Apache-2.0
//! One stream of a session, as those who copy see it: chunks in, chunks out.
//!
//! The rule: every queue is bounded, so whoever is slow holds up the one who feeds it and nobody
//! else's memory. Credit goes back to the sender once a chunk is consumed, not once it has arrived.
//!
//! A peer's window binds us only from the moment that it shows that it counts: the SPDY library that
//! all Kubernetes clients use neither counts what it gets nor ever gives credit, and would wait for
//! ever behind a window that nobody opens. Such a peer slows us down through TCP.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::{Notify, mpsc};

/// Where a window begins, in bytes, on either side.
pub const WINDOW: u32 = 64 << 10;
/// Longest chunk handed on, in bytes.
pub const CHUNK: usize = 32 << 10;
/// Chunks that may wait for their reader.
pub const CHUNKS_WAITING: usize = 16;

/// What the task that owns the socket's sending side is asked to send.
#[derive(Debug)]
pub enum Out {
    /// Bytes of a stream.
    Data { stream: u32, bytes: Bytes },
    /// No more of a stream.
    End { stream: u32 },
    /// A stream of the peer's is accepted.
    Accept { stream: u32 },
    /// A stream is over at once.
    Reset { stream: u32, status: u32 },
    /// Bytes of a stream were consumed; of stream 0, bytes that nobody wanted.
    Credit { stream: u32, bytes: u32 },
    /// The peer's ping, back.
    Pong { id: u32 },
    /// Anything that the client must answer.
    Beat,
    /// The client broke the protocol; the sending side is closed with what WebSocket says of it.
    Refuse { code: u16 },
    /// The session is over; the sending side is closed.
    Goodbye,
}

/// The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// What comes from the client.
#[derive(Debug)]
pub struct Inbound {
    stream: u32,
    chunks: mpsc::Receiver<Bytes>,
    /// Where credit goes, if the client counts in credit at all.
    out: Option<mpsc::Sender<Out>>,
    /// Consumed, and the client not told yet.
    used: u32,
}

impl Inbound {
    pub fn new(stream: u32, chunks: mpsc::Receiver<Bytes>, out: Option<mpsc::Sender<Out>>) -> Self {
        Self { stream, chunks, out, used: 0 }
    }

    /// The next chunk; `None` once the client has closed it or is gone. Loses nothing when cancelled.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.used >= WINDOW / 2
            && let Some(out) = &self.out
        {
            let credit = Out::Credit { stream: self.stream, bytes: self.used };
            out.send(credit).await.ok()?;
            self.used = 0;
        }
        let chunk = self.chunks.recv().await?;
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        self.used = self.used.saturating_add(length);
        Some(chunk)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.chunks.close();
        let Some(out) = &self.out else { return };
        while let Ok(chunk) = self.chunks.try_recv() {
            self.used += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        }
        if self.used > 0 {
            // Only the session's window can still profit; a full queue means that it is busy dying
            // or will be given credit by others.
            let _full = out.try_send(Out::Credit { stream: 0, bytes: self.used });
        }
    }
}

/// What goes to the client.
#[derive(Debug)]
pub struct Outbound {
    stream: u32,
    out: mpsc::Sender<Out>,
    windows: Option<(Arc<Window>, Arc<Window>)>,
}

impl Outbound {
    /// `windows` are the stream's and the session's; without them nobody counts.
    pub fn new(
        stream: u32,
        out: mpsc::Sender<Out>,
        windows: Option<(Arc<Window>, Arc<Window>)>,
    ) -> Self {
        Self { stream, out, windows }
    }

    /// Sends all of `bytes`; waits while the client's window is shut.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let mut most = bytes.len().min(CHUNK);
            if let Some((own, session)) = &self.windows {
                most = own.open(most).await?;
                most = session.take(most).await?;
                own.spend(most);
            }
            let data = Out::Data { stream: self.stream, bytes: bytes.split_to(most) };
            self.out.send(data).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Tells the client that nothing more comes.
    pub async fn end(self) {
        // A session that is over has ended all of its streams.
        let _gone = self.out.send(Out::End { stream: self.stream }).await;
    }
}

/// How much the peer still takes.
#[derive(Debug)]
pub struct Window {
    left: AtomicI64,
    /// The peer counts; shared by all streams of a session.
    counts: Arc<AtomicBool>,
    closed: AtomicBool,
    changed: Notify,
}

impl Window {
    pub fn new(first: i64, counts: Arc<AtomicBool>) -> Self {
        let (left, closed, changed) =
            (AtomicI64::new(first), AtomicBool::new(false), Notify::new());
        Self { left, counts, closed, changed }
    }

    /// The peer takes more, or less when its settings shrink.
    pub fn add(&self, bytes: i64) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Nothing can be sent any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until something fits; says how much of `most`.
    async fn open(&self, most: usize) -> Result<usize, Gone> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change goes by unseen.
            changed.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Gone);
            }
            if !self.counts.load(Ordering::Acquire) {
                return Ok(most);
            }
            match usize::try_from(self.left.load(Ordering::Acquire)) {
                Ok(0) | Err(_) => changed.await,
                Ok(left) => return Ok(most.min(left)),
            }
        }
    }

    fn spend(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Waits until something fits and takes it, against others who do the same.
    async fn take(&self, most: usize) -> Result<usize, Gone> {
        loop {
            let some = self.open(most).await?;
            let wanted = i64::try_from(some).unwrap_or(i64::MAX);
            let counts = self.counts.load(Ordering::Acquire);
            let enough = |left: i64| (left >= wanted || !counts).then_some(left - wanted);
            if self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, enough).is_ok() {
                return Ok(some);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_counts_is_not_sent_more_than_it_takes() {
        let counts = Arc::new(AtomicBool::new(true));
        let own = Arc::new(Window::new(10, Arc::clone(&counts)));
        let session = Arc::new(Window::new(1000, counts));
        let (out, mut sent) = mpsc::channel(64);
        let stream = Outbound::new(1, out, Some((Arc::clone(&own), session)));
        let writing = tokio::spawn(async move { stream.write(Bytes::from(vec![1; 25])).await });
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < 25 {
            let Some(Out::Data { bytes, .. }) = sent.recv().await else { panic!() };
            lengths.push(bytes.len());
            own.add(i64::try_from(bytes.len()).unwrap().min(7));
        }
        assert_eq!(lengths, [10, 7, 7, 1]);
        assert_eq!(writing.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn credit_is_given_for_what_was_consumed() {
        let (out, mut sent) = mpsc::channel(64);
        let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
        let mut inbound = Inbound::new(5, queue, Some(out));
        chunks.send(Bytes::from(vec![0; CHUNK])).await.unwrap();
        chunks.send(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(inbound.next().await.unwrap().len(), CHUNK);
        assert!(sent.try_recv().is_err());
        assert_eq!(inbound.next().await.unwrap().len(), 1);
        let Out::Credit { stream: 5, bytes } = sent.try_recv().unwrap() else { panic!() };
        assert_eq!(bytes, WINDOW / 2);
    }
}
