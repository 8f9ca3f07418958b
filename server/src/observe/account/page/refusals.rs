// SPDX-License-Identifier: Apache-2.0
//! Examples of errors of verbs: configs that are refused, networks that cannot be made, work that takes too long.

use hull_network::{Error as Network, PortMapping, Protocol};
use std::io;
use std::time::Duration;

/// The text of an error after "cannot", and its hint.
type Refused = (String, Option<String>);

fn absent() -> io::Error {
    io::Error::from_raw_os_error(2)
}

/// Configs of pods and containers from which nothing can be started.
fn specs() -> Vec<crate::oci_spec::Error> {
    use crate::oci_spec::Error as E;
    vec![
        E::NoCommand,
        E::NoCapability { name: "NET_ADMN".into() },
        E::CapabilityOfNode { name: "CAP_SYS_MODULE".into() },
        E::NoDevice { path: "/dev/fuse".into(), source: absent() },
        E::UnmappedId { field: "run_as_user", id: 100_000, ids: 65_536 },
        E::NoAppArmorProfile { name: "own-profile".into() },
        E::ReadProfile { path: "profiles/own.json".into(), source: absent() },
        E::RecursiveReadOnly { path: "/data".into(), why: "the mount is not read-only" },
        E::ImageVolume { path: "/models".into(), why: "it must be read-only" },
        E::NoTarget { target: "app".into(), why: "it is not running" },
    ]
}

/// Work on containers that goes wrong.
fn verbs() -> Vec<crate::error::Error> {
    use crate::error::Error as E;
    vec![
        E::NoImage { image: "registry.example/team/app:1".into() },
        E::Propagation {
            path: "/data".into(),
            wanted: "Bidirectional",
            mount: "/var/data".into(),
            is: "a private mount",
        },
        E::LogFile { path: "/var/log/pods/x/app/0.log".into(), what: "a symbolic link" },
        E::ExecTimeout { limit: Duration::from_secs(1), throttled_percent: None },
        E::ExecTimeout { limit: Duration::from_secs(1), throttled_percent: Some(80) },
        E::LaunchTimeout { doing: "start the container", waited: Duration::from_secs(120) },
        E::Storage { doing: "look for a volume", directory: "/mnt/nfs".into() },
        E::Unkillable {
            container: "web".into(),
            waited: Duration::from_secs(30),
            stack: "nfs_wait_bit_killable".into(),
        },
    ]
}

/// Networks of pods that cannot be made.
fn networks() -> Vec<Network> {
    let subnet = || "10.88.0.0/24".parse().unwrap();
    let port =
        PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None };
    vec![
        Network::PodCidrAwaited,
        Network::SubnetFull { subnet: subnet() },
        Network::SubnetOverlaps {
            subnet: subnet(),
            route: "10.88.0.0/16".parse().unwrap(),
            link: Some("eth1".into()),
        },
        Network::PortTaken { port, held: port, holder: "default/web".into() },
        Network::PortTwice { port },
        Network::NoUplink { named: Some("eth7".into()) },
        Network::LinkTaken { link: "hull00000000001".into() },
        Network::NoRates { kind: "macvlan" },
    ]
}

/// The refusals by subject.
pub(super) fn all() -> [(&'static str, &'static str, Vec<Refused>); 2] {
    let specs = specs().into_iter().map(|err| (err.to_string(), err.hint()));
    let verbs = verbs().into_iter().map(|err| (err.to_string(), err.hint()));
    let networks = networks().into_iter().map(|err| (err.to_string(), err.hint()));
    [
        (
            "## A pod or container is refused",
            "`CreateContainerError`, `RunContainerError` and errors of `kubectl exec`: the message begins with `cannot`.",
            specs.chain(verbs).collect(),
        ),
        (
            "## A pod gets no network",
            "`FailedCreatePodSandBox`. Errors of CNI plugins have the plugin, its file and what it reported; \
             [Networking](network.md) describes the modes.",
            networks.collect(),
        ),
    ]
}
