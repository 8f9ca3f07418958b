// SPDX-License-Identifier: Apache-2.0
//! Pods and containers as messages to plugins.

use super::resources;
use crate::container::{self, ContainerRecord, State as ContainerState};
use crate::diagnostics::explain;
use crate::node::Node;
use crate::pod::{PodRecord, PodSnapshot, State};
use hull_proto::id::PodId;
use hull_proto::nri;
use oci_spec::runtime::Spec;
use serde_json::Value;

/// The message of a pod, from its record.
pub(crate) fn pod(record: &PodRecord) -> nri::PodSandbox {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let linux = record.config.linux.clone().unwrap_or_default();
    let (pid, ips) = record.sandbox();
    let pid = pid.unwrap_or(0);
    let network = if pid > 0 && !record.host_network() {
        vec![nri::LinuxNamespace { r#type: "network".into(), path: format!("/proc/{pid}/ns/net") }]
    } else {
        Vec::new()
    };
    nri::PodSandbox {
        id: record.id.clone(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels: record.config.labels.clone().into_iter().collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
        runtime_handler: record.handler.clone(),
        linux: Some(nri::LinuxPodSandbox {
            pod_overhead: linux.overhead.as_ref().map(resources::of_cri),
            pod_resources: linux.resources.as_ref().map(resources::of_cri),
            cgroup_parent: linux.cgroup_parent,
            cgroups_path: record.cgroup.clone(),
            namespaces: network,
            resources: None,
        }),
        pid: u32::try_from(pid).unwrap_or(0),
        ips: ips.iter().map(ToString::to_string).collect(),
    }
}

/// The message of a container, from its record and its spec.
pub(crate) fn container(record: &ContainerRecord, spec: Option<&Spec>) -> nri::Container {
    let spec = spec.and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default();
    let process = &spec["process"];
    let mut of = nri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod.clone(),
        name: record.metadata().0.to_owned(),
        labels: record.config.labels.clone().into_iter().collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
        args: texts(&process["args"]),
        env: texts(&process["env"]),
        mounts: each(&spec["mounts"], mount),
        rlimits: each(&process["rlimits"], |of| nri::PosixRlimit {
            r#type: text(&of["type"]),
            hard: of["hard"].as_u64().unwrap_or(0),
            soft: of["soft"].as_u64().unwrap_or(0),
        }),
        hooks: spec["hooks"].is_object().then(|| hooks(&spec["hooks"])),
        linux: Some(linux(record, &spec)),
        created_at: record.created_ns,
        user: record.user.as_ref().map(|user| nri::User {
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.groups.clone(),
        }),
        image: Some(image(record)),
        ..Default::default()
    };
    // The spec has the annotations of plugins, the config those of the pod's author.
    if let Some(annotations) = spec["annotations"].as_object() {
        of.annotations.extend(annotations.iter().map(|(key, value)| (key.clone(), text(value))));
    }
    put_state(&mut of, record);
    of
}

fn hooks(of: &Value) -> nri::Hooks {
    let of_kind = |kind: &str| {
        each(&of[kind], |of| nri::Hook {
            path: text(&of["path"]),
            args: texts(&of["args"]),
            env: texts(&of["env"]),
            timeout: of["timeout"].as_i64().map(|value| nri::OptionalInt { value }),
        })
    };
    nri::Hooks {
        prestart: of_kind("prestart"),
        create_runtime: of_kind("createRuntime"),
        create_container: of_kind("createContainer"),
        start_container: of_kind("startContainer"),
        poststart: of_kind("poststart"),
        poststop: of_kind("poststop"),
    }
}

fn put_state(of: &mut nri::Container, record: &ContainerRecord) {
    of.state = match &record.state {
        ContainerState::Creating | ContainerState::Created => nri::ContainerState::ContainerCreated,
        ContainerState::Running { pid, since_ns } => {
            of.pid = u32::try_from(*pid).unwrap_or(0);
            of.started_at = *since_ns;
            nri::ContainerState::ContainerRunning
        }
        ContainerState::Exited { how, since_ns, at_ns } => {
            (of.started_at, of.finished_at) = (since_ns.unwrap_or(0), *at_ns);
            of.exit_code = how.exit_code();
            let (why, said) = explain::end(record, how);
            (of.status_reason, of.status_message) = (why.into(), said);
            nri::ContainerState::ContainerStopped
        }
        ContainerState::Removing => nri::ContainerState::ContainerStopped,
    } as i32;
}

fn image(record: &ContainerRecord) -> nri::Image {
    nri::Image {
        name: record.image_name().to_owned(),
        digest: record.image_ref.split_once('@').map_or("", |(_, digest)| digest).to_owned(),
        config_digest: record.image_id.clone(),
    }
}

fn linux(record: &ContainerRecord, spec: &Value) -> nri::LinuxContainer {
    let (process, linux) = (&spec["process"], &spec["linux"]);
    let sysctl = linux["sysctl"].as_object().cloned().unwrap_or_default();
    let context = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let profile = context.and_then(|context| context.seccomp.as_ref());
    nri::LinuxContainer {
        namespaces: each(&linux["namespaces"], |of| nri::LinuxNamespace {
            r#type: text(&of["type"]),
            path: text(&of["path"]),
        }),
        devices: each(&linux["devices"], device),
        resources: Some(resources::of_oci(&linux["resources"])),
        oom_score_adj: process["oomScoreAdj"].as_i64().map(|value| nri::OptionalInt { value }),
        cgroups_path: record.cgroup.clone(),
        io_priority: io_priority(&process["ioPriority"]),
        seccomp_profile: profile.map(|profile| nri::SecurityProfile {
            profile_type: profile.profile_type,
            localhost_ref: profile.localhost_ref.clone(),
        }),
        seccomp_policy: linux["seccomp"].is_object().then(|| seccomp(&linux["seccomp"])),
        sysctl: sysctl.iter().map(|(key, value)| (key.clone(), text(value))).collect(),
        scheduler: scheduler(&process["scheduler"]),
        ..Default::default()
    }
}

fn mount(of: &Value) -> nri::Mount {
    nri::Mount {
        destination: text(&of["destination"]),
        r#type: text(&of["type"]),
        source: text(&of["source"]),
        options: texts(&of["options"]),
    }
}

fn device(of: &Value) -> nri::LinuxDevice {
    let number = |of: &Value| of.as_u64().and_then(|value| u32::try_from(value).ok());
    nri::LinuxDevice {
        path: text(&of["path"]),
        r#type: text(&of["type"]),
        major: of["major"].as_i64().unwrap_or(0),
        minor: of["minor"].as_i64().unwrap_or(0),
        file_mode: number(&of["fileMode"]).map(|value| nri::OptionalFileMode { value }),
        uid: number(&of["uid"]).map(|value| nri::OptionalUInt32 { value }),
        gid: number(&of["gid"]).map(|value| nri::OptionalUInt32 { value }),
    }
}

fn io_priority(of: &Value) -> Option<nri::LinuxIoPriority> {
    let class = nri::IoPrioClass::from_str_name(of["class"].as_str()?)? as i32;
    let priority = i32::try_from(of["priority"].as_i64().unwrap_or(0)).ok()?;
    Some(nri::LinuxIoPriority { class, priority })
}

fn scheduler(of: &Value) -> Option<nri::LinuxScheduler> {
    let number = |of: &Value| i32::try_from(of.as_i64().unwrap_or(0)).unwrap_or(0);
    Some(nri::LinuxScheduler {
        policy: nri::LinuxSchedulerPolicy::from_str_name(of["policy"].as_str()?)? as i32,
        nice: number(&of["nice"]),
        priority: number(&of["priority"]),
        ..Default::default()
    })
}

fn seccomp(of: &Value) -> nri::LinuxSeccomp {
    let errno = |of: &Value| {
        let value = of.as_u64().and_then(|value| u32::try_from(value).ok());
        value.map(|value| nri::OptionalUInt32 { value })
    };
    let argument = |of: &Value| nri::LinuxSeccompArg {
        index: of["index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or(0),
        value: of["value"].as_u64().unwrap_or(0),
        value_two: of["valueTwo"].as_u64().unwrap_or(0),
        op: text(&of["op"]),
    };
    let rule = |of: &Value| nri::LinuxSyscall {
        names: texts(&of["names"]),
        action: text(&of["action"]),
        errno_ret: errno(&of["errnoRet"]),
        args: each(&of["args"], argument),
    };
    nri::LinuxSeccomp {
        default_action: text(&of["defaultAction"]),
        default_errno: errno(&of["defaultErrnoRet"]),
        architectures: texts(&of["architectures"]),
        flags: texts(&of["flags"]),
        syscalls: each(&of["syscalls"], rule),
        ..Default::default()
    }
}

fn text(of: &Value) -> String {
    of.as_str().unwrap_or_default().to_owned()
}

fn texts(of: &Value) -> Vec<String> {
    each(of, text)
}

fn each<T>(of: &Value, make: impl Fn(&Value) -> T) -> Vec<T> {
    of.as_array().into_iter().flatten().map(make).collect()
}

/// The message of an existing container, with its spec if that can still be built. Without the seccomp policy,
/// which is long and cannot be changed any more.
pub(crate) fn existing_container(
    node: &Node,
    pod: &PodId,
    pod_record: &PodRecord,
    record: &ContainerRecord,
) -> nri::Container {
    let image = node.images.find(&record.image_id);
    let spec = image
        .and_then(|image| container::start::spec(node, pod, pod_record, record, &image, None).ok());
    let mut of = container(record, spec.as_ref());
    if let Some(linux) = &mut of.linux {
        linux.seccomp_policy = None;
    }
    of
}

/// A snapshot of the node, for a plugin that joins. Without pods and containers that are still being created: the
/// plugin will be called for those.
pub(crate) fn state(node: &Node) -> hull_nri::State {
    let mut all = hull_nri::State::default();
    for view in node.registry.views() {
        let PodSnapshot { id, record, containers, .. } = &*view;
        if matches!(record.state, State::Building) || view.gone {
            continue;
        }
        all.pods.push(pod(record));
        let there = containers.values().filter(|of| {
            !matches!(of.record.state, ContainerState::Creating | ContainerState::Removing)
        });
        all.containers.extend(there.map(|of| existing_container(node, id, record, &of.record)));
    }
    all
}
