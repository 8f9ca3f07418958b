// SPDX-License-Identifier: Apache-2.0
//! The figures of pulls since the store was opened, for metrics. Counting costs one atomic addition, and
//! no name of a host or an image is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A stage of a pull, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullStage {
    /// From the name to the manifest and config for this machine.
    Resolve,
    /// Downloading and unpacking the layers.
    Layers,
    /// Making the layers durable and recording the image.
    Record,
}

/// The kind of host that an object was requested from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostKind {
    Registry,
    Mirror,
}

/// The states of circuit breakers, as numbers of hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BreakerStates {
    /// Hosts that are requested as usual.
    pub closed: u64,
    /// Hosts that are left alone for a while.
    pub open: u64,
    /// Hosts that have failed, and that the next request tries again.
    pub half_open: u64,
}

/// The numbers of one kind of host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostFigures {
    /// Bytes of layers, compressed as the host has them.
    pub layer_bytes: u64,
    /// Manifests, configs and layers that came.
    pub objects: u64,
    /// Those that did not come from there.
    pub failed: u64,
}

/// The figures of pulls since the store was opened, and of those in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PullFigures {
    /// The figures of registries themselves.
    pub registries: HostFigures,
    /// Mirrors of registries.
    pub mirrors: HostFigures,
    /// Requests that were sent again after a failure.
    pub retries: u64,
    /// Time from the name to the manifest and config for this machine.
    pub resolving: Duration,
    /// Time of downloading and unpacking layers.
    pub layers: Duration,
    /// Time of making layers durable and recording images.
    pub recording: Duration,
    /// Pulls in progress.
    pub running: u64,
    pub breakers: BreakerStates,
}

/// The counters of one kind of host.
#[derive(Debug, Default)]
struct HostCounters {
    layer_bytes: AtomicU64,
    objects: AtomicU64,
    failed: AtomicU64,
}

impl HostCounters {
    fn figures(&self) -> HostFigures {
        HostFigures {
            layer_bytes: self.layer_bytes.load(Ordering::Relaxed),
            objects: self.objects.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// The counters of all pulls.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    registries: HostCounters,
    mirrors: HostCounters,
    retries: AtomicU64,
    resolving_us: AtomicU64,
    layers_us: AtomicU64,
    recording_us: AtomicU64,
}

impl Counters {
    fn of(&self, kind: HostKind) -> &HostCounters {
        match kind {
            HostKind::Registry => &self.registries,
            HostKind::Mirror => &self.mirrors,
        }
    }

    /// Counts bytes of a layer.
    pub(super) fn received(&self, kind: HostKind, bytes: u64) {
        self.of(kind).layer_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an object that was requested from a host.
    pub(super) fn requested(&self, kind: HostKind, came: bool) {
        let host = self.of(kind);
        let counter = if came { &host.objects } else { &host.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that is sent again.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the time of a stage, whether it succeeded or not.
    pub(crate) fn stage(&self, stage: PullStage, took: Duration) {
        let counter = match stage {
            PullStage::Resolve => &self.resolving_us,
            PullStage::Layers => &self.layers_us,
            PullStage::Record => &self.recording_us,
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counter.fetch_add(us, Ordering::Relaxed);
    }

    /// The numbers so far.
    pub(super) fn figures(&self, breakers: BreakerStates, running: u64) -> PullFigures {
        let time = |us: &AtomicU64| Duration::from_micros(us.load(Ordering::Relaxed));
        PullFigures {
            registries: self.registries.figures(),
            mirrors: self.mirrors.figures(),
            retries: self.retries.load(Ordering::Relaxed),
            resolving: time(&self.resolving_us),
            layers: time(&self.layers_us),
            recording: time(&self.recording_us),
            running,
            breakers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_by_their_kind_and_stages_apart() {
        let counters = Counters::default();
        counters.received(HostKind::Mirror, 7);
        counters.requested(HostKind::Mirror, true);
        counters.requested(HostKind::Registry, false);
        counters.retried();
        counters.stage(PullStage::Resolve, Duration::from_millis(2));
        counters.stage(PullStage::Layers, Duration::from_millis(30));
        counters.stage(PullStage::Layers, Duration::from_millis(10));
        let found = counters.figures(BreakerStates::default(), 3);
        assert_eq!(found.mirrors, HostFigures { layer_bytes: 7, objects: 1, failed: 0 });
        assert_eq!(found.registries, HostFigures { layer_bytes: 0, objects: 0, failed: 1 });
        assert_eq!((found.retries, found.running), (1, 3));
        assert_eq!(found.resolving, Duration::from_millis(2));
        assert_eq!((found.layers, found.recording), (Duration::from_millis(40), Duration::ZERO));
    }
}
