// SPDX-License-Identifier: Apache-2.0
//! The server's side of SPDY/3.1 over an upgraded connection. Only the client opens streams.
//!
//! ```text
//! socket ─▶ reader ─ chunks ─▶ Inbound        each stream has its own bounded queue
//! socket ◀─ writer ◀ Outgoing ─ Outbound       one bounded queue for all
//! ```
//!
//! Two tasks own the two halves of the socket, each with the state of its zlib stream. A client that sends more
//! than a stream's queue holds is slowed down by TCP.

pub mod frame;
pub mod headers;

use crate::channel::{CHUNK, CHUNKS_WAITING, Closed, Inbound, Outbound, Outgoing, WINDOW, Window};
use crate::session::{KeepAlive, LastActivity, OUT_WAITING, Session, Stream};
use bytes::{Bytes, BytesMut};
use frame::{Control, Head};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

/// Most streams at a time. A forwarded connection has two.
const STREAMS_MAX: usize = 512;

/// Starts a session over `io`, with the last activity of its client and the limits for its silence.
pub fn open(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    last_activity: (Arc<LastActivity>, KeepAlive),
    hangup: impl Future<Output = ()> + Send + 'static,
) -> Session {
    let (read, write) = tokio::io::split(io);
    let (out, queue) = mpsc::channel(OUT_WAITING);
    let (opened, streams) = mpsc::channel(1);
    let reader = Reader {
        io: BufReader::with_capacity(CHUNK, read),
        headers: headers::Reader::default(),
        out: out.clone(),
        opened,
        entries: HashMap::new(),
        windows: Windows::new(),
    };
    let write = async move {
        // The reader reports a broken connection.
        let _broken = write_all(write, queue).await;
    };
    Session::start(streams, out, (reader.run(), write), last_activity, hangup)
}

async fn write_all(
    mut io: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut headers = headers::Writer::new().map_err(|_| io::ErrorKind::InvalidData)?;
    // A server's own pings have even numbers.
    let mut last_ping = 0_u32;
    while let Some(out) = queue.recv().await {
        match out {
            Outgoing::Data { stream, bytes } => {
                io.write_all(&frame::data_head(stream, false, bytes.len())).await?;
                io.write_all(&bytes).await?;
            }
            Outgoing::End { stream } => io.write_all(&frame::data_head(stream, true, 0)).await?,
            Outgoing::Accept { stream } => {
                let none = headers.write(&[]).map_err(|_| io::ErrorKind::InvalidData)?;
                io.write_all(&frame::reply(stream, &none)).await?;
            }
            Outgoing::Reset { stream, status } => {
                io.write_all(&frame::reset(stream, status)).await?
            }
            Outgoing::Credit { stream, bytes } => {
                if stream != 0 {
                    io.write_all(&frame::credit(stream, bytes)).await?;
                }
                io.write_all(&frame::credit(0, bytes)).await?;
            }
            Outgoing::Pong { id } => io.write_all(&frame::ping(id)).await?,
            Outgoing::Ping => {
                last_ping = last_ping.wrapping_add(2);
                io.write_all(&frame::ping(last_ping)).await?;
            }
            Outgoing::Close | Outgoing::Refuse { .. } => {
                io.write_all(&frame::goaway()).await?;
                io.shutdown().await?;
                return Ok(());
            }
        }
        io.flush().await?;
    }
    Ok(())
}

/// The flow control windows of the client.
#[derive(Debug)]
struct Windows {
    session: Arc<Window>,
    streams_enforced: Arc<AtomicBool>,
    session_enforced: Arc<AtomicBool>,
    /// Initial window of a new stream, in bytes.
    first: i64,
}

impl Windows {
    fn new() -> Self {
        let session_enforced = Arc::new(AtomicBool::new(false));
        Self {
            session: Arc::new(Window::new(i64::from(WINDOW), Arc::clone(&session_enforced))),
            streams_enforced: Arc::default(),
            session_enforced,
            first: i64::from(WINDOW),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// `None` after the client has ended its side.
    chunks: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
}

impl Entry {
    /// Whether both sides have ended.
    fn is_over(&self) -> bool {
        self.chunks.as_ref().is_none_or(mpsc::Sender::is_closed)
            && Arc::strong_count(&self.window) == 1
    }
}

struct Reader<R> {
    io: BufReader<R>,
    headers: headers::Reader,
    out: mpsc::Sender<Outgoing>,
    opened: mpsc::Sender<Stream>,
    entries: HashMap<u32, Entry>,
    windows: Windows,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        // The connection ends for all streams, with or without an error.
        let _ended = self.frames().await;
        for entry in self.entries.values() {
            entry.window.close();
        }
        self.windows.session.close();
    }

    async fn frames(&mut self) -> Result<(), Closed> {
        loop {
            let mut first = [0; frame::HEAD];
            self.io.read_exact(&mut first).await.map_err(|_| Closed)?;
            match frame::head(first).map_err(|_| Closed)? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Control { kind, fin, length } => {
                    let mut body = vec![0; length];
                    self.io.read_exact(&mut body).await.map_err(|_| Closed)?;
                    let control = frame::control(kind, fin, &body).map_err(|_| Closed)?;
                    self.control(control).await?;
                }
            }
        }
    }

    async fn data(&mut self, stream: u32, fin: bool, mut left: usize) -> Result<(), Closed> {
        while left > 0 {
            let mut chunk = BytesMut::zeroed(left.min(CHUNK));
            let read = self.io.read(&mut chunk).await.map_err(|_| Closed)?;
            if read == 0 {
                return Err(Closed);
            }
            chunk.truncate(read);
            left -= read;
            let consumed = match self.entries.get(&stream).and_then(|entry| entry.chunks.as_ref()) {
                Some(chunks) => chunks.send(chunk.freeze()).await.is_ok(),
                None => false,
            };
            if !consumed {
                let bytes = u32::try_from(read).unwrap_or(0);
                // Fails after the close of the sending side: the remaining bytes are discarded without credit.
                let _closed = self.out.send(Outgoing::Credit { stream: 0, bytes }).await;
            }
        }
        if fin && let Some(entry) = self.entries.get_mut(&stream) {
            entry.chunks = None;
        }
        Ok(())
    }

    async fn control(&mut self, control: Control) -> Result<(), Closed> {
        match control {
            Control::Open { stream, fin, headers } => self.open(stream, fin, &headers).await,
            Control::Reset { stream } => {
                if let Some(entry) = self.entries.remove(&stream) {
                    entry.window.close();
                }
                Ok(())
            }
            Control::InitialWindow { bytes } => {
                self.windows.streams_enforced.store(true, Ordering::Release);
                let more = i64::from(bytes) - self.windows.first;
                self.windows.first = i64::from(bytes);
                for entry in self.entries.values() {
                    entry.window.add(more);
                }
                Ok(())
            }
            Control::Credit { stream, bytes } => {
                if stream == 0 {
                    self.windows.session_enforced.store(true, Ordering::Release);
                    self.windows.session.add(i64::from(bytes));
                } else if let Some(entry) = self.entries.get(&stream) {
                    self.windows.streams_enforced.store(true, Ordering::Release);
                    entry.window.add(i64::from(bytes));
                }
                Ok(())
            }
            // Even numbers are answers to pings of the daemon. Their arrival is recorded already.
            Control::Ping { id } if id % 2 == 1 => {
                let _over = self.out.send(Outgoing::Pong { id }).await;
                Ok(())
            }
            // Open streams continue; the client closes the connection at the end.
            Control::GoAway | Control::Ping { .. } | Control::Other => Ok(()),
        }
    }

    async fn open(&mut self, stream: u32, fin: bool, block: &[u8]) -> Result<(), Closed> {
        // Also for a refused stream: each block depends on the earlier ones.
        let headers = self.headers.read(block).map_err(|_| Closed)?;
        self.entries.retain(|_, entry| !entry.is_over());
        let refused = if self.entries.contains_key(&stream) {
            Some(frame::INVALID_STREAM)
        } else if self.entries.len() >= STREAMS_MAX || self.opened.is_closed() {
            Some(frame::REFUSED_STREAM)
        } else {
            None
        };
        if let Some(status) = refused {
            let _over = self.out.send(Outgoing::Reset { stream, status }).await;
            return Ok(());
        }
        let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
        let enforced = Arc::clone(&self.windows.streams_enforced);
        let window = Arc::new(Window::new(self.windows.first, enforced));
        let windows = (Arc::clone(&window), Arc::clone(&self.windows.session));
        let input = Inbound::new(stream, queue, Some(self.out.clone()));
        let output = Outbound::new(stream, self.out.clone(), Some(windows));
        self.entries.insert(stream, Entry { chunks: (!fin).then_some(chunks), window });
        self.out.send(Outgoing::Accept { stream }).await.map_err(|_| Closed)?;
        // Fails if no more streams are accepted; the next one is refused.
        let _closed = self.opened.send(Stream { headers, input, output }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
