// SPDX-License-Identifier: Apache-2.0
//! The progress of a pull: sent to listeners, and logged when the pull takes long.
//!
//! The rule: layers write to their [`Watch`] and never wait; the tracker reads it from time to time. A
//! listener that is too slow misses updates.

use crate::layer::progress::{LayerProgress, WaitReason};
use crate::manifest::Descriptor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How often listeners are notified.
const TICK: Duration = Duration::from_millis(200);
/// After which time, and how often, a slow pull is logged.
const SLOW: Duration = Duration::from_secs(10);

/// The progress of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The digest of the compressed layer.
    pub digest: String,
    /// Received bytes, compressed.
    pub received: u64,
    /// The total size in bytes, compressed.
    pub total: u64,
    /// The state of the layer.
    pub state: ProgressState,
    /// The reason for which the layer waits, while it is being received.
    pub wait: Option<WaitReason>,
}

/// The state of a layer in a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressState {
    /// Other layers are pulled first.
    Waiting,
    /// It is being received and unpacked.
    Receiving,
    /// It was unpacked.
    Unpacked,
    /// It was stored before the pull.
    Present,
}

/// Tracks the progress of a pull for its listeners and the log.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    /// The progress of the manifest, the config and the final sync.
    pub(super) watch: Arc<LayerProgress>,
    senders: Mutex<Vec<mpsc::Sender<Progress>>>,
    layers: Mutex<Vec<Layer>>,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    total: u64,
    state: ProgressState,
    watch: Arc<LayerProgress>,
    reported: u64,
}

impl ProgressTracker {
    /// Adds a listener.
    pub(super) fn join(&self, sender: Option<mpsc::Sender<Progress>>) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).extend(sender);
    }

    /// Adds a layer.
    pub(super) fn layer(&self, of: &Descriptor) -> Arc<LayerProgress> {
        let watch = Arc::new(LayerProgress::default());
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(Layer {
            digest: of.digest.to_string(),
            total: of.size,
            state: ProgressState::Waiting,
            watch: Arc::clone(&watch),
            reported: 0,
        });
        watch
    }

    /// Changes the state of a layer, and notifies the listeners.
    pub(super) fn state(&self, of: &Arc<LayerProgress>, state: ProgressState) {
        let step = {
            let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(layer) = layers.iter_mut().find(|layer| Arc::ptr_eq(&layer.watch, of)) else {
                return;
            };
            layer.state = state;
            layer.step()
        };
        self.notify(&step);
    }

    fn notify(&self, step: &Progress) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| {
            !matches!(sender.try_send(step.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    /// Notifies listeners at each tick, until the future is dropped.
    pub(super) async fn watch(&self, image: &str) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let mut logged = began;
        loop {
            ticks.tick().await;
            for step in self.steps() {
                self.notify(&step);
            }
            if logged.elapsed() >= SLOW {
                logged = Instant::now();
                self.log(image, began.elapsed());
            }
        }
    }

    /// The layers that received more since the last call.
    fn steps(&self) -> Vec<Progress> {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let moving = layers.iter_mut().filter(|of| of.state == ProgressState::Receiving);
        let mut steps = Vec::new();
        for layer in moving {
            let step = layer.step();
            if step.received != layer.reported {
                layer.reported = step.received;
                steps.push(step);
            }
        }
        steps
    }

    fn log(&self, image: &str, since: Duration) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut received, mut total) = (0_u64, 0_u64);
        let mut waits: BTreeMap<String, u32> = BTreeMap::new();
        for layer in layers.iter() {
            // The sizes come from the manifest.
            total = total.saturating_add(layer.total);
            received = received.saturating_add(layer.step().received);
            if layer.state == ProgressState::Receiving {
                *waits.entry(layer.watch.now().1.to_string()).or_default() += 1;
            }
        }
        if waits.is_empty() {
            waits.insert(self.watch.now().1.to_string(), 1);
        }
        let waits_for: Vec<String> =
            waits.into_iter().map(|(wait, count)| format!("{count} for {wait}")).collect();
        let took_s = since.as_secs();
        tracing::info!(
            image,
            took_s,
            received,
            total,
            waits_for = waits_for.join(", "),
            "pull in progress"
        );
    }

    /// Received and total compressed bytes, and the bytes after decompression.
    pub(super) fn bytes(&self) -> (u64, u64, u64) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = layers.iter().filter(|of| of.state != ProgressState::Present);
        coming.fold((0, 0, 0), |(received, total, inflated): (u64, u64, u64), of| {
            let all = total.saturating_add(of.total);
            let received = received.saturating_add(of.watch.now().0);
            (received, all, inflated.saturating_add(of.watch.inflated()))
        })
    }
}

impl Layer {
    fn step(&self) -> Progress {
        let (received, wait) = self.watch.now();
        let is_moving = self.state == ProgressState::Receiving;
        let is_there = matches!(self.state, ProgressState::Unpacked | ProgressState::Present);
        Progress {
            digest: self.digest.clone(),
            received: if is_there { self.total } else { received },
            total: self.total,
            state: self.state,
            wait: is_moving.then_some(wait),
        }
    }
}
