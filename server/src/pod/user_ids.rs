// SPDX-License-Identifier: Apache-2.0
//! Ids of the host for the user namespaces that Hull gives to pods.
//!
//! The ids of a pod are in its record, so pods themselves say which are in use, also those of a kubelet. Only between
//! the choice and the entry into the registry are they kept here.

use crate::config::{IDS_PER_POD, IdRange};
use hull_plan::IdMap;
use hull_proto::cri;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The first ids of pods that are not in the registry yet.
#[derive(Debug, Default)]
pub(crate) struct UserIds(Mutex<BTreeSet<u32>>);

impl UserIds {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // Every change is a single insert or remove: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the first ids of `all` that no pod has. `None` if there are none. `used` returns the ids of the pods in
    /// the registry; it is called when no other reservation can end.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        all: IdRange,
        used: impl FnOnce() -> Vec<IdMap>,
    ) -> Option<Reserved> {
        let mut reserved = self.lock();
        let used = used();
        let is_free =
            |first: &u32| !reserved.contains(first) && !used.iter().any(|of| overlaps(*of, *first));
        let first = all.pods().find(is_free)?;
        reserved.insert(first);
        Some(Reserved { first, of: Arc::clone(self) })
    }
}

/// Whether ids of the host are those of a pod with this first id.
fn overlaps(used: IdMap, first: u32) -> bool {
    let (first, end) = (u64::from(first), u64::from(first) + u64::from(IDS_PER_POD));
    let used_end = u64::from(used.host_id) + u64::from(used.length);
    u64::from(used.host_id) < end && first < used_end
}

/// The ids of a pod. Dropped when the pod is in the registry, or when it was refused.
#[derive(Debug)]
pub(crate) struct Reserved {
    first: u32,
    of: Arc<UserIds>,
}

impl Reserved {
    /// The ids as a client would request them.
    pub(crate) fn mapping(&self) -> cri::IdMapping {
        cri::IdMapping { host_id: self.first, container_id: 0, length: IDS_PER_POD }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.of.lock().remove(&self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(host_id: u32, length: u32) -> IdMap {
        IdMap { container_id: 0, host_id, length }
    }

    #[test]
    fn no_id_is_given_to_two_pods() {
        let ids = Arc::new(UserIds::default());
        let all = IdRange::parse("65536:262144").unwrap();
        // Those of a kubelet need not begin where Hull's do.
        let used = || vec![map(131_000, 60), map(0, 1)];
        let first = ids.reserve(all, used).unwrap();
        assert_eq!(first.mapping().host_id, 131_072, "65536 to 131071 are in part a kubelet's");
        let second = ids.reserve(all, used).unwrap();
        assert_eq!(second.mapping().host_id, 196_608);
        let in_registry = || vec![map(131_000, 60), map(131_072, 65_536)];
        drop(first);
        assert_eq!(ids.reserve(all, in_registry).unwrap().mapping().host_id, 262_144);
        assert_eq!(ids.reserve(all, used).unwrap().mapping().host_id, 131_072);
        assert!(ids.reserve(all, || vec![map(0, u32::MAX)]).is_none());
    }
}
