// SPDX-License-Identifier: Apache-2.0
//! A client's connection: its bytes go through [`AuthorityFilter`] on their way to the server, so that clients may send
//! the socket's path as `:authority`.

use hull_streaming::http2::AuthorityFilter;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

/// Most that is read at once of what the filter must see, in bytes: heads of frames, and headers of requests.
const READ_BYTES: usize = 1024;

/// A connection on the daemon's socket.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    filter: AuthorityFilter,
    /// Bytes behind the filter, of which so many were read.
    ready: Vec<u8>,
    read: usize,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, filter: AuthorityFilter::default(), ready: Vec::new(), read: 0 }
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let left = this.ready.get(this.read..).unwrap_or_default();
            if !left.is_empty() {
                let count = left.len().min(out.remaining());
                out.put_slice(left.get(..count).unwrap_or(left));
                this.read += count;
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            this.read = 0;
            let passes = this.filter.passes().min(out.remaining());
            if passes > 0 {
                // Bodies, which are most of all bytes, are not copied once more.
                let mut part = ReadBuf::new(out.initialize_unfilled_to(passes));
                ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
                let count = part.filled().len();
                out.advance(count);
                this.filter.passed(count);
                return Poll::Ready(Ok(()));
            }
            let mut bytes = [0; READ_BYTES];
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter.push(part.filled(), &mut this.ready);
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
