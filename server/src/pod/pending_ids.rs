// SPDX-License-Identifier: Apache-2.0
//! Ids of the host that pods have, and those reserved for pods that are not in the registry yet.

use hull_plan::IdMaps;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The ids of a pod, and how it came to them.
#[derive(Debug, Clone)]
pub(super) struct PodIds {
    pub(super) pod: String,
    pub(super) maps: IdMaps,
    /// Whether Hull assigned them; else the pod's client named them.
    pub(super) is_assigned: bool,
}

/// The ids of pods on their way into the registry, by the pod's id.
#[derive(Debug, Default)]
pub(crate) struct PendingIds {
    pods: Mutex<BTreeMap<String, PodIds>>,
}

/// Ids that no other pod gets while this lives. It is dropped once the pod is in the registry.
#[derive(Debug)]
pub(crate) struct Reservation {
    pending: Arc<PendingIds>,
    pod: String,
}

impl PendingIds {
    /// Reserves the ids that `choose` finds, with those of all other pods before it: the ones in `registered`, and
    /// the ones reserved.
    pub(super) fn reserve<E>(
        self: &Arc<Self>,
        registered: impl FnOnce() -> Vec<PodIds>,
        choose: impl FnOnce(&[PodIds]) -> Result<PodIds, E>,
    ) -> Result<Reservation, E> {
        let mut pods = self.lock();
        // Read under the lock: a pod that has just left it is in the registry.
        let mut used = registered();
        used.extend(pods.values().cloned());
        let chosen = choose(&used)?;
        let pod = chosen.pod.clone();
        pods.insert(pod.clone(), chosen);
        Ok(Reservation { pending: Arc::clone(self), pod })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, PodIds>> {
        // Every change is a single insert or remove: a panic leaves nothing half done.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.pod);
    }
}
