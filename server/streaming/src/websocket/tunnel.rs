// SPDX-License-Identifier: Apache-2.0
//! A SPDY connection whose bytes travel in WebSocket messages, as port-forward clients send it through
//! proxies that know nothing else.
//!
//! Messages have no meaning here: the bytes are put together again and SPDY never learns of them.

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

/// Bytes that may wait on either way.
const WAITING: usize = 2 * CHUNK;

/// The tunnel's inner end, and the task that carries the bytes until both sides have closed.
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
                // Even when SPDY takes no more, the client's farewell is read.
                let _over = to.write_all(&bytes).await;
            }
            // The framing has answered them.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
            // Text is against the protocol; nothing that comes behind it can be understood.
            Ok(Message::Text(_)) | Err(_) => break,
        }
    }
    // SPDY takes this for the end of the connection, which it is.
    let _over = to.shutdown().await;
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
