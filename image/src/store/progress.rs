// SPDX-License-Identifier: Apache-2.0
//! How far a pull is: reported to those who asked, and to the log when it takes long.
//!
//! The rule: the layers write into their [`Watch`] and never wait; this looks at them from time to
//! time. A listener that is too slow misses steps.

use crate::layer::progress::{Wait, Watch};
use crate::manifest::Descriptor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How often listeners are reported.
const TICK: Duration = Duration::from_millis(200);
/// After how long, and how often, the log says what a pull waits for.
const SLOW: Duration = Duration::from_secs(10);

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer's.
    pub digest: String,
    /// Bytes that came, compressed.
    pub received: u64,
    /// Bytes there are, compressed.
    pub total: u64,
    /// What happens with it.
    pub state: ProgressState,
    /// What it waits for, while it is received.
    pub wait: Option<Wait>,
}

/// What happens with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressState {
    /// Others are first.
    Waiting,
    /// It comes, and is unpacked as it comes.
    Receiving,
    /// It is there.
    Unpacked,
    /// It was there before.
    Present,
}

/// A pull, seen from outside.
#[derive(Debug, Default)]
pub(super) struct ProgressTracker {
    /// What its documents, and at last the disk, wait for.
    pub(super) watch: Arc<Watch>,
    senders: Mutex<Vec<mpsc::Sender<Progress>>>,
    layers: Mutex<Vec<Layer>>,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    total: u64,
    state: ProgressState,
    watch: Arc<Watch>,
    reported: u64,
}

impl ProgressTracker {
    /// One more who wants to know.
    pub(super) fn join(&self, sender: Option<mpsc::Sender<Progress>>) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).extend(sender);
    }

    /// A layer comes into sight.
    pub(super) fn layer(&self, of: &Descriptor) -> Arc<Watch> {
        let watch = Arc::new(Watch::default());
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).push(Layer {
            digest: of.digest.to_string(),
            total: of.size,
            state: ProgressState::Waiting,
            watch: Arc::clone(&watch),
            reported: 0,
        });
        watch
    }

    /// Something else happens with a layer now.
    pub(super) fn state(&self, of: &Arc<Watch>, state: ProgressState) {
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

    /// Tells how far it is until it is dropped.
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

    /// The layers of which more has come since this was asked last.
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
            // Sizes are what somebody else says.
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
            "pull under way"
        );
    }

    /// Compressed bytes that came so far and all that there are, and bytes that they inflated to.
    pub(super) fn bytes(&self) -> (u64, u64, u64) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = layers.iter().filter(|of| of.state != ProgressState::Present);
        coming.fold((0, 0, 0), |(received, total, inflated): (u64, u64, u64), of| {
            let all = total.saturating_add(of.total);
            (received + of.watch.now().0, all, inflated + of.watch.inflated())
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
