// SPDX-License-Identifier: Apache-2.0
//! Runtime handlers: the settings that a RuntimeClass chooses for a pod by name, and what they change in requests.
//!
//! The rule: a handler is looked up once, when its pod is made. The pod keeps the settings in its record, so neither a
//! changed configuration nor a restart changes them under its containers. A handler that this node cannot provide as
//! configured refuses its pods; it never provides less.
//!
//! Each setting takes effect where that of `[runtime]` does: in `oci_spec::inputs`, `container::quota`, `pause_plan`
//! and `setup`; user namespaces are assigned in `user_namespace`.

use crate::config::{Config, Handler, NATIVE, UserNamespaces};
use crate::error::Error;
use hull_proto::cri::{self, NamespaceMode};

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

/// Checks a new pod against its handler.
///
/// # Errors
/// The node cannot provide the handler, or the config contradicts it.
pub(crate) fn check(
    (name, handler): (&str, &Handler),
    node: NodeFacts<'_>,
    config: &cri::PodSandboxConfig,
) -> Result<(), Error> {
    if let Some(Obstacle { why, hint }) = obstacle(handler, node) {
        return Err(Error::Handler { handler: name.to_owned(), why, hint });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::cri::NamespaceOption;

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
    fn what_a_handler_cannot_be_for_a_pod_is_refused() {
        let node = NamespaceMode::Node as i32;
        let with_network = Handler { network: Some("none".into()), ..Handler::default() };
        for (handler, options, field) in [
            (always(), NamespaceOption { pid: node, ..Default::default() }, "pid"),
            (always(), NamespaceOption { ipc: node, ..Default::default() }, "ipc"),
            (with_network, NamespaceOption { network: node, ..Default::default() }, "network"),
        ] {
            let refused =
                check(("x", &handler), facts(), &config(options)).unwrap_err().to_string();
            assert!(refused.contains(&format!("namespace_options.{field}")), "{refused}");
            assert!(refused.contains("handler `x`"), "{refused}");
        }
        // Its containers cannot have more than the node gives.
        let broken = Err("no such thing".to_owned());
        let facts = NodeFacts { user_namespaces: &broken, cgroup_namespaces: false };
        let writable = Handler { cgroup_writable: Some(true), ..Handler::default() };
        for (handler, word) in [(always(), "no such thing"), (writable, "cgroup v2")] {
            let pod = config(NamespaceOption::default());
            let refused = check(("x", &handler), facts, &pod).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
            assert!(refused.hint().is_some());
        }
    }
}
