// SPDX-License-Identifier: Apache-2.0
//! The assignment of a new pod's user namespace. Its range is kept in the pod's record, and is the pod's until that is
//! gone: a stopped pod still has files with owners of it.

use super::PodRecord;
use super::pending_ids::{PodIds, Reservation};
use crate::config::{Runtime, UserNamespaces};
use crate::node::Node;
use crate::userns::{Decision, Error, Files, IDS, Question, decide, overlap};
use hull_plan::{IdMap, IdMaps};
use hull_proto::cri::{self, NamespaceMode};

/// Where the configuration says that ids are.
pub(crate) fn files(runtime: &Runtime) -> Files<'_> {
    Files {
        users: &runtime.subuid_file,
        groups: &runtime.subgid_file,
        user: runtime.userns_user.as_deref(),
    }
}

/// Decides whose ids a new pod has, and reserves them until it is in the registry; `None` if they are the host's.
///
/// # Errors
/// It cannot have the ids that it asks for, or there are none for it.
pub(crate) fn assign(node: &Node, record: &mut PodRecord) -> Result<Option<Reservation>, Error> {
    let settings = node.config.current();
    let always = UserNamespaces::Always;
    let by_handler =
        record.handler_settings.as_ref().is_some_and(|of| of.user_namespaces == always);
    let policy = settings.runtime.userns;
    let question = Question { policy, by_handler, config: &record.config };
    let assigned = match decide(&question)? {
        Decision::Host { why } => {
            tracing::debug!(pod_id = %record.id, why, "pod stays in the host's user namespace");
            return Ok(None);
        }
        Decision::Requested => None,
        Decision::Assign { length } => Some((length, files(&settings.runtime).read()?)),
    };
    let registered = || {
        let views = node.registry.views();
        views.iter().filter_map(|view| ids_of(&view.record)).collect()
    };
    // Maps that cannot be used are refused with the rest of the sandbox.
    let Some((length, (users, groups))) = assigned else {
        let Some(ids) = ids_of(record) else { return Ok(None) };
        let reserve = |used: &[PodIds]| keep_apart(ids, used);
        return node.registry.ids().reserve(registered, reserve).map(Some);
    };
    let chosen = |used: &[PodIds]| -> Result<PodIds, Error> {
        let of = |ranges: fn(&IdMaps) -> &Vec<IdMap>| -> Vec<_> {
            used.iter().flat_map(|pod| ranges(&pod.maps)).map(span).collect()
        };
        let uid = users.pick(&of(|maps| &maps.uids))?;
        let gid = groups.pick(&of(|maps| &maps.gids))?;
        let map = |host_id| vec![cri::IdMapping { host_id, container_id: 0, length }];
        record.assigned_userns = Some(cri::UserNamespace {
            mode: NamespaceMode::Pod as i32,
            uids: map(uid),
            gids: map(gid),
        });
        // All of the range is reserved, also of a pod that maps a part of it.
        let whole = |host_id| vec![IdMap { container_id: 0, host_id, length: IDS }];
        let maps = IdMaps { uids: whole(uid), gids: whole(gid) };
        tracing::debug!(pod_id = %record.id, uid, gid, length, "user namespace assigned");
        Ok(PodIds { pod: record.id.clone(), maps, is_assigned: true })
    };
    node.registry.ids().reserve(registered, chosen).map(Some)
}

/// Keeps the ids of a pod that an earlier daemon left half made from others while it is taken down.
pub(crate) fn hold(node: &Node, record: &PodRecord) -> Option<Reservation> {
    let ids = ids_of(record)?;
    let held = node.registry.ids().reserve(Vec::new, |_| Ok::<_, std::convert::Infallible>(ids));
    held.ok()
}

fn ids_of(record: &PodRecord) -> Option<PodIds> {
    let maps = record.id_maps()?;
    let is_assigned = record.assigned_userns.is_some();
    Some(PodIds { pod: record.id.clone(), maps, is_assigned })
}

fn span(map: &IdMap) -> (u32, u32) {
    (map.host_id, map.length)
}

/// Refuses ids of a client that Hull has assigned to another pod. Clients keep those that they name apart by
/// themselves: the next sandbox of a pod has the ids of the one before.
fn keep_apart(ids: PodIds, used: &[PodIds]) -> Result<PodIds, Error> {
    for other in used.iter().filter(|other| other.is_assigned) {
        let pairs = [(&ids.maps.uids, &other.maps.uids), (&ids.maps.gids, &other.maps.gids)];
        for (own, others) in pairs {
            let is_taken = |map: &&IdMap| others.iter().any(|of| overlap(span(map), span(of)));
            if let Some(map) = own.iter().find(is_taken) {
                let last = u64::from(map.host_id) + u64::from(map.length.saturating_sub(1));
                return Err(Error::Taken { first: map.host_id, last, holder: other.pod.clone() });
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pod: &str, first: u32, is_assigned: bool) -> PodIds {
        let map = vec![IdMap { container_id: 0, host_id: first, length: IDS }];
        PodIds { pod: pod.into(), maps: IdMaps { uids: map.clone(), gids: map }, is_assigned }
    }

    #[test]
    fn ids_that_hull_assigned_are_no_clients() {
        let used = [ids("a", 1_048_576, true), ids("b", 200_000, false)];
        let said = keep_apart(ids("c", 1_114_111, false), &used).unwrap_err().to_string();
        assert!(said.contains("pod a has"), "{said}");
        keep_apart(ids("c", 1_114_112, false), &used).unwrap();
        // The next sandbox of the pod that a kubelet mapped.
        keep_apart(ids("c", 200_000, false), &used).unwrap();
    }
}
