// SPDX-License-Identifier: Apache-2.0
//! The pods and containers of the node, by id, by id prefix and by name.
//!
//! Holds handles only; what a pod is lives in its task. The lock is held for look-ups, never across
//! an await.

use super::pending_ids::PendingIds;
use super::{Pod, PodSnapshot};
use hull_proto::cri;
use hull_proto::id::{ContainerId, PodId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The identity of a RunPodSandbox call: two calls with the same key are the same call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    namespace: String,
    name: String,
    uid: String,
    attempt: u32,
}

impl Key {
    /// Of a pod's metadata.
    pub(crate) fn of(metadata: &cri::PodSandboxMetadata) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            attempt: metadata.attempt,
        }
    }
}

#[derive(Debug, Default)]
struct Tables {
    pods: BTreeMap<PodId, Pod>,
    names: HashMap<Key, PodId>,
    containers: BTreeMap<ContainerId, PodId>,
}

/// The pods of this node.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    tables: RwLock<Tables>,
    ids: Arc<PendingIds>,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // Every change under the lock is a single insert or remove: a panic leaves nothing half done.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of pods that are not entered yet.
    pub(super) fn ids(&self) -> &Arc<PendingIds> {
        &self.ids
    }

    /// The pod that has the name `key`.
    pub(crate) fn named(&self, key: &Key) -> Option<Pod> {
        let tables = self.read();
        tables.names.get(key).and_then(|id| tables.pods.get(id)).cloned()
    }

    /// Enters `pod` under the name `key`. If another pod has that name already, gives that one.
    pub(crate) fn enter(&self, key: Key, pod: &Pod) -> Option<Pod> {
        let mut tables = self.write();
        if let Some(holder) = tables.names.get(&key).and_then(|id| tables.pods.get(id)) {
            return Some(holder.clone());
        }
        tables.names.insert(key, pod.id.clone());
        tables.pods.insert(pod.id.clone(), pod.clone());
        None
    }

    /// Enters a pod of an earlier daemon, under its name unless another pod has that: it is known by its id in
    /// any case. False when the name was another's.
    pub(crate) fn adopt(&self, key: Option<Key>, pod: Pod) -> bool {
        let mut tables = self.write();
        let mut is_first = true;
        if let Some(key) = key {
            let holder = tables.names.entry(key).or_insert_with(|| pod.id.clone());
            is_first = *holder == pod.id;
        }
        tables.pods.insert(pod.id.clone(), pod);
        is_first
    }

    /// Takes a pod and its containers out.
    pub(crate) fn leave(&self, id: &PodId, key: &Key) {
        let mut tables = self.write();
        tables.pods.remove(id);
        if tables.names.get(key) == Some(id) {
            tables.names.remove(key);
        }
        tables.containers.retain(|_, pod| pod != id);
    }

    /// Enters a container.
    pub(crate) fn enter_container(&self, id: ContainerId, pod: PodId) {
        self.write().containers.insert(id, pod);
    }

    /// Takes a container out.
    pub(crate) fn leave_container(&self, id: &ContainerId) {
        self.write().containers.remove(id);
    }

    /// The snapshots of all pods.
    pub(crate) fn views(&self) -> Vec<Arc<PodSnapshot>> {
        self.read().pods.values().map(Pod::view).collect()
    }

    /// The pod with this id, or the only pod whose id has this prefix.
    pub(crate) fn pod(&self, id: &str) -> Option<Pod> {
        let tables = self.read();
        if let Ok(whole) = PodId::parse(id) {
            return tables.pods.get(&whole).cloned();
        }
        only(tables.pods.iter(), id).map(|(_, pod)| pod.clone())
    }

    /// The container with this id, or the only one whose id has this prefix, and its pod.
    pub(crate) fn container(&self, id: &str) -> Option<(ContainerId, Pod)> {
        let tables = self.read();
        if let Ok(whole) = ContainerId::parse(id) {
            let pod = tables.pods.get(tables.containers.get(&whole)?)?.clone();
            return Some((whole, pod));
        }
        let (container, pod) = only(tables.containers.iter(), id)?;
        Some((container.clone(), tables.pods.get(pod)?.clone()))
    }
}

/// The entry whose id is `text`, or else the only one that begins with it.
fn only<'a, K: AsId + 'a, V>(
    mut entries: impl Iterator<Item = (&'a K, &'a V)>,
    text: &str,
) -> Option<(&'a K, &'a V)> {
    if text.is_empty() {
        return None;
    }
    let mut found = None;
    entries
        .try_for_each(|entry| {
            if entry.0.text() == text {
                found = Some(entry);
                return Err(true);
            }
            if entry.0.text().starts_with(text) {
                if found.is_some() {
                    found = None;
                    return Err(false);
                }
                found = Some(entry);
            }
            Ok(())
        })
        .ok();
    found
}

trait AsId {
    fn text(&self) -> &str;
}

impl AsId for PodId {
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl AsId for ContainerId {
    fn text(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_finds_the_only_one_and_nothing_when_there_are_two() {
        let ids: Vec<_> = ["1a", "1b", "2c"]
            .iter()
            .map(|head| ContainerId::parse(&format!("{head}{}", "0".repeat(62))).unwrap())
            .collect();
        let entries: Vec<_> = ids.iter().map(|id| (id, &())).collect();
        let find = |text: &str| only(entries.iter().copied(), text).map(|(id, ())| id.clone());
        assert_eq!(find("2"), Some(ids[2].clone()));
        assert_eq!(find("1"), None);
        assert_eq!(find("1b"), Some(ids[1].clone()));
        assert_eq!(find(ids[0].as_str()), Some(ids[0].clone()));
        assert_eq!(find(""), None);
        assert_eq!(find("3"), None);
    }
}
