// SPDX-License-Identifier: Apache-2.0
//! Requests of pods to their network, and whether a plugin of the chain takes them.
//!
//! The rule: host ports and rates that nothing can provide are refused. Where a plugin is not one of the
//! reference plugins it may provide them by an agent of its own, without the capability (Cilium does): such pods are
//! attached, with a remark.

use super::conf::{Network, Plugin};
use super::error::Error;
use serde_json::{Map, Value};
use tracing::warn;

/// A capability that a pod notices when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Capability {
    /// Its name in configurations.
    name: &'static str,
    /// The parts of a pod that it is for, in messages.
    what: &'static str,
    /// The reference plugin that has it.
    plugin: &'static str,
}

const NOTICED: [Capability; 2] = [
    Capability { name: "portMappings", what: "host ports", plugin: "portmap" },
    Capability { name: "bandwidth", what: "rate limits", plugin: "bandwidth" },
];

/// The plugins of the CNI project, and Flannel's, which calls one of them: these do nothing beside their calls.
const REFERENCE: [&str; 20] = [
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "flannel",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
    "win-bridge",
];

/// Capabilities that the arguments name and that no plugin declares, and whether nothing can provide them.
fn missing<'p>(
    arguments: &Map<String, Value>,
    plugins: impl Iterator<Item = &'p Plugin> + Clone,
) -> impl Iterator<Item = (Capability, bool)> {
    let is_hopeless = plugins.clone().all(|of| REFERENCE.contains(&of.program.as_str()));
    let requested = NOTICED.into_iter().filter(|of| arguments.contains_key(of.name));
    let missing: Vec<_> =
        requested.filter(|of| !plugins.clone().any(|plugin| plugin.has(of.name))).collect();
    missing.into_iter().map(move |of| (of, is_hopeless))
}

/// Refuses host ports and rates of a pod that no plugin of its networks can provide.
pub(super) fn refuse<'n>(
    pod: &str,
    arguments: &Map<String, Value>,
    networks: impl Iterator<Item = &'n Network> + Clone,
) -> Result<(), Error> {
    let plugins = networks.clone().flat_map(|network| &network.plugins);
    for (of, is_hopeless) in missing(arguments, plugins.clone()) {
        let Some(first) = networks.clone().next().filter(|_| is_hopeless) else {
            warn!(pod, "{}", remark(of));
            continue;
        };
        let names: Vec<&str> = plugins.map(|plugin| plugin.program.as_str()).collect();
        return Err(Error::NoCapability {
            what: of.what,
            capability: of.name,
            plugin: of.plugin,
            network: first.name.clone(),
            plugins: names.join(", "),
            file: first.file.clone(),
        });
    }
    Ok(())
}

/// The requests of a pod that no plugin of its networks declares, each as a sentence.
pub(super) fn remarks(arguments: &Map<String, Value>, plugins: &[Plugin]) -> Vec<String> {
    missing(arguments, plugins.iter()).map(|(of, _)| remark(of)).collect()
}

/// The remark about a capability that a plugin may provide in its own way.
fn remark(of: Capability) -> String {
    format!(
        "no plugin of the pod's network declares the capability `{}`: the pod has its {} only if an agent of a plugin provides them",
        of.name, of.what
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plugin(object: &Value) -> Plugin {
        let object = object.as_object().unwrap().clone();
        let program = object["type"].as_str().unwrap().to_owned();
        Plugin { program, object }
    }

    #[test]
    fn what_no_plugin_takes_is_refused_unless_an_agent_may_provide_it() {
        let bridge = json!({"type": "bridge"});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let undeclared = json!({"type": "portmap"});
        let cilium = json!({"type": "cilium-cni"});
        let ports = json!({"portMappings": [], "dns": {}});
        let both = json!({"portMappings": [], "bandwidth": {}});
        for (arguments, chain, wanted) in [
            (&ports, vec![&bridge, &portmap], vec![]),
            (&ports, vec![&bridge], vec![("portMappings", true)]),
            (&ports, vec![&bridge, &undeclared], vec![("portMappings", true)]),
            (&ports, vec![&cilium], vec![("portMappings", false)]),
            (&both, vec![&bridge, &portmap], vec![("bandwidth", true)]),
            (&json!({}), vec![&bridge], vec![]),
        ] {
            let chain: Vec<_> = chain.into_iter().map(plugin).collect();
            let missing = missing(arguments.as_object().unwrap(), chain.iter());
            let missing: Vec<_> = missing.map(|(of, hopeless)| (of.name, hopeless)).collect();
            assert_eq!(missing, wanted, "{arguments} {chain:?}");
        }
        assert!(remark(NOTICED[0]).contains("host ports"));
    }
}
