// SPDX-License-Identifier: Apache-2.0
//! A pod's sandbox: the plan of the pause process, its OCI spec to be shown, and host ports.

use super::{Error, OCI_VERSION, namespaces, user, userns};
use ::oci_spec::runtime::Spec;
use hull_network::{PortMapping, Protocol};
use hull_plan::{Cgroup, IdMap, Limits, Namespace, Namespaces, PausePlan};
use hull_proto::cri::{self, NamespaceMode};
use serde_json::json;

/// The user of pause images: nobody.
const PAUSE_USER: u32 = 65_535;
/// Low, so that the OOM killer prefers the pod's other processes.
const OOM_SCORE: i32 = -998;
/// The first port that a process without `CAP_NET_BIND_SERVICE` may listen on.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
/// The groups whose processes may send ICMP echo requests without `CAP_NET_RAW`. `icmp(7)`
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// The inputs of a pause process's plan.
#[derive(Debug)]
pub(crate) struct PauseRequest<'a> {
    /// Id of the pod.
    pub(crate) id: &'a str,
    pub(crate) config: &'a cri::PodSandboxConfig,
    /// The user namespace that Hull assigned to the pod.
    pub(crate) assigned_userns: Option<&'a cri::UserNamespace>,
    /// The pod's cgroup.
    pub(crate) cgroup: &'a str,
    /// Size of the pod's /dev/shm, in bytes.
    pub(crate) shm_bytes: u64,
    /// Whether this node has user namespaces for pods, or the reason why not.
    pub(crate) user_namespaces: &'a Result<(), String>,
}

/// The plan of the pause process, and its spec.
pub(crate) fn pause(request: &PauseRequest<'_>) -> Result<(PausePlan, Spec), Error> {
    let config = request.config;
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.clone().unwrap_or_default();
    let options = context.namespace_options.clone().unwrap_or_default();
    let mode = |of: i32| NamespaceMode::try_from(of).unwrap_or(NamespaceMode::Pod);
    let new_unless_host = |of: i32| {
        if mode(of) == NamespaceMode::Node { Namespace::Inherit } else { Namespace::New }
    };
    namespaces::check_pod(&options)?;
    let id_maps = userns::of_pod(config, request.assigned_userns)?;
    if let (Some(_), Err(why)) = (&id_maps, request.user_namespaces) {
        return Err(Error::NoUserNamespaces { why: why.clone() });
    }
    let net = new_unless_host(options.network);
    let namespaces = Namespaces {
        mount: Namespace::New,
        // Only if the pod's containers share a pid namespace.
        pid: if mode(options.pid) == NamespaceMode::Pod {
            Namespace::New
        } else {
            Namespace::Inherit
        },
        uts: net.clone(),
        net,
        ipc: new_unless_host(options.ipc),
        user: if id_maps.is_some() { Namespace::New } else { Namespace::Inherit },
        ..Namespaces::default()
    };
    let sysctls = sysctls(&linux, &namespaces)?;
    let id_maps = id_maps.unwrap_or_default();
    let id = |field, of: &Option<cri::Int64Value>, ranges: &[IdMap]| {
        // In a small user namespace, nobody is not mapped.
        let inside = |id: &u32| ranges.is_empty() || userns::is_inside(ranges, *id);
        match of {
            Some(asked) => user::id(field, asked.value),
            None => Ok(Some(PAUSE_USER).filter(inside).unwrap_or(0)),
        }
    };
    for group in &context.supplemental_groups {
        user::id("supplemental_groups", *group)?;
    }
    let own_name = namespaces.uts == Namespace::New && !config.hostname.is_empty();
    let plan = PausePlan {
        hostname: own_name.then(|| config.hostname.clone()),
        namespaces,
        cgroup: Cgroup {
            path: format!("{}/{}", request.cgroup, request.id),
            limits: Limits::default(),
        },
        sysctls,
        shm_bytes: request.shm_bytes,
        uid: id("run_as_user", &context.run_as_user, &id_maps.uids)?,
        gid: id("run_as_group", &context.run_as_group, &id_maps.gids)?,
        id_maps,
        oom_score_adj: Some(OOM_SCORE),
    };
    let spec = spec(&plan)?;
    Ok((plan, spec))
}

/// The sysctls of a pod, sorted by name: its own, and those that let every process of a pod with its own network listen
/// on any port and send ICMP echo requests, as containerd 2 does.
fn sysctls(
    linux: &cri::LinuxPodSandboxConfig,
    namespaces: &Namespaces,
) -> Result<Vec<(String, String)>, Error> {
    let mut sysctls: Vec<_> = linux.sysctls.clone().into_iter().collect();
    for (name, _) in &sysctls {
        hull_plan::check_sysctl(name, namespaces).map_err(|source| Error::Sysctl { source })?;
    }
    // The range of groups is one of the user namespace's own, which need not have them all.
    let is_mapped = namespaces.user == Namespace::New;
    for (name, value, is_wanted) in
        [(UNPRIVILEGED_PORTS, "0", true), (PING_GROUPS, "0 2147483647", !is_mapped)]
    {
        // sysctl(8): slashes and dots are the same.
        let is_own = sysctls.iter().any(|(own, _)| own.replace('/', ".") == name);
        if namespaces.net == Namespace::New && is_wanted && !is_own {
            sysctls.push((name.to_owned(), value.to_owned()));
        }
    }
    sysctls.sort();
    Ok(sysctls)
}

fn spec(plan: &PausePlan) -> Result<Spec, Error> {
    let of = &plan.namespaces;
    let kinds = [
        ("mount", &of.mount),
        ("pid", &of.pid),
        ("network", &of.net),
        ("ipc", &of.ipc),
        ("uts", &of.uts),
        ("user", &of.user),
    ];
    let namespaces: Vec<_> = kinds
        .into_iter()
        .filter(|(_, namespace)| **namespace != Namespace::Inherit)
        .map(|(kind, _)| json!({"type": kind}))
        .collect();
    let sysctls: std::collections::BTreeMap<_, _> = plan.sysctls.iter().cloned().collect();
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "args": ["pause"], "cwd": "/", "noNewPrivileges": true,
            "user": {"uid": plan.uid, "gid": plan.gid}, "oomScoreAdj": plan.oom_score_adj,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": plan.hostname,
        "annotations": {"io.kubernetes.cri.container-type": "sandbox"},
        "linux": {"namespaces": namespaces, "cgroupsPath": plan.cgroup.path, "sysctl": sysctls},
    });
    if of.user == Namespace::New {
        spec["linux"]["uidMappings"] = userns::oci(&plan.id_maps.uids);
        spec["linux"]["gidMappings"] = userns::oci(&plan.id_maps.gids);
    }
    serde_json::from_value(spec).map_err(|source| Error::Form { source })
}

/// The host ports of a pod. A port mapping without a host port is ignored.
pub(crate) fn ports(config: &cri::PodSandboxConfig) -> Result<Vec<PortMapping>, Error> {
    let mapped = config.port_mappings.iter().filter(|of| of.host_port != 0);
    mapped.map(port).collect()
}

fn port(of: &cri::PortMapping) -> Result<PortMapping, Error> {
    let number = |field, value: i32| {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        port.ok_or_else(|| Error::Bad { field, value: value.to_string(), why: "it is not a port" })
    };
    let protocol = match cri::Protocol::try_from(of.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => {
            let value = of.protocol.to_string();
            return Err(Error::Bad {
                field: "port_mappings.protocol",
                value,
                why: "there is none of that number",
            });
        }
    };
    let host_ip = match of.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => Some(text.parse().map_err(|_| Error::Bad {
            field: "port_mappings.host_ip",
            value: text.into(),
            why: "it is not an address",
        })?),
    };
    Ok(PortMapping {
        protocol,
        container_port: number("port_mappings.container_port", of.container_port)?,
        host_port: number("port_mappings.host_port", of.host_port)?,
        host_ip,
    })
}
