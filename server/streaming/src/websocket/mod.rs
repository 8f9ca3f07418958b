// SPDX-License-Identifier: Apache-2.0
//! WebSocket over an upgraded connection: the streams of a process as numbered channels, or the bytes of a SPDY
//! connection ([`tunnel`]).
//!
//! ```text
//! message   channel:8 bytes…       0 stdin  1 stdout  2 stderr  3 error  4 resize
//!           255 channel:8          end of that channel (only in v5)
//! ```
//!
//! There are no flow control windows: a client that sends more than a channel's queue holds is slowed down by
//! TCP, with all its channels. It still gets unsolicited pongs, so it knows that the daemon is alive.
//!
//! tungstenite does the framing. It refuses frames that are unmasked, too long or against RFC 6455.

pub mod channels;
pub mod client;
pub mod tunnel;

pub use channels::Channels;

use crate::channel::{CHUNK, CHUNKS_WAITING, Inbound, Outbound, Outgoing};
use crate::remotecommand::RequestedStreams;
use crate::session::{
    CLOSE_TIMEOUT, Headers, KeepAlive, LastActivity, OUT_WAITING, Session, Stream,
};
use bytes::Bytes;
use channels::{ChannelMessage, InvalidMessage};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// Longest accepted message, in bytes. Clients send 32 KiB; a message is held completely before it is passed on.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most bytes that may wait beside the message that is being written: pongs.
const WAITING_BYTES_MAX: usize = 2 * CHUNK;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The server's side of WebSocket framing over `io`.
async fn framed<I: AsyncRead + AsyncWrite + Unpin>(io: I) -> WebSocketStream<I> {
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * CHUNK + WAITING_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Starts a session over `io` with the requested streams.
pub async fn open(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    channels: Channels,
    requested: RequestedStreams,
    last_activity: (Arc<LastActivity>, KeepAlive),
    hangup: impl Future<Output = ()> + Send + 'static,
) -> Session {
    let (to, from) = framed(io).await.split();
    let (out, queue) = mpsc::channel(OUT_WAITING);
    let mut reader = Reader { channels, out: out.clone(), stdin: None, resize: None };
    let streams = reader.streams(requested);
    let read = async move { reader.run(from).await };
    let write = async move {
        // The reader reports a broken connection.
        let _broken = write_all(channels, to, queue).await;
    };
    // Some clients start only after a first message, which may be empty.
    let first = if requested.stdout { STDOUT } else { ERROR };
    let hello = Outgoing::Data { stream: first.into(), bytes: Bytes::new() };
    // Cannot fail: the queue is empty.
    let _sent = out.try_send(hello);
    Session::start(streams, out, (read, write), last_activity, hangup)
}

/// The status code for the client after an error; `None` if the client is disconnected.
fn close_code(err: &Error) -> Option<CloseCode> {
    match err {
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        // The client is disconnected.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Io(_) | Error::ConnectionClosed | Error::AlreadyClosed => None,
        Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => Some(CloseCode::Error),
    }
}

/// Reads messages and passes their bytes to the streams.
struct Reader {
    channels: Channels,
    out: mpsc::Sender<Outgoing>,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<Bytes>>,
}

impl Reader {
    /// All requested streams at once: over WebSocket, clients do not open them.
    fn streams(&mut self, requested: RequestedStreams) -> mpsc::Receiver<Stream> {
        let all = [
            ("stdin", STDIN, requested.stdin),
            ("stdout", STDOUT, requested.stdout),
            ("stderr", STDERR, requested.stderr && !requested.tty),
            ("resize", RESIZE, requested.tty),
            // The last one, because it completes the set.
            ("error", ERROR, true),
        ];
        let (opened, streams) = mpsc::channel(all.len());
        for (name, channel, _) in all.into_iter().filter(|(_, _, requested)| *requested) {
            let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
            match channel {
                STDIN => self.stdin = Some(chunks),
                RESIZE => self.resize = Some(chunks),
                _ => drop(chunks),
            }
            let headers = Headers::from([("streamtype".to_owned(), name.to_owned())]);
            let input = Inbound::new(channel.into(), queue, None);
            let output = Outbound::new(channel.into(), self.out.clone(), None);
            // Cannot fail: the queue has space for all of them.
            let _sent = opened.try_send(Stream { headers, input, output });
        }
        streams
    }

    async fn run<I>(mut self, mut from: SplitStream<WebSocketStream<I>>)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let code = self.messages(&mut from).await;
        // No more input arrives, so the readers of input must not wait.
        (self.stdin, self.resize) = (None, None);
        if let Some(code) = code {
            let closing = async {
                let _closed = self.out.send(Outgoing::Refuse { code: code.into() }).await;
                self.out.closed().await;
            };
            let _slow = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        }
    }

    /// Reads until the client disconnects (`None`) or violates the protocol.
    async fn messages<I>(&mut self, from: &mut SplitStream<WebSocketStream<I>>) -> Option<CloseCode>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = from.next().await {
            let decoded = match message {
                Ok(Message::Binary(bytes)) => self.channels.decode(bytes),
                Ok(Message::Text(text)) => self.channels.decode(text.into()),
                // tungstenite answers pings, and handles the close.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                    continue;
                }
                Err(err) => return close_code(&err),
            };
            match decoded {
                Ok(Some(ChannelMessage::Bytes { channel, bytes })) => {
                    self.pass_on(channel, bytes).await
                }
                Ok(Some(ChannelMessage::End { channel })) => self.end(channel),
                Ok(None) => {}
                Err(InvalidMessage) => return Some(CloseCode::Protocol),
            }
        }
        None
    }

    /// Passes bytes to their stream. Bytes for a closed stream are discarded: a process that does not read its
    /// input any more does not end its session.
    async fn pass_on(&self, channel: u8, mut bytes: Bytes) {
        let to = match channel {
            STDIN => &self.stdin,
            RESIZE => &self.resize,
            _ => return,
        };
        let Some(to) = to else { return };
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            if to.send(chunk).await.is_err() {
                return;
            }
        }
    }

    fn end(&mut self, channel: u8) {
        match channel {
            STDIN => self.stdin = None,
            RESIZE => self.resize = None,
            // Output channels: the client only stops reading them.
            _ => {}
        }
    }
}

async fn write_all<I>(
    channels: Channels,
    mut to: SplitSink<WebSocketStream<I>, Message>,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(out) = queue.recv().await {
        match out {
            Outgoing::Data { stream, bytes } => {
                // All stream numbers are channels, assigned above.
                let channel = u8::try_from(stream).unwrap_or(ERROR);
                to.send(channels.encode(channel, &bytes)).await?;
            }
            Outgoing::Ping => {
                to.feed(Message::Pong(Bytes::new())).await?;
                to.send(Message::Ping(Bytes::new())).await?;
            }
            Outgoing::Refuse { code } => {
                return to.send(close(CloseCode::from(code))).await;
            }
            Outgoing::Close => return to.send(close(CloseCode::Normal)).await,
            // Over WebSocket, streams end with the session, and there is no flow control.
            Outgoing::End { .. }
            | Outgoing::Accept { .. }
            | Outgoing::Reset { .. }
            | Outgoing::Credit { .. }
            | Outgoing::Pong { .. } => {}
        }
    }
    Ok(())
}

fn close(code: CloseCode) -> Message {
    Message::Close(Some(CloseFrame { code, reason: "".into() }))
}

#[cfg(test)]
mod tests;
