// SPDX-License-Identifier: Apache-2.0
//! Links of pods that were cut while the pods run: by hand, or by a tool on the node.

use crate::node::Node;
use crate::pod::{PodRecord, State};
use hull_network::LinkState;
use std::fs;

/// A fault of a pod's link, and the fix.
pub(crate) type Fault = (&'static str, &'static str);

const AGAIN: &str = "delete the pod: its controller makes it again";

/// The fault of the link of a pod that has addresses. Blocks.
pub(crate) fn fault(node: &Node, pod: &PodRecord) -> Option<Fault> {
    let State::Ready { pause_pid, ips } = &pod.state else { return None };
    if ips.is_empty() {
        return None;
    }
    let devices = fs::read_to_string(format!("/proc/{pause_pid}/net/dev")).ok()?;
    // One that cannot be read is not cut for that.
    let state = node.network.link_state(&pod.id).unwrap_or(LinkState::Elsewhere);
    of(state, has_interface(&devices))
}

/// The fault, by the host's end of the link and by whether the pod has an interface.
fn of(state: LinkState, has_interface: bool) -> Option<Fault> {
    if !has_interface {
        return Some(("the pod has no network interface any more", AGAIN));
    }
    match state {
        LinkState::Down => Some((
            "the host's end of the pod's link is down",
            "set it up: `ip link set` with `hull` and the first 11 digits of the pod's id, or delete the pod",
        )),
        LinkState::Unplugged => {
            Some(("the host's end of the pod's link is not at the bridge", AGAIN))
        }
        // The pod's interface is of another mode than the network has now.
        LinkState::Missing | LinkState::Whole | LinkState::Elsewhere => None,
    }
}

/// Whether a namespace has an interface beside loopback: `proc_pid_net(5)`, dev, after two lines of heads.
fn has_interface(devices: &str) -> bool {
    let names = devices.lines().skip(2).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim()).any(|name| name != "lo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_link_is_known_by_either_end() {
        let heads = "Inter-|   Receive\n face |bytes\n";
        let devices = |names: &[&str]| {
            names.iter().fold(heads.to_owned(), |text, name| text + &format!("  {name}: 0 0\n"))
        };
        assert!(has_interface(&devices(&["lo", "eth0"])) && !has_interface(&devices(&["lo"])));
        assert!(!has_interface(""));
        for (state, has_interface, wanted) in [
            (LinkState::Whole, true, None),
            (LinkState::Elsewhere, true, None),
            (LinkState::Missing, true, None),
            (LinkState::Missing, false, Some("no network interface")),
            (LinkState::Elsewhere, false, Some("no network interface")),
            (LinkState::Down, true, Some("is down")),
            (LinkState::Unplugged, true, Some("not at the bridge")),
        ] {
            let found = of(state, has_interface).map(|(what, _)| what);
            assert_eq!(found.is_some(), wanted.is_some(), "{state:?}");
            assert!(found.unwrap_or_default().contains(wanted.unwrap_or_default()), "{found:?}");
        }
    }
}
