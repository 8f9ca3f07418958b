// SPDX-License-Identifier: Apache-2.0
//! A container's OCI runtime spec, put together.

use super::{
    Error, OCI_VERSION, command, devices, mounts, namespaces, resources, security, user, userns,
};
use crate::apparmor::AppArmor;
use crate::config::{Config, DefaultSeccomp};
use crate::oci_spec::cdi;
use ::oci_spec::image::ImageConfiguration;
use ::oci_spec::runtime::{LinuxSeccomp, Spec};
use hull_proto::cri::{self, NamespaceMode};
use hull_proto::id::PodId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What a container has to know of its pod.
#[derive(Debug)]
pub(crate) struct PodView<'a> {
    pub(crate) id: &'a PodId,
    pub(crate) config: &'a cri::PodSandboxConfig,
    /// 0 when the pod is not up.
    pub(crate) pause_pid: i32,
    pub(crate) hosts: &'a Path,
    pub(crate) resolv_conf: &'a Path,
    pub(crate) hostname: &'a Path,
}

/// What the node's config decides.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// RuntimeDefault for who asks for nothing.
    pub(crate) seccomp: bool,
    /// Where localhost profiles lie.
    pub(crate) seccomp_root: PathBuf,
    /// Where CDI devices are described.
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,
    /// Containers get a cgroup namespace.
    pub(crate) cgroup_namespace: bool,
    /// Which profiles of AppArmor there are.
    pub(crate) apparmor: AppArmor,
}

/// Of a node's config.
pub(crate) fn defaults(
    config: &Config,
    host: &hull_plan::HostFacts,
    apparmor: &AppArmor,
) -> Defaults {
    Defaults {
        seccomp: config.runtime.default_seccomp == DefaultSeccomp::RuntimeDefault,
        seccomp_root: config.runtime.seccomp_root.clone(),
        cdi_spec_dirs: config.runtime.cdi_spec_dirs.clone(),
        cgroup_namespace: host.cgroup_v2,
        apparmor: apparmor.clone(),
    }
}

/// Everything that goes into one spec.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) pod: &'a PodView<'a>,
    pub(crate) config: &'a cri::ContainerConfig,
    pub(crate) image: &'a ImageConfiguration,
    pub(crate) user: &'a user::Resolved,
    pub(crate) cgroup: &'a str,
    pub(crate) defaults: &'a Defaults,
    /// The process whose pid namespace is joined, with NamespaceMode::TARGET. Without it the container has one of
    /// its own in the spec, which is then for those who only read it.
    pub(crate) target_pid: Option<i32>,
}

/// The OCI spec of a container.
pub(crate) fn container(request: &Request<'_>) -> Result<Spec, Error> {
    let Request { pod, config, image, .. } = request;
    let maps = userns::of_pod(pod.config)?;
    userns::check_container(config, pod.config)?;
    namespaces::check_container(config)?;
    userns::check_user(request.user, maps.as_ref())?;
    check_shared(request, maps.is_some())?;
    let context =
        config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let sets = security::capabilities(&context)?;
    let seccomp = security::seccomp(&context, &sets, request.defaults)?;
    let devices = devices::devices(config, context.privileged, maps.is_some())?;
    let hidden = security::hidden(&context, maps.is_some());
    let host_network = mode(request, |options| options.network) == NamespaceMode::Node;
    let system = mounts::System {
        privileged: context.privileged,
        host_ipc: mode(request, |options| options.ipc) == NamespaceMode::Node,
        host_network,
        own_cgroup: request.defaults.cgroup_namespace,
        maps: maps.as_ref(),
    };
    let mounts = mounts::all(pod, config, &system)?;
    let mut resources = config
        .linux
        .as_ref()
        .and_then(|linux| linux.resources.as_ref())
        .map_or_else(|| json!({}), resources::oci);
    resources["devices"] = json!(devices.rules);
    let args = command::args(config, image)?;
    let hostname = if host_network { String::new() } else { pod.config.hostname.clone() };
    let env = command::env(config, image, &hostname, &request.user.home)?;
    let process = process(request, &context, &sets, &args, &env)?;
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": "rootfs", "readonly": context.readonly_rootfs},
        "process": process,
        "mounts": mounts,
        "annotations": annotations(request),
        "linux": {
            "namespaces": joined(request, maps.is_some()),
            "cgroupsPath": request.cgroup,
            "resources": resources,
            "devices": devices.nodes,
            "maskedPaths": hidden.masked,
            "readonlyPaths": hidden.read_only,
        },
    });
    if let Some(maps) = &maps {
        spec["linux"]["uidMappings"] = userns::oci(&maps.uids);
        spec["linux"]["gidMappings"] = userns::oci(&maps.gids);
    }
    cdi::inject(&mut spec, &cdi::asked(config), &request.defaults.cdi_spec_dirs)?;
    let mut spec: Spec = serde_json::from_value(spec).map_err(|source| Error::Form { source })?;
    if let (Some(linux), Some(profile)) = (spec.linux_mut(), seccomp) {
        linux.set_seccomp(Some(LinuxSeccomp::clone(&profile)));
    }
    Ok(spec)
}

/// Refuses what a container in a user namespace cannot share with the host though its pod does not.
fn check_shared(request: &Request<'_>, user_namespace: bool) -> Result<(), Error> {
    let shared = [
        ("pid", mode(request, |options| options.pid)),
        ("ipc", mode(request, |options| options.ipc)),
    ];
    match shared.into_iter().find(|(_, mode)| *mode == NamespaceMode::Node) {
        Some((field, _)) if user_namespace => Err(Error::UserNamespace {
            field,
            value: "NODE".into(),
            why: "the host's cannot be used from a user namespace",
        }),
        Some(_) | None => Ok(()),
    }
}

fn process(
    request: &Request<'_>,
    context: &cri::LinuxContainerSecurityContext,
    sets: &security::Sets,
    args: &[String],
    env: &[String],
) -> Result<Value, Error> {
    let user = request.user;
    // As execve(2) would have it for anybody but root: only what is ambient is effective.
    let effective = if user.uid == 0 { &sets.allowed } else { &sets.ambient };
    let oom = request.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let mut process = json!({
        "terminal": request.config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args,
        "env": env,
        "cwd": command::cwd(request.config, request.image),
        "capabilities": {
            "bounding": sets.allowed,
            "effective": effective,
            "permitted": effective,
            "inheritable": sets.ambient,
            "ambient": sets.ambient,
        },
        "noNewPrivileges": context.no_new_privs,
        "oomScoreAdj": oom.map_or(Ok(0), resources::oom_score)?,
    });
    if let Some(profile) = security::apparmor(context, request.defaults)? {
        process["apparmorProfile"] = profile.into();
    }
    if let Some(label) = security::selinux(context) {
        process["selinuxLabel"] = label.into();
    }
    Ok(process)
}

/// A namespace mode: the container's own options, else the pod's.
fn mode(request: &Request<'_>, of: impl Fn(&cri::NamespaceOption) -> i32) -> NamespaceMode {
    namespaces::mode(request.config, request.pod.config, of)
}

fn joined(request: &Request<'_>, user_namespace: bool) -> Value {
    let pause = request.pod.pause_pid;
    let of_pause = |kind: &str| format!("/proc/{pause}/ns/{kind}");
    let mut namespaces = vec![json!({"type": "mount"})];
    if user_namespace {
        namespaces.push(json!({"type": "user", "path": of_pause("user")}));
    }
    // A pod on the host's network keeps the host's name too.
    let network = mode(request, |options| options.network);
    if network != NamespaceMode::Node {
        namespaces.push(json!({"type": "network", "path": of_pause("net")}));
        namespaces.push(json!({"type": "uts", "path": of_pause("uts")}));
    }
    if mode(request, |options| options.ipc) != NamespaceMode::Node {
        namespaces.push(json!({"type": "ipc", "path": of_pause("ipc")}));
    }
    match (mode(request, |options| options.pid), request.target_pid) {
        (NamespaceMode::Node, _) => {}
        (NamespaceMode::Pod, _) => namespaces.push(json!({"type": "pid", "path": of_pause("pid")})),
        (NamespaceMode::Target, Some(pid)) => {
            namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
        }
        (NamespaceMode::Container | NamespaceMode::Target, _) => {
            namespaces.push(json!({"type": "pid"}))
        }
    }
    if request.defaults.cgroup_namespace {
        namespaces.push(json!({"type": "cgroup"}));
    }
    json!(namespaces)
}

/// For tools that read specs: who it is. What a pod's author wrote is not passed on.
fn annotations(request: &Request<'_>) -> Value {
    let metadata = request.pod.config.metadata.clone().unwrap_or_default();
    let name = request.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let image = request.config.image.as_ref().map_or("", |image| image.image.as_str());
    json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.image-name": image,
        "io.kubernetes.cri.sandbox-id": request.pod.id.as_str(),
        "io.kubernetes.cri.sandbox-name": metadata.name,
        "io.kubernetes.cri.sandbox-namespace": metadata.namespace,
        "io.kubernetes.cri.sandbox-uid": metadata.uid,
    })
}
