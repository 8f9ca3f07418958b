// SPDX-License-Identifier: Apache-2.0
//! Builds a pod's `CNI_ARGS` and capability arguments.
//!
//! | capability | source |
//! |---|---|
//! | `portMappings` | the pod's host ports |
//! | `bandwidth` | its rates, in bits per second |
//! | `dns` | its DNS settings |
//! | `ipRanges` | the pod subnets from the kubelet |
//! | `cgroupPath` | its cgroup |
//! | `mac`, `ips`, `aliases` | its annotations `network.hull.dev/…` |
//! | `io.kubernetes.cri.pod-annotations` | all its annotations |
//!
//! Pure. A plugin gets only the capabilities that it declares.

use super::error::Error;
use crate::types::{Dns, PortMapping, Protocol, Request};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// Prefix of the annotations that become capability arguments.
const OURS: &str = "network.hull.dev/";
/// The burst of a rate limit: the largest value that the convention allows, as other runtimes set it.
const BURST_BITS: u64 = i32::MAX as u64;

/// Builds `CNI_ARGS`: the pod's identity, under the keys that Kubernetes plugins use.
pub(super) fn cni_args(request: &Request<'_>) -> Result<String, Error> {
    let pairs = [
        ("namespace", "K8S_POD_NAMESPACE", request.namespace),
        ("name", "K8S_POD_NAME", request.name),
        ("id", "K8S_POD_INFRA_CONTAINER_ID", request.pod.id),
        ("uid", "K8S_POD_UID", request.uid),
    ];
    let mut args = String::from("IgnoreUnknown=1");
    for (what, key, value) in pairs {
        if value.contains([';', '=', '\0']) {
            return Err(Error::BadArgument { what, value: value.to_owned() });
        }
        args.push_str(&format!(";{key}={value}"));
    }
    Ok(args)
}

/// Builds the capability arguments.
pub(super) fn capabilities(request: &Request<'_>, pod_cidr: &[IpNet]) -> Map<String, Value> {
    let mut all = Map::new();
    let ports: Vec<_> = request.ports.iter().filter(|port| port.host_port != 0).collect();
    if !ports.is_empty() {
        all.insert("portMappings".into(), ports.into_iter().map(port).collect());
    }
    let mut bandwidth = Map::new();
    for (direction, rate) in
        [("ingress", request.bandwidth.ingress_bits), ("egress", request.bandwidth.egress_bits)]
    {
        if let Some(rate) = rate {
            bandwidth.insert(format!("{direction}Rate"), json!(rate));
            bandwidth.insert(format!("{direction}Burst"), json!(BURST_BITS));
        }
    }
    if !bandwidth.is_empty() {
        all.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    let dns = request.dns;
    if dns != &Dns::default() {
        all.insert(
            "dns".into(),
            json!({"servers": dns.servers, "searches": dns.searches, "options": dns.options}),
        );
    }
    if !pod_cidr.is_empty() {
        all.insert("ipRanges".into(), ranges(pod_cidr));
    }
    if !request.cgroup.is_empty() {
        all.insert("cgroupPath".into(), json!(request.cgroup));
    }
    let annotation = |name: &str| request.annotations.get(&format!("{OURS}{name}"));
    if let Some(mac) = annotation("mac") {
        all.insert("mac".into(), json!(mac));
    }
    for name in ["ips", "aliases"] {
        if let Some(list) = annotation(name) {
            let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items: Vec<&str> = items.collect();
            // The convention has aliases per network; a pod has the same in all networks.
            all.insert(name.into(), json!(items));
        }
    }
    if !request.annotations.is_empty() {
        all.insert("io.kubernetes.cri.pod-annotations".into(), json!(request.annotations));
    }
    all
}

/// Formats subnets as host-local's `ranges`: one range set per subnet, so that a pod gets an address of each.
pub(super) fn ranges(pod_cidr: &[IpNet]) -> Value {
    pod_cidr.iter().map(|net| json!([{"subnet": net.to_string()}])).collect()
}

fn port(port: &PortMapping) -> Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let mut value = json!({
        "hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol,
    });
    if let Some(ip) = port.host_ip {
        value["hostIP"] = json!(ip);
    }
    value
}
