// SPDX-License-Identifier: Apache-2.0
//! Namespaces, sysctls, host ports and runtime handlers.

use crate::case::{Case, Set, Setup};
use hull_proto::cri as api;
use std::net::TcpListener;
use std::sync::OnceLock;

/// A port on which this test listens, at every address.
fn held_port() -> u16 {
    static HELD: OnceLock<Option<TcpListener>> = OnceLock::new();
    let held = HELD.get_or_init(|| TcpListener::bind("0.0.0.0:0").ok());
    held.as_ref().and_then(|of| of.local_addr().ok()).map_or(0, |address| address.port())
}

pub(crate) fn publish(setup: &mut Setup, host_port: u16) {
    setup.container = None;
    setup.pod.port_mappings.push(api::PortMapping {
        protocol: api::Protocol::Tcp.into(),
        container_port: 80,
        host_port: host_port.into(),
        ..Default::default()
    });
}

fn target(setup: &mut Setup, id: &str) {
    let options = setup.security().namespace_options.get_or_insert_default();
    options.pid = api::NamespaceMode::Target.into();
    id.clone_into(&mut options.target_id);
}

pub(crate) static CASES: [Case; 7] = [
    Case {
        name: "a sysctl of the node in a pod",
        set: Set::Configs(|setup| setup.sysctl("vm.max_map_count", "262144")),
        place: &["`vm.max_map_count`"],
        cause: &["not namespaced"],
        fix: &["set it on the node itself"],
        never: &[],
    },
    Case {
        name: "a sysctl of the network on the host's network",
        set: Set::Configs(|setup| {
            setup.host_network();
            setup.sysctl("net.core.somaxconn", "1024");
        }),
        place: &["`net.core.somaxconn`"],
        cause: &["host network"],
        fix: &["set it on the node itself"],
        never: &[],
    },
    Case {
        name: "a sysctl that is misspelt",
        set: Set::Configs(|setup| setup.sysctl("net.core.somaxcon", "1024")),
        place: &["`net.core.somaxcon`"],
        cause: &["no such file or directory"],
        fix: &["check the name"],
        never: &[],
    },
    Case {
        name: "a runtime handler that the node does not have",
        set: Set::Configs(|setup| setup.handler = "gvisor"),
        place: &["runtime handler `gvisor`"],
        cause: &["it is unknown"],
        fix: &["configure the handler on this node", "choose a node that has it"],
        never: &[],
    },
    Case {
        name: "the container to be debugged is gone",
        set: Set::Configs(|setup| target(setup, &"0123456789abcdef".repeat(4))),
        place: &["target_id"],
        cause: &["this pod has no such container"],
        fix: &["a running container of the same pod"],
        never: &[],
    },
    Case {
        name: "a process of the node listens on the host port",
        set: Set::Configs(|setup| publish(setup, held_port())),
        place: &["publish host port tcp"],
        cause: &["the port is in use"],
        fix: &["use another `hostPort`"],
        never: &[],
    },
    Case {
        name: "a port of the node that another process has",
        set: Set::Configs(|setup| {
            let port = held_port().to_string();
            setup.host_network();
            setup.command(&["httpd", "-f", "-p", &port]);
        }),
        place: &["port "],
        cause: &["is in use on the node"],
        fix: &["run the pod without `hostNetwork`"],
        never: &[],
    },
];
