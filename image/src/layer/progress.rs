// SPDX-License-Identifier: Apache-2.0
//! What a layer waits for while it is on its way, to be seen from outside.
//!
//! The rule: writing is a store to an atomic; nobody waits for a reader. What is read may be a moment
//! old, and that is enough to tell a person where the time goes.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Other layers are first.
    Turn,
    /// The name's addresses, a connection, or the first byte of an answer.
    Answer,
    /// A token server.
    Token,
    /// The registry asked to come back later.
    Later,
    /// The connection broke; a pause before the next try.
    Retry,
    /// More bytes from the network.
    Bytes,
    /// The processor, to inflate.
    Inflate,
    /// The disk, or the processor, to make files.
    Disk,
    /// The disk, to have everything safe.
    Sync,
}

impl Wait {
    const ALL: [Self; 9] = [
        Self::Turn,
        Self::Answer,
        Self::Token,
        Self::Later,
        Self::Retry,
        Self::Bytes,
        Self::Inflate,
        Self::Disk,
        Self::Sync,
    ];
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turn => "its turn",
            Self::Answer => "name resolution, connection or answer",
            Self::Token => "the token server",
            Self::Later => "the time that the registry asked for",
            Self::Retry => "the next try",
            Self::Bytes => "bytes from the network",
            Self::Inflate => "inflating",
            Self::Disk => "files being made",
            Self::Sync => "the disk to have everything",
        })
    }
}

/// One layer's.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    wait: AtomicU8,
    received: AtomicU64,
    inflated: AtomicU64,
    /// The unpacking thread has nothing to do: inflating is what takes the time.
    unpacker_waits: AtomicBool,
}

impl Watch {
    /// Says what is waited for on the network's side. `Inflate` stands for all that is behind it.
    pub(crate) fn waits_for(&self, wait: Wait) {
        self.wait.store(wait as u8, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn inflates(&self, bytes: u64) {
        self.inflated.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn inflated(&self) -> u64 {
        self.inflated.load(Ordering::Relaxed)
    }

    pub(crate) fn unpacker_waits(&self, waits: bool) {
        self.unpacker_waits.store(waits, Ordering::Relaxed);
    }

    /// Bytes so far, and what is waited for.
    pub(crate) fn now(&self) -> (u64, Wait) {
        let wait = Wait::ALL.get(usize::from(self.wait.load(Ordering::Relaxed))).copied();
        let mut wait = wait.unwrap_or(Wait::Turn);
        if wait == Wait::Inflate && !self.unpacker_waits.load(Ordering::Relaxed) {
            wait = Wait::Disk;
        }
        (self.received.load(Ordering::Relaxed), wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_seen() {
        let watch = Watch::default();
        assert_eq!(watch.now(), (0, Wait::Turn));
        for wait in Wait::ALL {
            watch.waits_for(wait);
            watch.unpacker_waits(true);
            watch.received(7);
            assert_eq!(watch.now(), (7, wait));
        }
        watch.waits_for(Wait::Inflate);
        watch.unpacker_waits(false);
        assert_eq!(watch.now().1, Wait::Disk);
    }
}
