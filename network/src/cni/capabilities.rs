// SPDX-License-Identifier: Apache-2.0
//! Requests of pods to their network, and whether a plugin of the chain takes them.
//!
//! The rule: host ports that nothing can provide are refused, because nobody could reach the pod there. Where a plugin
//! is not one of the reference plugins it may provide them by an agent of its own, without the capability (Cilium
//! does): such pods are attached, with a remark. So are pods with rates that no plugin takes, as elsewhere.

use super::conf::{Network, Plugin};
use super::error::Error;
use super::reference_plugins::is_reference;
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
    /// Whether a pod is of no use without it.
    is_needed: bool,
}

const NOTICED: [Capability; 2] = [
    Capability { name: "portMappings", what: "host ports", plugin: "portmap", is_needed: true },
    Capability { name: "bandwidth", what: "rate limits", plugin: "bandwidth", is_needed: false },
];

/// Capabilities that the arguments name and that no plugin declares, and whether the pod is refused.
fn missing<'p>(
    arguments: &Map<String, Value>,
    plugins: impl Iterator<Item = &'p Plugin> + Clone,
) -> impl Iterator<Item = (Capability, bool)> {
    let is_hopeless = plugins.clone().all(is_reference);
    let requested = NOTICED.into_iter().filter(|of| arguments.contains_key(of.name));
    let missing: Vec<_> =
        requested.filter(|of| !plugins.clone().any(|plugin| plugin.has(of.name))).collect();
    missing.into_iter().map(move |of| (of, of.is_needed && is_hopeless))
}

/// Refuses host ports of a pod that no plugin of its networks can provide; warns of the other requests.
pub(super) fn refuse<'n>(
    pod: &str,
    arguments: &Map<String, Value>,
    networks: impl Iterator<Item = &'n Network> + Clone,
) -> Result<(), Error> {
    let plugins = networks.clone().flat_map(|network| &network.plugins);
    for (of, is_refused) in missing(arguments, plugins.clone()) {
        let Some(first) = networks.clone().next().filter(|_| is_refused) else {
            warn!(pod_id = pod, "{}", remark(of));
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
        Plugin { program, object, file: "/etc/cni/net.d/10-a.conflist".into() }
    }

    #[test]
    fn what_no_plugin_takes_is_refused_unless_an_agent_may_provide_it() {
        let bridge = json!({"type": "bridge"});
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let undeclared = json!({"type": "portmap"});
        let cilium = json!({"type": "cilium-cni"});
        let flannel = json!({"type": "flannel", "delegate": {"hairpinMode": true}});
        let delegates = json!({"type": "flannel", "delegate": {"type": "cilium-cni"}});
        let ports = json!({"portMappings": [], "dns": {}});
        let both = json!({"portMappings": [], "bandwidth": {}});
        for (arguments, chain, wanted) in [
            (&ports, vec![&bridge, &portmap], vec![]),
            (&ports, vec![&bridge], vec![("portMappings", true)]),
            (&ports, vec![&bridge, &undeclared], vec![("portMappings", true)]),
            (&ports, vec![&cilium], vec![("portMappings", false)]),
            (&both, vec![&bridge, &portmap], vec![("bandwidth", false)]),
            (&both, vec![&flannel], vec![("portMappings", true), ("bandwidth", false)]),
            (&ports, vec![&delegates], vec![("portMappings", false)]),
            (&json!({}), vec![&bridge], vec![]),
        ] {
            let chain: Vec<_> = chain.into_iter().map(plugin).collect();
            let missing = missing(arguments.as_object().unwrap(), chain.iter());
            let missing: Vec<_> = missing.map(|(of, is_refused)| (of.name, is_refused)).collect();
            assert_eq!(missing, wanted, "{arguments} {chain:?}");
        }
        assert!(remark(NOTICED[0]).contains("host ports"));
    }
}
