// SPDX-License-Identifier: Apache-2.0
//! The plugins of the CNI project, and Flannel's, which calls one of them. What is known of them here: they do nothing
//! for a pod beside their calls, and which of them relay to an agent with a log of its own.

use super::conf::Plugin;
use serde_json::Value;

/// The process behind a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    /// There is none: the plugin writes no log, so its report is all there is.
    None,
    /// A daemon on the node, which has a log.
    Daemon,
}

const PLUGINS: [(&str, Agent); 20] = [
    ("bandwidth", Agent::None),
    ("bridge", Agent::None),
    ("dhcp", Agent::Daemon),
    ("dummy", Agent::None),
    ("firewall", Agent::None),
    ("flannel", Agent::Daemon),
    ("host-device", Agent::None),
    ("host-local", Agent::None),
    ("ipvlan", Agent::None),
    ("loopback", Agent::None),
    ("macvlan", Agent::None),
    ("portmap", Agent::None),
    ("ptp", Agent::None),
    ("sbr", Agent::None),
    ("static", Agent::None),
    ("tap", Agent::None),
    ("tuning", Agent::None),
    ("vlan", Agent::None),
    ("vrf", Agent::None),
    ("win-bridge", Agent::None),
];

fn agent(program: &str) -> Option<Agent> {
    PLUGINS.iter().find(|(name, _)| *name == program).map(|(_, agent)| *agent)
}

/// Whether it is known that a plugin has no agent, whose log could be looked at.
pub(super) fn has_no_agent(program: &str) -> bool {
    agent(program) == Some(Agent::None)
}

/// Whether a plugin does nothing beside its calls. Flannel's leaves the links to a plugin that its configuration names.
pub(super) fn is_reference(plugin: &Plugin) -> bool {
    let delegate = plugin.object.get("delegate").and_then(|of| of.get("type"));
    let delegate = delegate.and_then(Value::as_str);
    let all = [Some(plugin.program.as_str()), delegate];
    all.into_iter().flatten().all(|name| agent(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_with_a_daemon_is_a_reference_plugin_with_an_agent() {
        let plugin = |program: &str| Plugin {
            program: program.to_owned(),
            object: serde_json::Map::new(),
            file: "/etc/cni/net.d/10-a.conflist".into(),
        };
        for (program, is_known, is_alone) in [
            ("bridge", true, true),
            ("win-bridge", true, true),
            ("dhcp", true, false),
            ("flannel", true, false),
            ("cilium-cni", false, false),
        ] {
            assert_eq!(is_reference(&plugin(program)), is_known, "{program}");
            assert_eq!(has_no_agent(program), is_alone, "{program}");
        }
    }
}
