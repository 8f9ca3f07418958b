// SPDX-License-Identifier: Apache-2.0
//! The bounded pipe from the network (async) to the unpacker (a blocking thread), and a reader that
//! copies what it reads into a file.

use bytes::{Buf as _, Bytes};
use std::fs::File;
use std::io::{self, Read, Write as _};
use tokio::sync::mpsc;

/// Chunks in flight. A chunk of HTTP is 8 to 64 KiB, so this is at most about a megabyte.
const CHUNKS_MAX: usize = 16;

/// Makes a pipe.
pub(crate) fn pipe() -> (mpsc::Sender<Bytes>, Reader) {
    let (into, from) = mpsc::channel(CHUNKS_MAX);
    (into, Reader { from, rest: Bytes::new() })
}

/// The blocking end. The pipe ends when its sender is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    from: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Reads from `inner`, and copies everything into a file.
pub(crate) struct TeeReader<R> {
    inner: R,
    into: Option<File>,
}

impl<R> TeeReader<R> {
    pub(crate) fn new(inner: R, into: Option<File>) -> Self {
        Self { inner, into }
    }
}

impl<R: Read> Read for TeeReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if let Some(file) = &mut self.into {
            file.write_all(&buffer[..got])?;
        }
        Ok(got)
    }
}
