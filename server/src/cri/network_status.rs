// SPDX-License-Identifier: Apache-2.0
//! The condition NetworkReady: whether pods can be attached, and in any case who attaches new pods, why, and which
//! pods are still on another network because the node has changed.

use crate::error::Chain;
use crate::node::Node;
use crate::pod::{PodSnapshot, State};
use hull_network::{Choice, Provider};
use std::sync::Arc;

/// Most pods that a message names.
const NAMES_MAX: usize = 10;

/// Checks the network. The message of a network that is ready, or the reason why it is not.
pub(super) fn check(node: &Node) -> Result<String, String> {
    match node.network.check() {
        Ok(choice) => Ok(message(&choice, &on_others(node, choice.provider))),
        Err(err) => {
            let hint = err.hint().map_or(String::new(), |hint| format!(" (hint: {hint})"));
            Err(format!("{}{hint}", Chain(&err)))
        }
    }
}

/// The names of pods that another network has attached.
fn on_others(node: &Node, provider: Provider) -> Vec<String> {
    let is_on_other = |view: &Arc<PodSnapshot>| {
        let of = node.network.provider_of(view.id.as_str());
        !matches!(view.record.state, State::Stopped) && of != Provider::None && of != provider
    };
    let views = node.registry.views();
    let mut names: Vec<_> =
        views.iter().filter(|view| is_on_other(view)).map(|view| view.record.full_name()).collect();
    names.sort();
    names
}

fn message(choice: &Choice, others: &[String]) -> String {
    let text = match choice.provider {
        Provider::None => "pods have only loopback: `mode` is `none`".to_owned(),
        Provider::Builtin | Provider::Cni => format!("new pods are attached by {choice}"),
    };
    if others.is_empty() {
        return text;
    }
    let named = others.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = match others.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shared = choice.warning.as_ref().map_or(String::new(), |warning| {
        format!("; until then, addresses of both networks are mixed up: {warning}")
    });
    format!(
        "{text}; drain this node, because earlier pods stay on another network until they are removed: {named}{more}{shared}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_who_attaches_pods_why_and_which_pods_to_drain() {
        let choice = Choice {
            provider: Provider::Cni,
            why: "/etc/cni/net.d/10-x.conflist has network `x`".into(),
            warning: None,
        };
        assert_eq!(
            message(&choice, &[]),
            "new pods are attached by CNI plugins, because /etc/cni/net.d/10-x.conflist has network `x`"
        );
        let names: Vec<String> = (0..12).map(|number| format!("default/p{number}")).collect();
        let text = message(&choice, &names);
        assert!(text.contains("drain") && text.ends_with("default/p9 and 2 more"), "{text}");
        let choice = Choice { warning: Some("use pod subnet X".into()), ..choice };
        assert!(message(&choice, &names).ends_with("are mixed up: use pod subnet X"));
    }
}
