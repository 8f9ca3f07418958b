// SPDX-License-Identifier: Apache-2.0
//! A SPDY connection inside WebSocket messages, which port-forward clients use to pass proxies without SPDY.
//!
//! The bounds of messages have no meaning: SPDY gets the bytes as one stream.

use super::{close, framed};
use crate::channel::CHUNK;
use bytes::BytesMut;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf,
};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Most bytes that may wait in either direction.
const WAITING: usize = 2 * CHUNK;

/// The inner end of the tunnel, and the task that copies bytes until both ends are closed.
pub async fn through(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (DuplexStream, impl Future<Output = ()> + Send + 'static) {
    let (inner, outer) = tokio::io::duplex(WAITING);
    let (to, from) = framed(io).await.split();
    let (read, write) = tokio::io::split(outer);
    let carry = async {
        tokio::join!(inward(from, write), outward(read, to));
    };
    (inner, carry)
}

async fn inward<I>(mut from: SplitStream<WebSocketStream<I>>, mut to: WriteHalf<DuplexStream>)
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = from.next().await {
        match message {
            Ok(Message::Binary(bytes)) => {
                // Even if SPDY is closed, the client's close message must be read.
                let _closed = to.write_all(&bytes).await;
            }
            // tungstenite has answered them.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
            // Text violates the protocol; nothing after it can be decoded.
            Ok(Message::Text(_)) | Err(_) => break,
        }
    }
    // For SPDY this is the end of the connection.
    let _closed = to.shutdown().await;
}

async fn outward<I>(
    mut from: ReadHalf<DuplexStream>,
    mut to: SplitSink<WebSocketStream<I>, Message>,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let last = !matches!(from.read_buf(&mut chunk).await, Ok(read) if read > 0);
        let message = if last { close(CloseCode::Normal) } else { Message::Binary(chunk.freeze()) };
        if to.send(message).await.is_err() || last {
            return;
        }
    }
}
