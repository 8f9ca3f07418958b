// SPDX-License-Identifier: Apache-2.0
//! Our stdin, read ahead by a thread, since it may block; and the messages that a session makes of it.
//!
//! The thread starts with the first session and serves the next one too, so an attach that follows another one loses no
//! key. It ends with this program; what it has read by then is lost, as with every program that reads ahead.

use super::detach::{DetachFilter, DetachKeys, Filtered};
use super::error::{Error, Result};
use hull_streaming::terminal::Size;
use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::thread;
use tokio::sync::mpsc;

/// Size of one read of stdin, in bytes.
const CHUNK: usize = 32 << 10;
/// Most chunks that are read ahead.
const AHEAD: usize = 4;

/// A message of a session to the daemon.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Stdin(Vec<u8>),
    EndStdin,
    Resize(Size),
    /// The process is to be left running.
    Detach,
    Alive,
}

/// Our stdin, in chunks.
#[derive(Debug, Default)]
pub(crate) struct Stdin(Option<mpsc::Receiver<io::Result<Vec<u8>>>>);

impl Stdin {
    /// The next chunk; `None` at the end of stdin. Cancel safe.
    ///
    /// # Errors
    /// Stdin cannot be read (anything else than its end), or the thread cannot be started.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let chunks = match &mut self.0 {
            Some(chunks) => chunks,
            None => self.0.insert(start()?),
        };
        chunks.recv().await.transpose().map_err(Error::io("read stdin"))
    }
}

fn start() -> Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    let (queue, chunks) = mpsc::channel(AHEAD);
    let read = move || {
        let mut stdin = io::stdin().lock();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match stdin.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => Ok(chunk[..read].to_vec()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => Err(err),
            };
            let failed = read.is_err();
            if queue.blocking_send(read).is_err() || failed {
                return;
            }
        }
    };
    thread::Builder::new().name("stdin".into()).spawn(read).map_err(Error::io("start a thread"))?;
    Ok(chunks)
}

/// The messages of a session that wait for their turn, and whether more of stdin is to be read.
#[derive(Debug)]
pub(crate) struct Input {
    filter: Option<DetachFilter>,
    waiting: VecDeque<Outgoing>,
    open: bool,
}

impl Input {
    /// The input of a session; without `stdin` there is none.
    pub(crate) fn new(stdin: bool, keys: Option<DetachKeys>) -> Self {
        Self { filter: keys.map(DetachFilter::new), waiting: VecDeque::new(), open: stdin }
    }

    /// Whether the next chunk is to be read: all of the last one was taken.
    pub(crate) fn wants_more(&self) -> bool {
        self.open && self.waiting.is_empty()
    }

    /// Adds a chunk, or the end of stdin. True if the user has typed the detach keys.
    pub(crate) fn add(&mut self, chunk: Option<Vec<u8>>) -> bool {
        let Some(chunk) = chunk else {
            self.open = false;
            let rest = self.filter.take().map(DetachFilter::rest).unwrap_or_default();
            self.push(rest);
            self.waiting.push_back(Outgoing::EndStdin);
            return false;
        };
        let (input, detach) = match &mut self.filter {
            None => (chunk, false),
            Some(filter) => match filter.feed(&chunk) {
                Filtered::Input(input) => (input, false),
                Filtered::Detach(input) => (input, true),
            },
        };
        self.push(input);
        detach
    }

    fn push(&mut self, input: Vec<u8>) {
        if !input.is_empty() {
            self.waiting.push_back(Outgoing::Stdin(input));
        }
    }

    /// Whether a message waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next message to send.
    pub(crate) fn take(&mut self) -> Option<Outgoing> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::super::detach::detach_keys;
    use super::*;

    #[test]
    fn keys_that_were_held_back_come_before_the_end() {
        let mut input = Input::new(true, Some(detach_keys("p,q").unwrap()));
        assert!(!input.add(Some(b"ap".to_vec())));
        assert!(matches!(input.take(), Some(Outgoing::Stdin(bytes)) if bytes == b"a"));
        assert!(input.wants_more());
        assert!(!input.add(None));
        assert!(matches!(input.take(), Some(Outgoing::Stdin(bytes)) if bytes == b"p"));
        assert!(matches!(input.take(), Some(Outgoing::EndStdin)));
        assert!(!input.wants_more() && !input.is_waiting());
    }

    #[test]
    fn input_before_the_detach_keys_is_kept() {
        let mut input = Input::new(true, Some(detach_keys("p,q").unwrap()));
        assert!(input.add(Some(b"lspq".to_vec())));
        assert!(matches!(input.take(), Some(Outgoing::Stdin(bytes)) if bytes == b"ls"));
        assert!(!Input::new(false, None).wants_more());
    }
}
