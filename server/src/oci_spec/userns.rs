// SPDX-License-Identifier: Apache-2.0
//! User namespaces: the maps that a pod's config requests, checked before anything is created; and maps of volumes.
//!
//! The rule: a pod has one range of users and one of groups, assigned by the kubelet or by Hull, with root in the container and
//! without the host's root. Its containers are in the pod's user namespace, never in another one.

use super::Error;
use hull_plan::{IdMap, IdMaps, to_host_id};
use hull_proto::cri::{self, NamespaceMode};
use serde_json::{Value, json};

/// Most ranges of one map, `user_namespaces(7)`.
const RANGES_MAX: usize = 340;
/// The kernel's value for "no id".
const NO_ID: u64 = u32::MAX as u64;

/// The maps of a pod's user namespace, which is the assigned one or that of its config; `None` if it is in the host's.
pub(crate) fn of_pod(
    config: &cri::PodSandboxConfig,
    assigned: Option<&cri::UserNamespace>,
) -> Result<Option<IdMaps>, Error> {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    let of_config = options.and_then(|options| options.userns_options.as_ref());
    let Some(asked) = assigned.or(of_config) else { return Ok(None) };
    match NamespaceMode::try_from(asked.mode) {
        Ok(NamespaceMode::Pod) => {}
        Ok(NamespaceMode::Node) if asked.uids.is_empty() && asked.gids.is_empty() => {
            return Ok(None);
        }
        Ok(NamespaceMode::Node) => {
            return Err(bad("mode", "NODE", "there are mappings too, which need mode POD"));
        }
        Ok(NamespaceMode::Container | NamespaceMode::Target) | Err(_) => {
            let value = NamespaceMode::try_from(asked.mode)
                .map_or_else(|_| asked.mode.to_string(), |mode| mode.as_str_name().to_owned());
            return Err(bad("mode", &value, "it is neither POD nor NODE"));
        }
    }
    let maps = IdMaps {
        uids: vec![of_one("uids", &asked.uids)?],
        gids: vec![of_one("gids", &asked.gids)?],
    };
    let shared = options.map(|options| [("pid", options.pid), ("ipc", options.ipc)]);
    for (what, mode) in shared.into_iter().flatten() {
        if mode == NamespaceMode::Node as i32 {
            let why = "the host's cannot be used from a user namespace: the kernel does not allow mounts of its /proc or /dev/mqueue there";
            return Err(bad(what, "NODE", why));
        }
    }
    Ok(Some(maps))
}

/// Refuses a container that requests another user namespace than its pod's.
pub(super) fn check_container(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
    is_assigned: bool,
) -> Result<(), Error> {
    let Some(options) = super::namespace_options(config) else { return Ok(()) };
    let Some(own) = &options.userns_options else { return Ok(()) };
    let of_pod = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let of_pod = of_pod.and_then(|context| context.namespace_options.as_ref());
    let of_pod = of_pod.and_then(|options| options.userns_options.as_ref());
    let is_host = |of: &cri::UserNamespace| of.mode == NamespaceMode::Node as i32;
    let is_as_asked = if is_assigned {
        // The pod's, whichever that is.
        own.mode == NamespaceMode::Pod as i32 && own.uids.is_empty() && own.gids.is_empty()
    } else {
        of_pod.is_none_or(is_host) && is_host(own)
    };
    if of_pod == Some(own) || is_as_asked {
        return Ok(());
    }
    Err(bad("mode", &shown_all(&own.uids), "the container's is not the pod's"))
}

/// Refuses a process whose ids are not mapped in the pod's user namespace.
pub(super) fn check_user(
    user: &super::user::ResolvedUser,
    maps: Option<&IdMaps>,
) -> Result<(), Error> {
    let Some(maps) = maps else { return Ok(()) };
    let users = std::iter::once(("the user", user.uid, &maps.uids));
    let groups = std::iter::once(user.gid).chain(user.groups.iter().copied());
    let groups = groups.map(|gid| ("a group", gid, &maps.gids));
    for (field, id, ranges) in users.chain(groups) {
        if !is_inside(ranges, id) {
            let ends = ranges.iter().map(|range| range.container_id.saturating_add(range.length));
            let ids = ends.max().unwrap_or(0);
            return Err(Error::UnmappedId { field, id, ids });
        }
    }
    Ok(())
}

/// Whether an id inside stands for one of the host.
pub(crate) fn is_inside(ranges: &[IdMap], id: u32) -> bool {
    to_host_id(ranges, id).is_some()
}

fn bad(field: &'static str, value: &str, why: &'static str) -> Error {
    Error::UserNamespace { field, value: value.to_owned(), why }
}

fn shown(map: &cri::IdMapping) -> String {
    format!("{}:{}:{}", map.container_id, map.host_id, map.length)
}

fn shown_all(maps: &[cri::IdMapping]) -> String {
    maps.iter().take(4).map(shown).collect::<Vec<_>>().join(" ")
}

/// The single range of a pod.
fn of_one(field: &'static str, given: &[cri::IdMapping]) -> Result<IdMap, Error> {
    let [only] = given else {
        let why =
            if given.is_empty() { "there is no mapping" } else { "it is more than one mapping" };
        return Err(bad(field, &shown_all(given), why));
    };
    let map = checked(only).map_err(|why| bad(field, &shown(only), why))?;
    if map.container_id != 0 {
        return Err(bad(field, &shown(only), "container id 0 is not mapped"));
    }
    if map.host_id == 0 {
        return Err(bad(field, &shown(only), "the host's root would be in the pod"));
    }
    Ok(map)
}

fn checked(map: &cri::IdMapping) -> Result<IdMap, &'static str> {
    let end = |first: u32| u64::from(first) + u64::from(map.length);
    if map.length == 0 {
        return Err("its length is 0");
    }
    if end(map.container_id) > NO_ID {
        return Err("its container ids go past the last one");
    }
    if end(map.host_id) > NO_ID {
        return Err("its host ids go past the last one");
    }
    Ok(IdMap { container_id: map.container_id, host_id: map.host_id, length: map.length })
}

/// The maps of a volume; `None` if it has none. There may be several ranges.
pub(super) fn of_mount(mount: &cri::Mount) -> Result<Option<IdMaps>, Error> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(None);
    }
    Ok(Some(IdMaps {
        uids: of_many("uidMappings", &mount.uid_mappings)?,
        gids: of_many("gidMappings", &mount.gid_mappings)?,
    }))
}

fn of_many(field: &'static str, given: &[cri::IdMapping]) -> Result<Vec<IdMap>, Error> {
    let bad = |value, why| Error::Bad { field, value, why };
    if given.is_empty() {
        return Err(bad(String::new(), "users and groups are mapped only together"));
    }
    if given.len() > RANGES_MAX {
        return Err(bad(given.len().to_string(), "the kernel takes at most 340 ranges"));
    }
    let mut ranges: Vec<IdMap> = Vec::with_capacity(given.len());
    for map in given {
        let range = checked(map).map_err(|why| bad(shown(map), why))?;
        if ranges.iter().any(|other| overlap(*other, range)) {
            return Err(bad(shown(map), "it overlaps with another range"));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

fn overlap(a: IdMap, b: IdMap) -> bool {
    let meet = |a: u32, a_length: u32, b: u32, b_length: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_length)
            && u64::from(b) < u64::from(a) + u64::from(a_length)
    };
    meet(a.container_id, a.length, b.container_id, b.length)
        || meet(a.host_id, a.length, b.host_id, b.length)
}

/// The ranges in the form of the OCI spec.
pub(super) fn oci(ranges: &[IdMap]) -> Value {
    let range = |of: &IdMap| json!({"containerID": of.container_id, "hostID": of.host_id, "size": of.length});
    ranges.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(container_id: u32, host_id: u32, length: u32) -> cri::IdMapping {
        cri::IdMapping { host_id, container_id, length }
    }

    fn config(mode: NamespaceMode, uids: &[cri::IdMapping]) -> cri::PodSandboxConfig {
        let userns = cri::UserNamespace {
            mode: mode as i32,
            uids: uids.to_vec(),
            gids: if uids.is_empty() { Vec::new() } else { vec![map(0, 1000, 65_536)] },
        };
        let options = cri::NamespaceOption { userns_options: Some(userns), ..Default::default() };
        cri::PodSandboxConfig {
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn refused(mode: NamespaceMode, uids: &[cri::IdMapping]) -> String {
        of_pod(&config(mode, uids), None).unwrap_err().to_string()
    }

    #[test]
    fn the_maps_of_a_kubelet_are_accepted() {
        let maps =
            of_pod(&config(NamespaceMode::Pod, &[map(0, 65_536, 65_536)]), None).unwrap().unwrap();
        assert_eq!(maps.uids, [IdMap { container_id: 0, host_id: 65_536, length: 65_536 }]);
        assert_eq!(to_host_id(&maps.uids, 7), Some(65_543));
        assert!(!is_inside(&maps.uids, 65_536));
        assert_eq!(of_pod(&config(NamespaceMode::Node, &[]), None).unwrap(), None);
        assert_eq!(of_pod(&cri::PodSandboxConfig::default(), None).unwrap(), None);
    }

    #[test]
    fn invalid_maps_are_refused_with_their_field() {
        use NamespaceMode::{Container, Node, Pod, Target};
        let good = map(0, 1000, 10);
        for (mode, uids, says) in [
            (Pod, vec![], "uids: there is no mapping"),
            (Pod, vec![good, map(10, 5000, 5)], "uids: it is more than one"),
            (Pod, vec![map(1, 1000, 10)], "`1:1000:10` as userns_options.uids: container id 0"),
            (Pod, vec![map(0, 0, 10)], "uids: the host's root"),
            (Pod, vec![map(0, 1000, 0)], "uids: its length is 0"),
            (Pod, vec![map(0, u32::MAX - 5, 10)], "uids: its host ids"),
            (Pod, vec![map(0, 1, u32::MAX)], "uids: its host ids"),
            (Node, vec![good], "mode: there are mappings"),
            (Container, vec![], "`CONTAINER` as userns_options.mode"),
            (Target, vec![good], "`TARGET` as userns_options.mode"),
        ] {
            let said = refused(mode, &uids);
            assert!(said.contains(says), "{says:?} in {said}");
        }
    }

    #[test]
    fn a_container_is_in_its_pods_user_namespace() {
        let pod = config(NamespaceMode::Pod, &[map(0, 1000, 65_536)]);
        let options = |of: &cri::PodSandboxConfig| {
            of.linux.clone().unwrap().security_context.unwrap().namespace_options
        };
        let container = |of: &cri::PodSandboxConfig| cri::ContainerConfig {
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: options(of),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        check_container(&container(&pod), &pod, false).unwrap();
        check_container(&cri::ContainerConfig::default(), &pod, false).unwrap();
        let other = config(NamespaceMode::Pod, &[map(0, 2000, 65_536)]);
        check_container(&container(&other), &pod, false).unwrap_err();
        let host = config(NamespaceMode::Node, &[]);
        check_container(&container(&host), &pod, false).unwrap_err();
        check_container(&container(&host), &cri::PodSandboxConfig::default(), false).unwrap();
        check_container(&container(&pod), &cri::PodSandboxConfig::default(), false).unwrap_err();
        // In a pod to which Hull assigned one.
        let silent = cri::PodSandboxConfig::default();
        let default = container(&config(NamespaceMode::Pod, &[]));
        check_container(&default, &silent, true).unwrap();
        check_container(&default, &silent, false).unwrap_err();
        check_container(&container(&host), &host, true).unwrap();
        check_container(&container(&host), &silent, true).unwrap_err();
        check_container(&container(&pod), &silent, true).unwrap_err();
    }

    proptest! {
        /// In all accepted ranges, no id of one side has two on the other.
        #[test]
        fn maps_of_volumes_are_one_to_one(
            given in proptest::collection::vec((0..50u32, 0..50u32, 0..20u32), 1..6), id in 0..80u32,
        ) {
            let given: Vec<_> = given.iter().map(|(a, b, c)| map(*a, *b, *c)).collect();
            if let Ok(ranges) = of_many("uidMappings", &given) {
                let has = |first: u32, length: u32| id >= first && id - first < length;
                prop_assert!(ranges.iter().filter(|of| has(of.container_id, of.length)).count() < 2);
                prop_assert!(ranges.iter().filter(|of| has(of.host_id, of.length)).count() < 2);
            }
        }
    }
}
