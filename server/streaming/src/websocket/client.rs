// SPDX-License-Identifier: Apache-2.0
//! The client's side of a session over WebSocket, remotecommand version 5: for commands of the command line.

use super::channels::{ChannelMessage, Channels, InvalidMessage};
use super::{ERROR, MESSAGE_BYTES_MAX, RESIZE, STDERR, STDIN, STDOUT, WAITING_BYTES_MAX};
use crate::channel::CHUNK;
use crate::terminal::{DETACH, Size};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use std::fmt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

/// The subprotocol: the only one in which a client can end its input.
const PROTOCOL: &str = "v5.channel.k8s.io";
const CHANNELS: Channels = Channels { base64: false, half_close: true };

/// Output of the process, or the status that follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Stdout(Bytes),
    Stderr(Bytes),
    /// JSON, a `Status` of the Kubernetes API.
    Status(Bytes),
}

/// Why a session failed.
#[derive(Debug)]
pub enum ClientError {
    /// The connection or the protocol.
    WebSocket(Box<Error>),
    /// A message that is not of the subprotocol.
    Message,
}

impl fmt::Display for ClientError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WebSocket(source) => source.fmt(to),
            Self::Message => to.write_str("the server sent a message that is not of the protocol"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Error> for ClientError {
    fn from(source: Error) -> Self {
        Self::WebSocket(Box::new(source))
    }
}

/// The direction to the server.
#[derive(Debug)]
pub struct Sender<I>(SplitSink<WebSocketStream<I>, Message>);

/// The direction from the server.
#[derive(Debug)]
pub struct Receiver<I>(SplitStream<WebSocketStream<I>>);

/// Opens a session over `io` with the request for `url`, `http://host:port/path`.
///
/// # Errors
/// The server refuses the request or does not speak version 5.
pub async fn connect<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    url: &str,
) -> Result<(Sender<I>, Receiver<I>), ClientError> {
    let url =
        url.strip_prefix("http://").map_or_else(|| url.to_owned(), |rest| format!("ws://{rest}"));
    let mut request = url.into_client_request()?;
    let protocol = HeaderValue::from_static(PROTOCOL);
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let config = WebSocketConfig::default()
        .read_buffer_size(CHUNK)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * CHUNK + WAITING_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let (framed, _response) =
        tokio_tungstenite::client_async_with_config(request, io, Some(config)).await?;
    let (to, from) = framed.split();
    Ok((Sender(to), Receiver(from)))
}

impl<I: AsyncRead + AsyncWrite + Unpin> Sender<I> {
    /// Sends input for the process, in messages of at most 32 KiB.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for chunk in bytes.chunks(CHUNK) {
            self.0.send(CHANNELS.encode(STDIN, chunk)).await?;
        }
        Ok(())
    }

    /// Ends the input of the process.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn end_stdin(&mut self) -> Result<(), ClientError> {
        Ok(self.0.send(CHANNELS.encode_end(STDIN)).await?)
    }

    /// Sends the size of the terminal.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn resize(&mut self, size: Size) -> Result<(), ClientError> {
        Ok(self.0.send(CHANNELS.encode(RESIZE, size.to_json().as_bytes())).await?)
    }

    /// Asks the server to leave the process running at its terminal. The status that follows says that it does.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn detach(&mut self) -> Result<(), ClientError> {
        Ok(self.0.send(CHANNELS.encode(RESIZE, DETACH.as_bytes())).await?)
    }

    /// Sends a pong, which shows the server that this client is alive even while it does not read.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn keep_alive(&mut self) -> Result<(), ClientError> {
        Ok(self.0.send(Message::Pong(Bytes::new())).await?)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Receiver<I> {
    /// Waits for output or the status; `None` when the server has ended the session.
    ///
    /// # Errors
    /// The connection broke, or a message is not of the protocol.
    pub async fn next(&mut self) -> Result<Option<Received>, ClientError> {
        while let Some(message) = self.0.next().await {
            let decoded = match message {
                Ok(Message::Binary(bytes)) => CHANNELS.decode(bytes),
                // tungstenite answers pings, and handles the close.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                    continue;
                }
                Ok(Message::Text(_)) => Err(InvalidMessage),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(None),
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Ok(None);
                }
                Err(err) => return Err(err.into()),
            };
            match decoded {
                // The server begins with an empty message.
                Ok(Some(ChannelMessage::Bytes { bytes, .. })) if bytes.is_empty() => {}
                Ok(Some(ChannelMessage::Bytes { channel: STDOUT, bytes })) => {
                    return Ok(Some(Received::Stdout(bytes)));
                }
                Ok(Some(ChannelMessage::Bytes { channel: STDERR, bytes })) => {
                    return Ok(Some(Received::Stderr(bytes)));
                }
                Ok(Some(ChannelMessage::Bytes { channel: ERROR, bytes })) => {
                    return Ok(Some(Received::Status(bytes)));
                }
                Ok(Some(ChannelMessage::End { .. }) | None) => {}
                Ok(Some(ChannelMessage::Bytes { .. })) | Err(InvalidMessage) => {
                    return Err(ClientError::Message);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remotecommand::RequestedStreams;
    use crate::session::{KeepAlive, TrackedIo};
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    /// Serves one session that sends its input back, and the status after its end.
    async fn echo(io: tokio::io::DuplexStream) {
        let protocol = |request: &Request, mut response: Response| {
            let asked = request.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", asked);
            Ok(response)
        };
        let framed = tokio_tungstenite::accept_hdr_async(io, protocol).await.unwrap();
        let io = TrackedIo::new(framed.into_inner());
        let last_activity = (io.last_activity(), KeepAlive::DEFAULT);
        let requested = RequestedStreams { stdin: true, stdout: true, stderr: false, tty: false };
        let mut session =
            super::super::open(io, CHANNELS, requested, last_activity, std::future::pending())
                .await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(session.streams.recv().await.unwrap());
        }
        let error = streams.pop().unwrap();
        let (stdout, mut stdin) = (streams.pop().unwrap(), streams.remove(0));
        while let Some(chunk) = stdin.input.next().await {
            stdout.output.write(chunk).await.unwrap();
        }
        error.output.write(Bytes::from_static(b"{}")).await.unwrap();
        session.finish().await;
    }

    #[tokio::test]
    async fn input_goes_there_and_back_until_its_end() {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let server = tokio::spawn(echo(theirs));
        let (mut to, mut from) = connect(ours, "http://127.0.0.1:1/exec/x").await.unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let send = async {
            to.stdin(&sent).await.unwrap();
            to.keep_alive().await.unwrap();
            to.end_stdin().await.unwrap();
        };
        let receive = async {
            let mut got = Vec::new();
            loop {
                match from.next().await.unwrap() {
                    Some(Received::Stdout(bytes)) => got.extend_from_slice(&bytes),
                    Some(Received::Status(status)) => assert_eq!(&status[..], b"{}"),
                    Some(Received::Stderr(_)) => panic!("not requested"),
                    None => return got,
                }
            }
        };
        let ((), got) = tokio::join!(send, receive);
        assert_eq!(got, sent);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_without_version_5_is_an_error() {
        let (ours, theirs) = tokio::io::duplex(4 << 10);
        let server = tokio::spawn(async move {
            // Without the header of the subprotocol.
            drop(tokio_tungstenite::accept_async(theirs).await);
        });
        connect(ours, "http://127.0.0.1:1/exec/x").await.unwrap_err();
        server.await.unwrap();
    }
}
