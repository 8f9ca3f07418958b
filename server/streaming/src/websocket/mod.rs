// SPDX-License-Identifier: Apache-2.0
//! WebSocket over a connection that was upgraded to it: the streams of a process as numbered channels,
//! or the bytes of a SPDY connection ([`tunnel`]).
//!
//! ```text
//! message   channel:8 bytes…       0 stdin  1 stdout  2 stderr  3 error  4 resize
//!           255 channel:8          no more of that channel (v5 alone has it)
//! ```
//!
//! There are no windows here: a client that sends more than a channel's queue holds is made to wait
//! by TCP, with all its channels. It is still told that we live, by pongs that it did not ask for.
//!
//! Framing is tungstenite's, which refuses what is not masked, too long or against RFC 6455.

pub mod channels;
pub mod tunnel;

pub use channels::Channels;

use crate::channel::{CHUNK, CHUNKS_WAITING, Inbound, Out, Outbound};
use crate::remotecommand::Wanted;
use crate::session::{FAREWELL, Headers, OUT_WAITING, Patience, Pulse, Session, Stream};
use bytes::Bytes;
use channels::{Bad, Said};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

/// Longest message taken, in bytes. Clients send 32 KiB; a whole message is held before it is passed on.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest that may wait to be written besides the message that is being written: pongs.
const WAITING_BYTES_MAX: usize = 2 * CHUNK;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Frames over `io`, as the server that was upgraded to.
async fn framed<I: AsyncRead + AsyncWrite + Unpin>(io: I) -> WebSocketStream<I> {
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * CHUNK + WAITING_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Begins to speak to a client that wants these streams.
pub async fn open(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    channels: Channels,
    wanted: Wanted,
    pulse: (Arc<Pulse>, Patience),
    hangup: impl Future<Output = ()> + Send + 'static,
) -> Session {
    let (to, from) = framed(io).await.split();
    let (out, queue) = mpsc::channel(OUT_WAITING);
    let mut reader = Reader { channels, out: out.clone(), stdin: None, resize: None };
    let streams = reader.streams(wanted);
    let read = async move { reader.run(from).await };
    let write = async move {
        // The reader finds out that the connection broke.
        let _broken = write_all(channels, to, queue).await;
    };
    // Some clients begin only once they have heard something, however little.
    let first = if wanted.stdout { STDOUT } else { ERROR };
    let hello = Out::Data { stream: first.into(), bytes: Bytes::new() };
    // The queue has just been made.
    let _room = out.try_send(hello);
    Session::begin(streams, out, (read, write), pulse, hangup)
}

/// Why no more is read, for the client.
fn code_of(err: &Error) -> Option<CloseCode> {
    match err {
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        // It is gone and hears nothing.
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

/// What is read goes to the streams.
struct Reader {
    channels: Channels,
    out: mpsc::Sender<Out>,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<Bytes>>,
}

impl Reader {
    /// All streams at once: here a client does not open them.
    fn streams(&mut self, wanted: Wanted) -> mpsc::Receiver<Stream> {
        let all = [
            ("stdin", STDIN, wanted.stdin),
            ("stdout", STDOUT, wanted.stdout),
            ("stderr", STDERR, wanted.stderr && !wanted.tty),
            ("resize", RESIZE, wanted.tty),
            // The last, as it completes them.
            ("error", ERROR, true),
        ];
        let (opened, streams) = mpsc::channel(all.len());
        for (name, channel, _) in all.into_iter().filter(|(_, _, wanted)| *wanted) {
            let (chunks, queue) = mpsc::channel(CHUNKS_WAITING);
            match channel {
                STDIN => self.stdin = Some(chunks),
                RESIZE => self.resize = Some(chunks),
                _ => drop(chunks),
            }
            let headers = Headers::from([("streamtype".to_owned(), name.to_owned())]);
            let input = Inbound::new(channel.into(), queue, None);
            let output = Outbound::new(channel.into(), self.out.clone(), None);
            // There is room for all of them.
            let _room = opened.try_send(Stream { headers, input, output });
        }
        streams
    }

    async fn run<I>(mut self, mut from: SplitStream<WebSocketStream<I>>)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let code = self.messages(&mut from).await;
        // Nothing more comes, so what waits for input must not.
        (self.stdin, self.resize) = (None, None);
        if let Some(code) = code {
            let told = async {
                let _gone = self.out.send(Out::Refuse { code: code.into() }).await;
                self.out.closed().await;
            };
            let _slow = tokio::time::timeout(FAREWELL, told).await;
        }
    }

    /// Reads until the client goes (`None`) or breaks the protocol.
    async fn messages<I>(&mut self, from: &mut SplitStream<WebSocketStream<I>>) -> Option<CloseCode>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        while let Some(message) = from.next().await {
            let said = match message {
                Ok(Message::Binary(bytes)) => self.channels.said(bytes),
                Ok(Message::Text(text)) => self.channels.said(text.into()),
                // The framing has answered a ping; how to go on after a close is its part as well.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                    continue;
                }
                Err(err) => return code_of(&err),
            };
            match said {
                Ok(Some(Said::Bytes { channel, bytes })) => self.pass_on(channel, bytes).await,
                Ok(Some(Said::End { channel })) => self.end(channel),
                Ok(None) => {}
                Err(Bad) => return Some(CloseCode::Protocol),
            }
        }
        None
    }

    /// Hands bytes to who waits for them. What nobody wants is dropped: a process that reads no more
    /// input is no reason to end its session.
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
            // The client hears no more of it, which it says by not listening.
            _ => {}
        }
    }
}

async fn write_all<I>(
    channels: Channels,
    mut to: SplitSink<WebSocketStream<I>, Message>,
    mut queue: mpsc::Receiver<Out>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(out) = queue.recv().await {
        match out {
            Out::Data { stream, bytes } => {
                // All streams are our own, so their numbers are channels.
                let channel = u8::try_from(stream).unwrap_or(ERROR);
                to.send(channels.message(channel, &bytes)).await?;
            }
            Out::Beat => {
                to.feed(Message::Pong(Bytes::new())).await?;
                to.send(Message::Ping(Bytes::new())).await?;
            }
            Out::Refuse { code } => {
                return to.send(close(CloseCode::from(code))).await;
            }
            Out::Goodbye => return to.send(close(CloseCode::Normal)).await,
            // Here a stream ends with the session, and nothing is counted.
            Out::End { .. }
            | Out::Accept { .. }
            | Out::Reset { .. }
            | Out::Credit { .. }
            | Out::Pong { .. } => {}
        }
    }
    Ok(())
}

fn close(code: CloseCode) -> Message {
    Message::Close(Some(CloseFrame { code, reason: "".into() }))
}

#[cfg(test)]
mod tests;
