// SPDX-License-Identifier: Apache-2.0
//! Links of pods that were cut while the pods run: by hand, or by a tool on the node.

use crate::node::Node;
use crate::pod::{PodRecord, State};
use hull_network::LinkState;
use std::fs;

/// A fault of a pod's link, and the fix.
pub(crate) type Fault = (&'static str, String);

/// The name of a pod's interface, of the built-in network and of the first network plugin (`CNI_IFNAME`).
const INTERFACE: &str = "eth0";

/// The fault of the link of a pod that has addresses. Blocks.
pub(crate) fn fault(node: &Node, pod: &PodRecord) -> Option<Fault> {
    let State::Ready { pause_pid, ips } = &pod.state else { return None };
    if ips.is_empty() {
        return None;
    }
    let devices = fs::read_to_string(format!("/proc/{pause_pid}/net/dev")).ok()?;
    // One that cannot be read is not cut for that.
    let state = node.network.link_state(&pod.id).unwrap_or(LinkState::Elsewhere);
    of(&pod.id, state, has_interface(&devices))
}

/// The fault of the link of the pod `id`, by the host's end of it and by whether the pod has its interface.
fn of(id: &str, state: LinkState, has_interface: bool) -> Option<Fault> {
    const AGAIN: &str = "delete the pod: its controller makes it again";
    if !has_interface {
        return Some(("the pod has no network interface any more", AGAIN.into()));
    }
    match state {
        LinkState::Down => {
            // As the built-in network names it.
            let digits = id.get(..11).unwrap_or(id);
            let hint = format!("`ip link set hull{digits} up`, or delete the pod");
            Some(("the host's end of the pod's link is down", hint))
        }
        LinkState::Unplugged => {
            Some(("the host's end of the pod's link is not attached to the bridge", AGAIN.into()))
        }
        // The pod's interface is of another mode than the network has now.
        LinkState::Missing | LinkState::Whole | LinkState::Elsewhere => None,
    }
}

/// Whether a namespace has the pod's interface: `proc_pid_net(5)`, dev, after two header lines. Its name has to match:
/// modules such as ipip and sit add interfaces of their own to every namespace.
fn has_interface(devices: &str) -> bool {
    let names = devices.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim()).any(|name| name == INTERFACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_link_is_known_by_either_end() {
        let headers = "Inter-|   Receive\n face |bytes\n";
        let devices = |names: &[&str]| {
            names.iter().fold(headers.to_owned(), |text, name| text + &format!("  {name}: 0 0\n"))
        };
        for (names, wanted) in [
            (&["lo", "eth0"][..], true),
            (&["lo", "tunl0", "eth0", "eth1"], true),
            (&["lo"], false),
            (&["lo", "tunl0"], false),
            (&["lo", "sit0", "ip6tnl0"], false),
        ] {
            assert_eq!(has_interface(&devices(names)), wanted, "{names:?}");
        }
        assert!(!has_interface(""));
        let id = "0123456789abcdef";
        for (state, has_interface, wanted, fix) in [
            (LinkState::Whole, true, None, ""),
            (LinkState::Elsewhere, true, None, ""),
            (LinkState::Missing, true, None, ""),
            (LinkState::Missing, false, Some("no network interface"), "delete the pod"),
            (LinkState::Elsewhere, false, Some("no network interface"), "delete the pod"),
            (LinkState::Down, true, Some("is down"), "ip link set hull0123456789a up"),
            (LinkState::Unplugged, true, Some("not attached to the bridge"), "delete the pod"),
        ] {
            let found = of(id, state, has_interface);
            assert_eq!(found.is_some(), wanted.is_some(), "{state:?}");
            let (what, hint) = found.unwrap_or_default();
            assert!(what.contains(wanted.unwrap_or_default()) && hint.contains(fix), "{hint}");
        }
    }
}
