// SPDX-License-Identifier: Apache-2.0
//! Runtime handlers: the settings that a RuntimeClass chooses for a pod by name, and what they change in requests.
//!
//! The rule: a handler is looked up once, when its pod is made. The pod keeps the settings in its record, so neither a
//! changed configuration nor a restart changes them under its containers. A handler that this node cannot provide as
//! configured refuses its pods; it never provides less.
//!
//! Each setting takes effect where that of `[runtime]` does: in `oci_spec::inputs`, `container::quota`, `pause_plan`
//! and `setup`. A user namespace that the client did not request is entered into its request here.

use super::PodRecord;
use super::user_ids::{Reserved, UserIds};
use crate::config::{Config, Handler, IdRange, NATIVE, UserNamespaces};
use crate::error::Error;
use hull_plan::IdMap;
use hull_proto::cri::{self, NamespaceMode};
use std::sync::Arc;

/// The names of all handlers of this node. The first is the one of pods without a RuntimeClass.
pub(crate) fn names(config: &Config) -> Vec<String> {
    let native = ["".to_owned(), NATIVE.to_owned()];
    native.into_iter().chain(config.runtime.handlers.keys().cloned()).collect()
}

/// The settings of the handler with this name; `None` if they are those of the node.
///
/// # Errors
/// There is no handler with this name.
pub(crate) fn find(config: &Config, name: &str) -> Result<Option<Handler>, Error> {
    if name.is_empty() || name == NATIVE {
        return Ok(None);
    }
    let found = config.runtime.handlers.get(name).cloned();
    found.map(Some).ok_or_else(|| Error::UnknownHandler {
        handler: name.to_owned(),
        known: config.runtime.handlers.keys().cloned().collect(),
    })
}

/// The facts about a node that its handlers depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeFacts<'n> {
    /// Whether pods can have user namespaces, or the reason why not.
    pub(crate) user_namespaces: &'n Result<(), String>,
    /// Whether containers have cgroup namespaces of their own.
    pub(crate) cgroup_namespaces: bool,
}

/// The reason why no pod of a handler can run on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) why: String,
    pub(crate) hint: &'static str,
}

/// The obstacle to pods of this handler on the node, if there is one.
pub(crate) fn obstacle(handler: &Handler, node: NodeFacts<'_>) -> Option<Obstacle> {
    match (handler.user_namespaces, node.user_namespaces) {
        (UserNamespaces::Always, Err(why)) => Some(Obstacle {
            why: format!("its pods have user namespaces, which this node cannot provide: {why}"),
            hint: "enable user namespaces on this node, or set `user_namespaces = \"pod\"` for the handler",
        }),
        _ if handler.cgroup_writable == Some(true) && !node.cgroup_namespaces => Some(Obstacle {
            why: "its containers may write to their cgroups, which needs cgroup v2: without it they have no cgroup namespace of their own".into(),
            hint: "boot with systemd.unified_cgroup_hierarchy=1, or remove `cgroup_writable` from the handler",
        }),
        _ => None,
    }
}

/// Refuses a pod whose config contradicts its handler.
fn check(name: &str, handler: &Handler, config: &cri::PodSandboxConfig) -> Result<(), Error> {
    let options = namespaces(config);
    let is_host = |mode: i32| mode == NamespaceMode::Node as i32;
    let contradictions = [
        (
            handler.network.is_some() && is_host(options.network),
            "config.linux.security_context.namespace_options.network",
            "decides on the network of its pods, and they cannot be on that of the host",
        ),
        (
            handler.user_namespaces == UserNamespaces::Always && is_host(options.pid),
            "config.linux.security_context.namespace_options.pid",
            "gives each pod a user namespace, from which the host's pid namespace cannot be used",
        ),
        (
            handler.user_namespaces == UserNamespaces::Always && is_host(options.ipc),
            "config.linux.security_context.namespace_options.ipc",
            "gives each pod a user namespace, from which the host's ipc namespace cannot be used",
        ),
    ];
    match contradictions.into_iter().find(|(is_one, ..)| *is_one) {
        Some((_, field, what)) => {
            Err(Error::Invalid { field, why: format!("runtime handler `{name}` {what}") })
        }
        None => Ok(()),
    }
}

fn namespaces(config: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let context = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    context.and_then(|context| context.namespace_options.clone()).unwrap_or_default()
}

/// Whether a request asks for no user namespace: kubelets send the mode NODE without maps then, others nothing.
fn has_none(requested: Option<&cri::UserNamespace>) -> bool {
    requested.is_none_or(|of| {
        of.mode == NamespaceMode::Node as i32 && of.uids.is_empty() && of.gids.is_empty()
    })
}

/// Checks a new pod against its handler, and gives it a user namespace if the handler does. The ids are reserved until
/// the result is dropped, or the pod is in the registry.
///
/// # Errors
/// The node cannot provide the handler, the config contradicts it, or there are no ids left.
pub(crate) fn prepare(
    (name, handler): (&str, &Handler),
    node: NodeFacts<'_>,
    config: &mut cri::PodSandboxConfig,
    ids: (&Arc<UserIds>, &str),
    used: impl FnOnce() -> Vec<IdMap>,
) -> Result<Option<Reserved>, Error> {
    if let Some(Obstacle { why, hint }) = obstacle(handler, node) {
        return Err(Error::Handler { handler: name.to_owned(), why, hint });
    }
    check(name, handler, config)?;
    let requested = namespaces(config).userns_options;
    if handler.user_namespaces == UserNamespaces::Pod || !has_none(requested.as_ref()) {
        return Ok(None);
    }
    let (ids, range) = ids;
    let all = IdRange::parse(range)
        .map_err(|why| Error::Internal { what: format!("use the ids {range}: {why}") })?;
    let reserved = ids.reserve(all, used);
    let reserved = reserved.ok_or_else(|| Error::NoUserIds { range: range.to_owned() })?;
    let map = vec![reserved.mapping()];
    let linux = config.linux.get_or_insert_default();
    let context = linux.security_context.get_or_insert_default();
    context.namespace_options.get_or_insert_default().userns_options =
        Some(cri::UserNamespace { mode: NamespaceMode::Pod as i32, uids: map.clone(), gids: map });
    Ok(Some(reserved))
}

/// The config of a container in its pod's user namespace, which the client may not know of if a handler gave it to the
/// pod: the container is in it too, and its volumes are mounted with mapped ids.
pub(crate) fn adapt(mut config: cri::ContainerConfig, pod: &PodRecord) -> cri::ContainerConfig {
    let always = UserNamespaces::Always;
    let is_given = pod.handler_settings.as_ref().is_some_and(|of| of.user_namespaces == always);
    let of_pod = pod.namespaces().and_then(|options| options.userns_options.clone());
    let Some(of_pod) = of_pod.filter(|_| is_given) else { return config };
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(options) = context.and_then(|context| context.namespace_options.as_mut())
        && has_none(options.userns_options.as_ref())
    {
        options.userns_options = Some(of_pod.clone());
    }
    for mount in &mut config.mounts {
        let is_mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        // The mounts of images have the maps of the pod anyway.
        if mount.image.is_none() && !is_mapped {
            mount.uid_mappings.clone_from(&of_pod.uids);
            mount.gid_mappings.clone_from(&of_pod.gids);
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::cri::NamespaceOption;

    const RANGE: &str = "131072:131072";
    const WORKS: Result<(), String> = Ok(());

    fn facts() -> NodeFacts<'static> {
        NodeFacts { user_namespaces: &WORKS, cgroup_namespaces: true }
    }

    fn always() -> Handler {
        Handler { user_namespaces: UserNamespaces::Always, ..Handler::default() }
    }

    fn config(options: NamespaceOption) -> cri::PodSandboxConfig {
        let context = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        };
        let linux =
            cri::LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        cri::PodSandboxConfig { linux: Some(linux), ..Default::default() }
    }

    fn of_host() -> cri::UserNamespace {
        cri::UserNamespace { mode: NamespaceMode::Node as i32, ..Default::default() }
    }

    fn prepared(
        handler: &Handler,
        config: &mut cri::PodSandboxConfig,
        ids: &Arc<UserIds>,
    ) -> Result<Option<Reserved>, Error> {
        prepare(("x", handler), facts(), config, (ids, RANGE), Vec::new)
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_there_are() {
        let mut config = Config::default();
        config.runtime.handlers.insert("strict".into(), always());
        assert_eq!(find(&config, "").unwrap(), None);
        assert_eq!(find(&config, "hull").unwrap(), None);
        assert_eq!(find(&config, "strict").unwrap(), Some(always()));
        assert_eq!(names(&config), ["", "hull", "strict"]);
        let unknown = find(&config, "kata").unwrap_err();
        let said = unknown.to_string();
        assert!(said.contains("`kata`") && said.contains("`hull`, `strict`"), "{said}");
        assert!(unknown.hint().unwrap().contains("[runtime.handlers.NAME]"));
    }

    #[test]
    fn a_pod_gets_ids_that_no_other_has_and_keeps_those_that_it_asks_for() {
        let ids = Arc::new(UserIds::default());
        for options in [
            NamespaceOption::default(),
            NamespaceOption { userns_options: Some(of_host()), ..Default::default() },
        ] {
            let mut pod = config(options);
            let first = prepared(&always(), &mut pod, &ids).unwrap();
            assert!(first.is_some());
            let maps = crate::oci_spec::userns::of_pod(&pod).unwrap().unwrap();
            assert_eq!((maps.uids[0].host_id, maps.uids[0].length), (131_072, 65_536));
            assert_eq!(maps.uids, maps.gids);
        }
        let mut unchanged = config(NamespaceOption::default());
        assert!(prepared(&Handler::default(), &mut unchanged, &ids).unwrap().is_none());
        assert_eq!(unchanged, config(NamespaceOption::default()));
        let map = cri::IdMapping { host_id: 7_000_000, container_id: 0, length: 65_536 };
        let own = cri::UserNamespace {
            mode: NamespaceMode::Pod as i32,
            uids: vec![map],
            gids: vec![map],
        };
        let own = config(NamespaceOption { userns_options: Some(own), ..Default::default() });
        let mut asked = own.clone();
        assert!(prepared(&always(), &mut asked, &ids).unwrap().is_none());
        assert_eq!(asked, own);
    }

    #[test]
    fn what_a_handler_cannot_be_for_a_pod_is_refused() {
        let ids = Arc::new(UserIds::default());
        let node = NamespaceMode::Node as i32;
        let with_network = Handler { network: Some("none".into()), ..Handler::default() };
        for (handler, options, field) in [
            (always(), NamespaceOption { pid: node, ..Default::default() }, "pid"),
            (always(), NamespaceOption { ipc: node, ..Default::default() }, "ipc"),
            (with_network, NamespaceOption { network: node, ..Default::default() }, "network"),
        ] {
            let refused = prepared(&handler, &mut config(options), &ids).unwrap_err().to_string();
            assert!(refused.contains(&format!("namespace_options.{field}")), "{refused}");
            assert!(refused.contains("handler `x`"), "{refused}");
        }
        // Its containers cannot have more than the node gives.
        let broken = Err("no such thing".to_owned());
        let facts = NodeFacts { user_namespaces: &broken, cgroup_namespaces: false };
        let writable = Handler { cgroup_writable: Some(true), ..Handler::default() };
        for (handler, word) in [(always(), "no such thing"), (writable, "cgroup v2")] {
            let mut pod = config(NamespaceOption::default());
            let refused = prepare(("x", &handler), facts, &mut pod, (&ids, RANGE), Vec::new);
            let refused = refused.unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
            assert!(refused.hint().is_some());
        }
        let kept: Vec<_> = (0..2)
            .map(|_| prepared(&always(), &mut config(NamespaceOption::default()), &ids).unwrap())
            .collect();
        let full = prepared(&always(), &mut config(NamespaceOption::default()), &ids).unwrap_err();
        assert!(full.to_string().contains(RANGE), "{full}");
        drop(kept);
        prepared(&always(), &mut config(NamespaceOption::default()), &ids).unwrap();
    }

    #[test]
    fn the_containers_of_such_a_pod_are_in_its_user_namespace_with_their_volumes() {
        let mut pod = super::super::record::tests::ready();
        let mut of_pod = config(NamespaceOption::default());
        let ids = Arc::new(UserIds::default());
        let _reserved = prepared(&always(), &mut of_pod, &ids).unwrap();
        pod.config = of_pod;
        let options =
            NamespaceOption { userns_options: Some(of_host()), ..NamespaceOption::default() };
        let context = cri::LinuxContainerSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        };
        let linux =
            cri::LinuxContainerConfig { security_context: Some(context), ..Default::default() };
        let container = cri::ContainerConfig {
            linux: Some(linux),
            mounts: vec![
                cri::Mount { host_path: "/a".into(), ..Default::default() },
                cri::Mount { image: Some(cri::ImageSpec::default()), ..Default::default() },
            ],
            ..Default::default()
        };
        // Of a pod without such a handler, nothing changes.
        assert_eq!(adapt(container.clone(), &pod), container);
        pod.handler_settings = Some(always());
        let adapted = adapt(container.clone(), &pod);
        let of_container = crate::oci_spec::namespace_options(&adapted).unwrap();
        let of_pod = pod.namespaces().unwrap().userns_options.clone();
        assert_eq!(of_container.userns_options, of_pod);
        assert_eq!(adapted.mounts[0].uid_mappings, of_pod.unwrap().uids);
        assert!(adapted.mounts[1].uid_mappings.is_empty());
        // A retry of the client is recognized.
        assert_eq!(adapt(container, &pod), adapted);
    }
}
