// SPDX-License-Identifier: Apache-2.0
//! SPDY/3.1 over a connection that was upgraded to it: the server's side, where only the client
//! opens streams.
//!
//! ```text
//! socket ─▶ reader ─ chunks ─▶ Inbound        each stream has its own bounded queue
//! socket ◀─ writer ◀── Out ─── Outbound       one bounded queue for all
//! ```
//!
//! Two tasks own the two halves of the socket, and with them the state of the two zlib streams. A
//! client that sends more than a stream's queue holds is made to wait by TCP.

pub mod frame;
pub mod headers;

use crate::channel::{CHUNK, CHUNKS_WAITING, Gone, Inbound, Out, Outbound, WINDOW, Window};
use crate::session::{OUT_WAITING, Patience, Pulse, Session, Stream};
use bytes::{Bytes, BytesMut};
use frame::{Control, Head};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

/// Streams at a time; a forwarded connection takes two.
const STREAMS_MAX: usize = 512;

/// Begins to speak SPDY over `io`, whose client is felt by `pulse`.
pub fn open(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    pulse: (Arc<Pulse>, Patience),
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
        // The reader finds out that the connection broke.
        let _broken = write_all(write, queue).await;
    };
    Session::begin(streams, out, (reader.run(), write), pulse, hangup)
}

async fn write_all(
    mut io: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Out>,
) -> io::Result<()> {
    let mut headers = headers::Writer::new().map_err(|_| io::ErrorKind::InvalidData)?;
    // A server's own have even numbers.
    let mut last_ping = 0_u32;
    while let Some(out) = queue.recv().await {
        match out {
            Out::Data { stream, bytes } => {
                io.write_all(&frame::data_head(stream, false, bytes.len())).await?;
                io.write_all(&bytes).await?;
            }
            Out::End { stream } => io.write_all(&frame::data_head(stream, true, 0)).await?,
            Out::Accept { stream } => {
                let none = headers.write(&[]).map_err(|_| io::ErrorKind::InvalidData)?;
                io.write_all(&frame::reply(stream, &none)).await?;
            }
            Out::Reset { stream, status } => io.write_all(&frame::reset(stream, status)).await?,
            Out::Credit { stream, bytes } => {
                if stream != 0 {
                    io.write_all(&frame::credit(stream, bytes)).await?;
                }
                io.write_all(&frame::credit(0, bytes)).await?;
            }
            Out::Pong { id } => io.write_all(&frame::ping(id)).await?,
            Out::Beat => {
                last_ping = last_ping.wrapping_add(2);
                io.write_all(&frame::ping(last_ping)).await?;
            }
            Out::Goodbye | Out::Refuse { .. } => {
                io.write_all(&frame::goaway()).await?;
                io.shutdown().await?;
                return Ok(());
            }
        }
        io.flush().await?;
    }
    Ok(())
}

/// What the client lets us send.
#[derive(Debug)]
struct Windows {
    session: Arc<Window>,
    streams_count: Arc<AtomicBool>,
    session_counts: Arc<AtomicBool>,
    /// What a new stream begins with.
    first: i64,
}

impl Windows {
    fn new() -> Self {
        let session_counts = Arc::new(AtomicBool::new(false));
        Self {
            session: Arc::new(Window::new(i64::from(WINDOW), Arc::clone(&session_counts))),
            streams_count: Arc::default(),
            session_counts,
            first: i64::from(WINDOW),
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// Until the client ends it.
    chunks: Option<mpsc::Sender<Bytes>>,
    window: Arc<Window>,
}

impl Entry {
    /// Both sides are through.
    fn is_over(&self) -> bool {
        self.chunks.as_ref().is_none_or(mpsc::Sender::is_closed)
            && Arc::strong_count(&self.window) == 1
    }
}

struct Reader<R> {
    io: BufReader<R>,
    headers: headers::Reader,
    out: mpsc::Sender<Out>,
    opened: mpsc::Sender<Stream>,
    entries: HashMap<u32, Entry>,
    windows: Windows,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        // However it ends, it ends for all streams.
        let _ended = self.frames().await;
        for entry in self.entries.values() {
            entry.window.close();
        }
        self.windows.session.close();
    }

    async fn frames(&mut self) -> Result<(), Gone> {
        loop {
            let mut first = [0; frame::HEAD];
            self.io.read_exact(&mut first).await.map_err(|_| Gone)?;
            match frame::head(first).map_err(|_| Gone)? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Control { kind, fin, length } => {
                    let mut body = vec![0; length];
                    self.io.read_exact(&mut body).await.map_err(|_| Gone)?;
                    let control = frame::control(kind, fin, &body).map_err(|_| Gone)?;
                    self.control(control).await?;
                }
            }
        }
    }

    async fn data(&mut self, stream: u32, fin: bool, mut left: usize) -> Result<(), Gone> {
        while left > 0 {
            let mut chunk = BytesMut::zeroed(left.min(CHUNK));
            let read = self.io.read(&mut chunk).await.map_err(|_| Gone)?;
            if read == 0 {
                return Err(Gone);
            }
            chunk.truncate(read);
            left -= read;
            let wanted = match self.entries.get(&stream).and_then(|entry| entry.chunks.as_ref()) {
                Some(chunks) => chunks.send(chunk.freeze()).await.is_ok(),
                None => false,
            };
            if !wanted {
                let bytes = u32::try_from(read).unwrap_or(0);
                // After our goodbye nobody sends credit any more: then the rest is just read away.
                let _over = self.out.send(Out::Credit { stream: 0, bytes }).await;
            }
        }
        if fin && let Some(entry) = self.entries.get_mut(&stream) {
            entry.chunks = None;
        }
        Ok(())
    }

    async fn control(&mut self, control: Control) -> Result<(), Gone> {
        match control {
            Control::Open { stream, fin, headers } => self.open(stream, fin, &headers).await,
            Control::Reset { stream } => {
                if let Some(entry) = self.entries.remove(&stream) {
                    entry.window.close();
                }
                Ok(())
            }
            Control::InitialWindow { bytes } => {
                self.windows.streams_count.store(true, Ordering::Release);
                let more = i64::from(bytes) - self.windows.first;
                self.windows.first = i64::from(bytes);
                for entry in self.entries.values() {
                    entry.window.add(more);
                }
                Ok(())
            }
            Control::Credit { stream, bytes } => {
                if stream == 0 {
                    self.windows.session_counts.store(true, Ordering::Release);
                    self.windows.session.add(i64::from(bytes));
                } else if let Some(entry) = self.entries.get(&stream) {
                    self.windows.streams_count.store(true, Ordering::Release);
                    entry.window.add(i64::from(bytes));
                }
                Ok(())
            }
            // Even numbers are answers to pings of ours: that they came is all that they say.
            Control::Ping { id } if id % 2 == 1 => {
                let _over = self.out.send(Out::Pong { id }).await;
                Ok(())
            }
            // What is open goes on; the client closes when it is through.
            Control::GoAway | Control::Ping { .. } | Control::Other => Ok(()),
        }
    }

    async fn open(&mut self, stream: u32, fin: bool, block: &[u8]) -> Result<(), Gone> {
        // Also of a stream that is refused: the blocks depend on each other.
        let headers = self.headers.read(block).map_err(|_| Gone)?;
        self.entries.retain(|_, entry| !entry.is_over());
        let refused = if self.entries.contains_key(&stream) {
            Some(frame::INVALID_STREAM)
        } else if self.entries.len() >= STREAMS_MAX || self.opened.is_closed() {
            Some(frame::REFUSED_STREAM)
        } else {
            None
        };
        if let Some(status) = refused {
            let _over = self.out.send(Out::Reset { stream, status }).await;
            return Ok(());
        }
        let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
        let counts = Arc::clone(&self.windows.streams_count);
        let window = Arc::new(Window::new(self.windows.first, counts));
        let windows = (Arc::clone(&window), Arc::clone(&self.windows.session));
        let input = Inbound::new(stream, queue, Some(self.out.clone()));
        let output = Outbound::new(stream, self.out.clone(), Some(windows));
        self.entries.insert(stream, Entry { chunks: (!fin).then_some(chunks), window });
        self.out.send(Out::Accept { stream }).await.map_err(|_| Gone)?;
        // Nobody waits for streams any more: the next one is refused.
        let _late = self.opened.send(Stream { headers, input, output }).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
