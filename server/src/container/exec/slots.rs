// SPDX-License-Identifier: Apache-2.0
//! How many commands of ExecSync run at a time: each has a process, pipes and buffers, so that a client in a loop
//! would take the node's processes and the daemon's descriptors.
//!
//! The rule: one container has half of them at most, so that a client that floods it
//! cannot keep probes of other containers from running.

use hull_proto::id::ContainerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All of them.
#[derive(Debug)]
pub(crate) struct ExecSlots {
    most: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_container: HashMap<ContainerId, usize>,
}

/// No slot is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    OnNode { most: usize },
    InContainer { most: usize },
}

/// The place of one command, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct ExecSlot {
    of: Arc<ExecSlots>,
    container: ContainerId,
}

impl ExecSlots {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(most), taken: Mutex::default() })
    }

    /// Changes how many there are. Commands that run keep their places.
    pub(crate) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// A place for one more command in `container`.
    pub(crate) fn take(self: &Arc<Self>, container: &ContainerId) -> Result<ExecSlot, NoSlot> {
        let mut taken = self.taken();
        let on_node = self.most.load(Ordering::Relaxed);
        let most = on_node.div_ceil(2);
        let here = taken.by_container.get(container).copied().unwrap_or_default();
        if taken.all >= on_node {
            return Err(NoSlot::OnNode { most: on_node });
        }
        if here >= most {
            return Err(NoSlot::InContainer { most });
        }
        taken.all += 1;
        taken.by_container.insert(container.clone(), here + 1);
        Ok(ExecSlot { of: Arc::clone(self), container: container.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers alone, changed without a way to panic between.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ExecSlot {
    fn drop(&mut self) {
        let mut taken = self.of.taken();
        taken.all -= 1;
        if let Some(here) = taken.by_container.get_mut(&self.container) {
            *here -= 1;
            if *here == 0 {
                taken.by_container.remove(&self.container);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_has_half_and_what_is_given_back_can_be_taken_again() {
        let slots = ExecSlots::new(4);
        let id = |byte| ContainerId::from_random([byte; 32]);
        let (one, two, three) = (id(1), id(2), id(3));
        let mut held = vec![slots.take(&one).unwrap(), slots.take(&one).unwrap()];
        assert_eq!(slots.take(&one).unwrap_err(), NoSlot::InContainer { most: 2 });
        held.push(slots.take(&two).unwrap());
        held.push(slots.take(&two).unwrap());
        assert_eq!(slots.take(&three).unwrap_err(), NoSlot::OnNode { most: 4 });
        slots.set_most(5);
        held.push(slots.take(&three).unwrap());
        slots.set_most(4);
        assert_eq!(slots.take(&three).unwrap_err(), NoSlot::OnNode { most: 4 });
        drop(held);
        assert!(slots.taken().by_container.is_empty() && slots.taken().all == 0);
    }

    /// Liveness, readiness and startup probes of three containers in each of 110 pods, all at once.
    #[test]
    fn a_kubelets_probes_all_find_a_slot() {
        let most = crate::config::Config::default().runtime.exec_syncs_max;
        let slots = ExecSlots::new(most);
        let mut held = Vec::new();
        for container in 0..330_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&container.to_le_bytes());
            let id = ContainerId::from_random(bytes);
            held.extend((0..3).map(|_| slots.take(&id).unwrap()));
        }
    }
}
