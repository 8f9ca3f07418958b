// SPDX-License-Identifier: Apache-2.0
//! A pod manifest as configurations of CRI, as a kubelet makes them. Pure.

use super::super::parse;
use super::super::run_config::STOP_TIMEOUT;
use super::data::Data;
use super::env;
use super::fields::PodFacts;
use super::files;
use super::manifest::{Container, Pod, Quantity, Volume, VolumeMount};
use super::quantity;
use super::volumes::{self, PathType};
use crate::pod::run_pods::{self, RestartPolicy, UID_LABEL};
use hull_proto::cri as api;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;

/// A CPU's shares, as a kubelet counts them.
const SHARES_PER_CPU: u128 = 1024;
/// The smallest shares that the kernel accepts.
const SHARES_MIN: i64 = 2;

/// The circumstances in which a pod's containers are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) facts: PodFacts<'a>,
    pub(super) data: &'a Data,
    /// Directory of the pod, for its logs and volumes.
    pub(super) directory: &'a Path,
}

/// The configuration of the pod. `directory` is for its logs and empty directories.
pub(super) fn pod(pod: &Pod, uid: &str, directory: &Path) -> Result<api::PodSandboxConfig, String> {
    let spec = &pod.spec;
    let ports = spec.containers.iter().flat_map(|of| &of.ports).filter(|of| of.host_port > 0);
    let mut port_mappings = Vec::new();
    for port in ports {
        let protocol = match port.protocol.as_deref().unwrap_or("TCP") {
            "TCP" => api::Protocol::Tcp,
            "UDP" => api::Protocol::Udp,
            "SCTP" => api::Protocol::Sctp,
            other => return Err(format!("protocol `{other}` is none of TCP, UDP, SCTP")),
        };
        port_mappings.push(api::PortMapping {
            protocol: protocol as i32,
            container_port: i32::from(port.container_port),
            host_port: i32::from(port.host_port),
            host_ip: port.host_ip.clone(),
        });
    }
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().into_iter().collect();
    labels.insert(UID_LABEL.to_owned(), uid.to_owned());
    let security = api::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        privileged: spec.containers.iter().any(|of| of.security_context.privileged),
        run_as_user: spec.security_context.run_as_user.map(|value| api::Int64Value { value }),
        run_as_group: spec.security_context.run_as_group.map(|value| api::Int64Value { value }),
        ..Default::default()
    };
    let sysctls = spec.security_context.sysctls.iter();
    let hostname = spec.hostname.clone().unwrap_or_else(|| pod.metadata.name.clone());
    Ok(api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: pod.metadata.name.clone(),
            uid: uid.to_owned(),
            namespace: pod.metadata.namespace().to_owned(),
            attempt: 0,
        }),
        hostname: if spec.host_network { String::new() } else { hostname },
        log_directory: directory.to_string_lossy().into_owned(),
        dns_config: spec.dns_config.as_ref().map(|dns| api::DnsConfig {
            servers: dns.nameservers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.iter().map(option).collect(),
        }),
        port_mappings,
        labels,
        annotations: pod_annotations(pod)?,
        linux: Some(api::LinuxPodSandboxConfig {
            security_context: Some(security),
            sysctls: sysctls
                .map(|of| (of.name.clone(), of.value.clone().unwrap_or_default()))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// The annotations of the pod, with its hostAliases.
fn pod_annotations(pod: &Pod) -> Result<HashMap<String, String>, String> {
    let mut annotations: HashMap<_, _> = pod.metadata.annotations.clone().into_iter().collect();
    let mut lines = String::new();
    for alias in &pod.spec.host_aliases {
        let ip: IpAddr =
            alias.ip.parse().map_err(|_| format!("`{}` is not an IP address", alias.ip))?;
        for name in &alias.hostnames {
            if !run_pods::is_host_name(name) {
                return Err(format!("`{name}` of hostAliases is not a name of a host"));
            }
            lines.push_str(&format!("{ip} {name}\n"));
        }
    }
    if !lines.is_empty() {
        annotations.insert(run_pods::HOSTS.to_owned(), lines);
    }
    Ok(annotations)
}

/// An option of resolv.conf: NAME or NAME:VALUE.
fn option(of: &super::manifest::NameValue) -> String {
    match &of.value {
        Some(value) => format!("{}:{value}", of.name),
        None => of.name.clone(),
    }
}

fn namespaces(pod: &Pod) -> api::NamespaceOption {
    use api::NamespaceMode as Mode;
    let spec = &pod.spec;
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (true, _) => Mode::Node,
        (false, true) => Mode::Pod,
        (false, false) => Mode::Container,
    };
    let or_host = |host| if host { Mode::Node } else { Mode::Pod };
    api::NamespaceOption {
        network: or_host(spec.host_network) as i32,
        pid: pid as i32,
        ipc: or_host(spec.host_ipc) as i32,
        ..Default::default()
    }
}

/// The configuration of a container. Init containers are not restarted.
pub(super) fn container(
    of: &Container,
    is_init: bool,
    at: &Setting<'_>,
) -> Result<api::ContainerConfig, String> {
    let pod = at.facts.pod;
    let variables = env::variables(of, &at.facts, at.data)?;
    let words =
        |words: &[String]| words.iter().map(|word| env::expanded(word, &variables)).collect();
    let (own, common) = (&of.security_context, &pod.spec.security_context);
    let id = |value| api::Int64Value { value };
    let security = api::LinuxContainerSecurityContext {
        capabilities: Some(api::Capability {
            add_capabilities: own.capabilities.add.clone(),
            drop_capabilities: own.capabilities.drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: own.run_as_user.or(common.run_as_user).map(id),
        run_as_group: own.run_as_group.or(common.run_as_group).map(id),
        supplemental_groups: common.supplemental_groups.clone(),
        readonly_rootfs: own.read_only_root_filesystem,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: Some(api::SecurityProfile::default()),
        ..Default::default()
    };
    let mounts = of.volume_mounts.iter().map(|mount| self::mount(pod, mount, at.directory));
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: of.name.clone(), attempt: 0 }),
        image: Some(api::ImageSpec { image: of.image.clone(), ..Default::default() }),
        command: words(&of.command),
        args: words(&of.args),
        working_dir: of.working_dir.clone().unwrap_or_default(),
        envs: env::pairs(&variables),
        mounts: mounts.collect::<Result<_, _>>()?,
        labels: HashMap::new(),
        annotations: annotations(pod, is_init),
        log_path: format!("{}.log", of.name),
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        tty: of.tty,
        linux: Some(api::LinuxContainerConfig {
            resources: Some(resources(of)?),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

/// Requests for which CRI has no field.
fn annotations(pod: &Pod, is_init: bool) -> HashMap<String, String> {
    let policy = match pod.spec.restart_policy.as_deref() {
        _ if is_init => RestartPolicy::No,
        Some("Never") => RestartPolicy::No,
        Some("OnFailure") => RestartPolicy::OnFailure { max: None },
        // As a kubelet, if there is none.
        _ => RestartPolicy::Always,
    };
    let restart = Some(policy).filter(|of| *of != RestartPolicy::No);
    let restart = restart.map(|policy| (run_pods::RESTART.to_owned(), policy.to_string()));
    let timeout = pod.spec.termination_grace_period_seconds;
    let timeout = timeout.map(|seconds| (STOP_TIMEOUT.to_owned(), seconds.to_string()));
    restart.into_iter().chain(timeout).collect()
}

fn mount(pod: &Pod, mount: &VolumeMount, directory: &Path) -> Result<api::Mount, String> {
    let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
    let volume = volume.ok_or_else(|| format!("there is no volume `{}`", mount.name))?;
    let mut path = host_path(volume, directory)?;
    if let Some(below) = mount.sub_path.as_deref().filter(|below| !below.is_empty()) {
        if !volume.has_own_files() {
            // A container could put a link there that leads to a file of the host.
            return Err(format!(
                "subPath of volume `{}`: only configMap, secret, downwardAPI and projected volumes have one; \
                 mount the volume as a whole, or use a hostPath of the directory",
                mount.name
            ));
        }
        let below = files::relative(below)
            .ok_or_else(|| format!("subPath `{below}` is not a path in volume `{}`", mount.name))?;
        path = format!("{path}/{below}");
    }
    let mut made = api::Mount {
        container_path: mount.mount_path.clone(),
        host_path: path,
        // As a kubelet mounts them.
        readonly: mount.read_only || volume.has_own_files(),
        ..Default::default()
    };
    made.set_propagation(match mount.mount_propagation.as_deref() {
        None | Some("None") => api::MountPropagation::PropagationPrivate,
        Some("HostToContainer") => api::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => api::MountPropagation::PropagationBidirectional,
        Some(other) => return Err(format!("mountPropagation `{other}` does not exist")),
    });
    Ok(made)
}

/// The path on the host of a volume.
pub(super) fn host_path(volume: &Volume, directory: &Path) -> Result<String, String> {
    let name = &volume.name;
    if volume.kinds() != 1 {
        return Err(format!(
            "volume `{name}` is not one of hostPath, emptyDir, configMap, secret, downwardAPI and projected"
        ));
    }
    if let Some(of) = &volume.host_path {
        return match PathType::parse(of.kind.as_deref()) {
            Some(_) => Ok(of.path.clone()),
            None => {
                let kind = of.kind.as_deref().unwrap_or_default();
                Err(format!("hostPath type `{kind}` of volume `{name}` does not exist"))
            }
        };
    }
    if let Some(of) = &volume.empty_dir {
        if !of.medium.is_empty() {
            return Err(format!(
                "emptyDir.medium `{}` of volume `{name}`: only the disk is supported; omit it",
                of.medium
            ));
        }
        if of.size_limit.is_some() {
            return Err(format!(
                "emptyDir.sizeLimit of volume `{name}`: only a kubelet evicts pods for it; omit it"
            ));
        }
    }
    Ok(volumes::own_directory(directory, name).to_string_lossy().into_owned())
}

/// Limits as a kubelet sets them: shares by the request (else the limit), quota and memory by the limit.
fn resources(of: &Container) -> Result<api::LinuxContainerResources, String> {
    let mut resources = api::LinuxContainerResources::default();
    for name in of.resources.limits.keys().chain(of.resources.requests.keys()) {
        if !matches!(name.as_str(), "cpu" | "memory") {
            return Err(format!("resource `{name}` is neither cpu nor memory"));
        }
    }
    let of_resource = |name: &'static str| move |why: String| format!("resource {name}: {why}");
    let memory = |from: &BTreeMap<String, Quantity>| {
        let text = from.get("memory").map(ToString::to_string);
        text.map(|text| quantity::bytes(&text)).transpose().map_err(of_resource("memory"))
    };
    let cpu = |from: &BTreeMap<String, Quantity>| {
        let text = from.get("cpu").map(ToString::to_string);
        text.map(|text| quantity::thousandths(&text)).transpose().map_err(of_resource("cpu"))
    };
    let large = |name: &str| format!("the quantity of {name} is too large");
    // The scheduler of a cluster alone uses it.
    let _checked = memory(&of.resources.requests)?;
    if let Some(bytes) = memory(&of.resources.limits)? {
        resources.memory_limit_in_bytes = i64::try_from(bytes).map_err(|_| large("memory"))?;
    }
    // As for a kubelet, 0 stands for none.
    let limit = cpu(&of.resources.limits)?.filter(|cpu| *cpu > 0);
    if let Some(cpu) = limit {
        let quota = cpu.saturating_mul(parse::CPU_PERIOD_US) / 1000;
        resources.cpu_quota = i64::try_from(quota).map_err(|_| large("cpu"))?.max(1000);
        resources.cpu_period = i64::try_from(parse::CPU_PERIOD_US).unwrap_or_default();
    }
    if let Some(cpu) = cpu(&of.resources.requests)?.or(limit) {
        let shares = cpu.saturating_mul(SHARES_PER_CPU) / 1000;
        resources.cpu_shares = i64::try_from(shares).map_err(|_| large("cpu"))?.max(SHARES_MIN);
    }
    Ok(resources)
}
