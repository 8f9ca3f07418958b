// SPDX-License-Identifier: Apache-2.0
//! The reason for which a layer in a pull waits, readable by other threads.
//!
//! The rule: writing is a store to an atomic and never waits for a reader. A value may be a moment old,
//! which is precise enough for a person who wants to know where the time goes.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// The reason for which a layer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Its turn: other layers are pulled first.
    Turn,
    /// Name resolution, a connection, or the first byte of a response.
    Answer,
    /// The response of a token server.
    Token,
    /// The time that the registry asked for.
    Later,
    /// The pause before the next try, after the connection broke.
    Retry,
    /// More bytes from the network.
    Bytes,
    /// The processor, to decompress.
    Inflate,
    /// The disk, or the processor, to create files.
    Disk,
    /// The disk, to sync everything.
    Sync,
}

impl WaitReason {
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

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turn => "its turn",
            Self::Answer => "name resolution, connection or response",
            Self::Token => "the token server",
            Self::Later => "the time that the registry asked for",
            Self::Retry => "the next try",
            Self::Bytes => "bytes from the network",
            Self::Inflate => "decompression",
            Self::Disk => "files being created",
            Self::Sync => "the disk to sync",
        })
    }
}

/// The progress of one layer.
#[derive(Debug, Default)]
pub(crate) struct LayerProgress {
    wait: AtomicU8,
    received: AtomicU64,
    inflated: AtomicU64,
    /// The unpacking thread is idle: decompression is the bottleneck.
    unpacker_waits: AtomicBool,
}

impl LayerProgress {
    /// Sets what the network side waits for. `Inflate` stands for everything after it.
    pub(crate) fn waits_for(&self, wait: WaitReason) {
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

    /// Received bytes, and what the layer waits for.
    pub(crate) fn now(&self) -> (u64, WaitReason) {
        let wait = WaitReason::ALL.get(usize::from(self.wait.load(Ordering::Relaxed))).copied();
        let mut wait = wait.unwrap_or(WaitReason::Turn);
        if wait == WaitReason::Inflate && !self.unpacker_waits.load(Ordering::Relaxed) {
            wait = WaitReason::Disk;
        }
        (self.received.load(Ordering::Relaxed), wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_seen() {
        let watch = LayerProgress::default();
        assert_eq!(watch.now(), (0, WaitReason::Turn));
        for wait in WaitReason::ALL {
            watch.waits_for(wait);
            watch.unpacker_waits(true);
            watch.received(7);
            assert_eq!(watch.now(), (7, wait));
        }
        watch.waits_for(WaitReason::Inflate);
        watch.unpacker_waits(false);
        assert_eq!(watch.now().1, WaitReason::Disk);
    }
}
