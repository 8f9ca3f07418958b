// SPDX-License-Identifier: Apache-2.0
//! One stream of a session, as chunks of bytes in both directions.
//!
//! The rule: every queue is bounded, so a slow reader stops its sender and does not fill memory. Credit is
//! returned to the sender when a chunk is consumed, not when it arrives.
//!
//! A peer's window applies only after the peer has shown that it uses flow control: the SPDY library of all
//! Kubernetes clients neither counts received bytes nor ever sends credit, so a sender that respected its
//! window would wait forever. Such a peer is slowed down by TCP.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio::sync::{Notify, mpsc};

/// Initial window of either side, in bytes.
pub const WINDOW: u32 = 64 << 10;
/// Longest chunk, in bytes.
pub const CHUNK: usize = 32 << 10;
/// Most chunks that may wait for their reader.
pub const CHUNKS_WAITING: usize = 16;

/// A message for the task that writes to the socket.
#[derive(Debug)]
pub enum Outgoing {
    /// Sends bytes of a stream.
    Data { stream: u32, bytes: Bytes },
    /// Ends a stream: no more bytes follow.
    End { stream: u32 },
    /// Accepts a stream that the peer has opened.
    Accept { stream: u32 },
    /// Aborts a stream.
    Reset { stream: u32, status: u32 },
    /// Returns credit for consumed bytes of a stream; of stream 0, for discarded bytes.
    Credit { stream: u32, bytes: u32 },
    /// Answers a ping of the peer.
    Pong { id: u32 },
    /// Sends a ping, which the client must answer.
    Ping,
    /// Closes the sending side after a protocol error, with this WebSocket status code.
    Refuse { code: u16 },
    /// Closes the sending side at the end of the session.
    Close,
}

/// An error: the session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The receiving side of a stream: bytes from the client.
#[derive(Debug)]
pub struct Inbound {
    stream: u32,
    chunks: mpsc::Receiver<Bytes>,
    /// Receives credit messages, if the protocol has flow control.
    out: Option<mpsc::Sender<Outgoing>>,
    /// Bytes that were consumed and not credited yet.
    uncredited: u32,
}

impl Inbound {
    pub fn new(
        stream: u32,
        chunks: mpsc::Receiver<Bytes>,
        out: Option<mpsc::Sender<Outgoing>>,
    ) -> Self {
        Self { stream, chunks, out, uncredited: 0 }
    }

    /// The next chunk; `None` after the client has closed the stream or has disconnected. Cancel safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.uncredited >= WINDOW / 2
            && let Some(out) = &self.out
        {
            let credit = Outgoing::Credit { stream: self.stream, bytes: self.uncredited };
            out.send(credit).await.ok()?;
            self.uncredited = 0;
        }
        let chunk = self.chunks.recv().await?;
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        self.uncredited = self.uncredited.saturating_add(length);
        Some(chunk)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.chunks.close();
        let Some(out) = &self.out else { return };
        while let Ok(chunk) = self.chunks.try_recv() {
            self.uncredited += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        }
        if self.uncredited > 0 {
            // Only the session's window still needs the credit. If the queue is full, the session is closing or
            // other streams return credit.
            let _full = out.try_send(Outgoing::Credit { stream: 0, bytes: self.uncredited });
        }
    }
}

/// The sending side of a stream: bytes to the client.
#[derive(Debug)]
pub struct Outbound {
    stream: u32,
    out: mpsc::Sender<Outgoing>,
    windows: Option<(Arc<Window>, Arc<Window>)>,
}

impl Outbound {
    /// `windows` are the stream's and the session's; `None` for a protocol without flow control.
    pub fn new(
        stream: u32,
        out: mpsc::Sender<Outgoing>,
        windows: Option<(Arc<Window>, Arc<Window>)>,
    ) -> Self {
        Self { stream, out, windows }
    }

    /// Sends all of `bytes`. Waits while the client's window is full.
    pub async fn write(&self, mut bytes: Bytes) -> Result<(), Closed> {
        while !bytes.is_empty() {
            let mut most = bytes.len().min(CHUNK);
            if let Some((own, session)) = &self.windows {
                most = own.available(most).await?;
                most = session.reserve(most).await?;
                own.consume(most);
            }
            let data = Outgoing::Data { stream: self.stream, bytes: bytes.split_to(most) };
            self.out.send(data).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// Tells the client that no more bytes follow.
    pub async fn end(self) {
        // Fails if the session is closed, which has ended all streams.
        let _closed = self.out.send(Outgoing::End { stream: self.stream }).await;
    }
}

/// The bytes that a peer still accepts.
#[derive(Debug)]
pub struct Window {
    left: AtomicI64,
    /// Whether the peer uses flow control; shared by all streams of a session.
    enforced: Arc<AtomicBool>,
    closed: AtomicBool,
    changed: Notify,
}

impl Window {
    pub fn new(first: i64, enforced: Arc<AtomicBool>) -> Self {
        let (left, closed, changed) =
            (AtomicI64::new(first), AtomicBool::new(false), Notify::new());
        Self { left, enforced, closed, changed }
    }

    /// Adds to the window; a negative number shrinks it after a change of the peer's settings.
    pub fn add(&self, bytes: i64) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Makes all further sends fail.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until the window is open. Returns how many of `most` bytes fit.
    async fn available(&self, most: usize) -> Result<usize, Closed> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the check, so that no change is missed.
            changed.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(Closed);
            }
            if !self.enforced.load(Ordering::Acquire) {
                return Ok(most);
            }
            match usize::try_from(self.left.load(Ordering::Acquire)) {
                Ok(0) | Err(_) => changed.await,
                Ok(left) => return Ok(most.min(left)),
            }
        }
    }

    fn consume(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Waits until the window is open, and takes up to `most` bytes of it from concurrent senders.
    async fn reserve(&self, most: usize) -> Result<usize, Closed> {
        loop {
            let some = self.available(most).await?;
            let requested = i64::try_from(some).unwrap_or(i64::MAX);
            let enforced = self.enforced.load(Ordering::Acquire);
            let enough = |left: i64| (left >= requested || !enforced).then_some(left - requested);
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
    async fn a_peer_with_flow_control_gets_no_more_than_its_window() {
        let enforced = Arc::new(AtomicBool::new(true));
        let own = Arc::new(Window::new(10, Arc::clone(&enforced)));
        let session = Arc::new(Window::new(1000, enforced));
        let (out, mut sent) = mpsc::channel(64);
        let stream = Outbound::new(1, out, Some((Arc::clone(&own), session)));
        let writing = tokio::spawn(async move { stream.write(Bytes::from(vec![1; 25])).await });
        let mut lengths = Vec::new();
        while lengths.iter().sum::<usize>() < 25 {
            let Some(Outgoing::Data { bytes, .. }) = sent.recv().await else { panic!() };
            lengths.push(bytes.len());
            own.add(i64::try_from(bytes.len()).unwrap().min(7));
        }
        assert_eq!(lengths, [10, 7, 7, 1]);
        assert_eq!(writing.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn credit_is_returned_for_consumed_bytes() {
        let (out, mut sent) = mpsc::channel(64);
        let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
        let mut inbound = Inbound::new(5, queue, Some(out));
        chunks.send(Bytes::from(vec![0; CHUNK])).await.unwrap();
        chunks.send(Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(inbound.next().await.unwrap().len(), CHUNK);
        assert!(sent.try_recv().is_err());
        assert_eq!(inbound.next().await.unwrap().len(), 1);
        let Outgoing::Credit { stream: 5, bytes } = sent.try_recv().unwrap() else { panic!() };
        assert_eq!(bytes, WINDOW / 2);
    }
}
