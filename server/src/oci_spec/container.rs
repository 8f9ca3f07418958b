// SPDX-License-Identifier: Apache-2.0
//! Builds the OCI runtime spec of a container.

use super::classes::Classes;
use super::inputs::{Defaults, PodInputs};
use super::{
    Error, OCI_VERSION, cdi, cgroup_access, command, devices, mounts, namespaces, resources,
    run_options, security, selinux, user, userns,
};
use crate::limits::ulimits;
use ::oci_spec::image::ImageConfiguration;
use ::oci_spec::runtime::{LinuxSeccomp, Spec};
use hull_proto::cri::{self, NamespaceMode};
use serde_json::{Value, json};

/// The inputs of a container's spec.
#[derive(Debug)]
pub(crate) struct SpecRequest<'a> {
    pub(crate) pod: &'a PodInputs<'a>,
    pub(crate) config: &'a cri::ContainerConfig,
    pub(crate) image: &'a ImageConfiguration,
    pub(crate) user: &'a user::ResolvedUser,
    pub(crate) cgroup: &'a str,
    pub(crate) defaults: &'a Defaults,
    pub(crate) classes: &'a Classes,
    /// The process whose pid namespace is joined, with NamespaceMode::TARGET. If it is `None` with that mode, the
    /// spec has a new pid namespace, and is only shown.
    pub(crate) target_pid: Option<i32>,
}

/// The annotation by which `hull run` passes the size of its terminal, such as `80x24`.
pub(crate) const CONSOLE_SIZE: &str = "hull.run/console-size";

/// Builds the OCI spec of a container.
pub(crate) fn container(request: &SpecRequest<'_>) -> Result<Spec, Error> {
    let SpecRequest { pod, config, image, .. } = request;
    let maps = userns::of_pod(pod.config, pod.assigned_userns)?;
    userns::check_container(config, pod.config, pod.assigned_userns.is_some())?;
    namespaces::check_container(config, pod.config)?;
    userns::check_user(request.user, maps.as_ref())?;
    check_shared(request, maps.is_some())?;
    let context =
        config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default();
    let sets = security::capabilities(&context, request.defaults.capabilities)?;
    let seccomp = security::seccomp(&context, &sets, request.defaults)?;
    let devices = devices::devices(config, context.privileged, maps.is_some())?;
    let hidden = security::hidden(&context, maps.is_some());
    let host_network = mode(request, |options| options.network) == NamespaceMode::Node;
    let access = request.defaults.cgroup_access;
    let is_delegated =
        access.is_writable(pod.config, config, maps.is_some())? && !context.privileged;
    let system = mounts::SystemMounts {
        privileged: context.privileged,
        host_ipc: mode(request, |options| options.ipc) == NamespaceMode::Node,
        host_network,
        delegated_cgroup: is_delegated,
        maps: maps.as_ref(),
        volume_maps: maps.as_ref().filter(|_| pod.assigned_userns.is_some()),
    };
    let mounts = mounts::all(pod, config, image, &system)?;
    let mut resources = config
        .linux
        .as_ref()
        .and_then(|linux| linux.resources.as_ref())
        .map_or_else(|| json!({}), resources::oci);
    resources["devices"] = json!(devices.rules);
    if let (Some(max), None) = (request.defaults.pids_max, resources.get("pids")) {
        resources["pids"] = json!({"limit": max});
    }
    if is_delegated {
        cgroup_access::limit_descendants(&mut resources);
    }
    let args = command::args(config, image)?;
    let hostname =
        if host_network { namespaces::node_name() } else { namespaces::hostname(pod.config) };
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
    request.classes.add_to(&mut spec);
    cdi::inject(&mut spec, &cdi::requested_devices(config), &request.defaults.cdi_spec_dirs)?;
    let mut spec: Spec = serde_json::from_value(spec).map_err(|source| Error::Form { source })?;
    if let (Some(linux), Some(profile)) = (spec.linux_mut(), seccomp) {
        linux.set_seccomp(Some(LinuxSeccomp::clone(&profile)));
    }
    Ok(spec)
}

/// Refuses a container in a user namespace that shares the host's pid or ipc namespace, though its pod does not.
fn check_shared(request: &SpecRequest<'_>, user_namespace: bool) -> Result<(), Error> {
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
    request: &SpecRequest<'_>,
    context: &cri::LinuxContainerSecurityContext,
    sets: &security::CapabilitySets,
    args: &[String],
    env: &[String],
) -> Result<Value, Error> {
    let user = request.user;
    // As execve(2) does for users other than root: only ambient capabilities are effective.
    let effective = if user.uid == 0 { &sets.allowed } else { &sets.ambient };
    let mut limits = request.defaults.ulimits.clone();
    limits.append(&mut run_options::ulimits(request.config)?);
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
        "rlimits": ulimits::rlimits(&limits),
        "oomScoreAdj": oom.map_or(Ok(0), resources::oom_score)?,
    });
    if let Some((columns, rows)) = console_size(request.config) {
        process["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if let Some(profile) = security::apparmor(context, request.defaults)? {
        process["apparmorProfile"] = profile.into();
    }
    let pod = request.pod.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let label = selinux::label(
        context.selinux_options.as_ref(),
        pod.and_then(|context| context.selinux_options.as_ref()),
        request.defaults.selinux.as_deref(),
    )?;
    if let Some(label) = label {
        process["selinuxLabel"] = label.into();
    }
    Ok(process)
}

/// The size of a container's terminal when it starts, columns and rows: CRI has no field for it. Other texts are
/// ignored.
fn console_size(config: &cri::ContainerConfig) -> Option<(u16, u16)> {
    let (columns, rows) = config.annotations.get(CONSOLE_SIZE)?.split_once('x')?;
    let size = (columns.parse().ok()?, rows.parse().ok()?);
    config.tty.then_some(size)
}

/// A namespace mode, from the options of the container, else of the pod.
fn mode(request: &SpecRequest<'_>, of: impl Fn(&cri::NamespaceOption) -> i32) -> NamespaceMode {
    namespaces::mode(request.config, request.pod.config, of)
}

fn joined(request: &SpecRequest<'_>, user_namespace: bool) -> Value {
    let pause = request.pod.pause_pid;
    let of_pause = |kind: &str| format!("/proc/{pause}/ns/{kind}");
    let mut namespaces = vec![json!({"type": "mount"})];
    if user_namespace {
        namespaces.push(json!({"type": "user", "path": of_pause("user")}));
    }
    // A pod on the host's network has the host's name too.
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
    if request.defaults.cgroup_access.has_namespaces {
        namespaces.push(json!({"type": "cgroup"}));
    }
    json!(namespaces)
}

/// Identifies the container for tools that read specs. Without the annotations of the pod's author.
fn annotations(request: &SpecRequest<'_>) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_terminal_is_two_numbers() {
        let size = |text: &str, tty| {
            let annotations = [(CONSOLE_SIZE.to_owned(), text.to_owned())].into();
            console_size(&cri::ContainerConfig { annotations, tty, ..Default::default() })
        };
        assert_eq!(size("80x24", true), Some((80, 24)));
        assert_eq!(size("80x24", false), None, "without a terminal");
        for odd in ["", "80", "80x", "x24", "80x24x1", "65536x1", "-1x24", "80 x 24"] {
            assert_eq!(size(odd, true), None, "{odd:?}");
        }
    }
}
