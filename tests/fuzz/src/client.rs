// SPDX-License-Identifier: Apache-2.0
//! A streaming client that sends the input's bytes, reads everything that the server sends, and disconnects.
//!
//! Checked of every session: it ends when its client goes, and with it the input of every stream and
//! all writers; no stream is given more bytes than came.

use bytes::Bytes;
use hull_streaming::session::{KeepAlive, Session, Stream, TrackedIo};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Nobody is asked in the milliseconds that a case takes.
pub const KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_mins(1),
    silence_max: Duration::from_mins(2),
    blocked_max: Duration::from_mins(2),
};
/// Capacity of the connection in each direction, in bytes.
const PIPE_BYTES: usize = 4 << 10;
/// Bytes that every stream of the server sends, so that a client's windows count.
const WORDS: usize = 100;

thread_local! {
    static RUNTIME: Runtime = runtime();
}

#[allow(clippy::expect_used, reason = "fuzzing cannot begin without it")]
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime for the sessions")
}

/// Runs something asynchronous to its end.
pub fn block_on<T>(doing: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(doing))
}

/// The server's end of a connection with what it tells of its client, and the client's end.
#[must_use]
pub fn connection() -> (TrackedIo<DuplexStream>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    (TrackedIo::new(ours), theirs)
}

/// Sends `bytes` and goes. Gives how many bytes the streams were given.
pub async fn serve(mut session: Session, client: DuplexStream, bytes: &[u8]) -> usize {
    let (mut from, mut to) = tokio::io::split(client);
    let given = Arc::new(AtomicUsize::new(0));
    let send = async {
        // A server that closes early is free to.
        let _closed = to.write_all(bytes).await;
        let _closed = to.shutdown().await;
    };
    let take = async {
        let mut away = vec![0; PIPE_BYTES];
        while from.read(&mut away).await.is_ok_and(|read| read > 0) {}
    };
    let served = async {
        let mut liveness = session.liveness.clone();
        let streams = async {
            let mut streams = JoinSet::new();
            while let Some(stream) = session.streams.recv().await {
                streams.spawn(copy(stream, Arc::clone(&given)));
            }
            streams.join_all().await;
        };
        let ((), ()) = tokio::join!(streams, liveness.disconnected());
        session.finish().await;
    };
    // The client takes what it is sent all the while: one that does not holds up the close for seconds.
    let ((), (), ()) = tokio::join!(send, take, served);
    given.load(Ordering::Relaxed)
}

async fn copy(stream: Stream, given: Arc<AtomicUsize>) {
    let Stream { mut input, output, .. } = stream;
    let read = async {
        while let Some(chunk) = input.next().await {
            assert!(!chunk.is_empty() && chunk.len() <= hull_streaming::channel::CHUNK);
            given.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    };
    let write = async {
        let _gone = output.write(Bytes::from_static(&[b'x'; WORDS])).await;
        output.end().await;
    };
    tokio::join!(read, write);
}
