// SPDX-License-Identifier: Apache-2.0
//! Views into CRI messages. Pure, but for the image's names, which may have changed meanwhile.

use crate::container::{ContainerSnapshot, State as ContainerState, volumes};
use crate::diagnostics::explain;
use crate::node::Node;
use crate::pod::{PodSnapshot, State};
use hull_proto::cri as api;
use hull_sys::text::shown;

/// Longest account of a container's end, in bytes. Kubernetes itself keeps 4096 of it (`MaxContainerTerminationMessageLength`), and lists carry one per container.
const ENDING_BYTES_MAX: usize = 4 << 10;

pub(super) fn pod_state(view: &PodSnapshot) -> api::PodSandboxState {
    if view.record.state.is_ready() {
        api::PodSandboxState::SandboxReady
    } else {
        api::PodSandboxState::SandboxNotready
    }
}

pub(super) fn pod(view: &PodSnapshot) -> api::PodSandbox {
    let record = &view.record;
    api::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: pod_state(view) as i32,
        created_at: record.created_ns,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

pub(super) fn pod_status(view: &PodSnapshot) -> api::PodSandboxStatus {
    let record = &view.record;
    let ips: &[_] = match &record.state {
        State::Ready { ips, .. } => ips,
        State::Building | State::Stopping | State::Stopped => &[],
    };
    let mut ips = ips.iter().map(ToString::to_string);
    let network = api::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| api::PodIp { ip }).collect(),
    };
    let namespaces = api::Namespace { options: record.namespaces_in_effect() };
    api::PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: pod_state(view) as i32,
        created_at: record.created_ns,
        network: Some(network),
        linux: Some(api::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

pub(super) fn container_state(state: &ContainerState) -> api::ContainerState {
    match state {
        // The interface has no word for what is not there yet or hardly any more.
        ContainerState::Creating | ContainerState::Removing => {
            api::ContainerState::ContainerUnknown
        }
        ContainerState::Created => api::ContainerState::ContainerCreated,
        ContainerState::Running { .. } => api::ContainerState::ContainerRunning,
        ContainerState::Exited { .. } => api::ContainerState::ContainerExited,
    }
}

pub(super) fn container(node: &Node, view: &ContainerSnapshot) -> api::Container {
    let record = &view.record;
    api::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod.clone(),
        metadata: record.config.metadata.clone(),
        image: Some(image_spec(node, view)),
        image_ref: record.image_ref.clone(),
        state: container_state(&record.state) as i32,
        created_at: record.created_ns,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// The image as it was asked for; where that was an id, by its first tag, as people know it.
fn image_spec(node: &Node, view: &ContainerSnapshot) -> api::ImageSpec {
    let mut spec = view.record.config.image.clone().unwrap_or_default();
    if let Some(image) = node.images.find(&view.record.image_id)
        && (spec.image == image.id || image.id.ends_with(&spec.image))
        && let Some(tag) = image.repo_tags.first()
    {
        spec.image.clone_from(tag);
    }
    spec
}

pub(super) fn container_status(node: &Node, view: &ContainerSnapshot) -> api::ContainerStatus {
    let record = &view.record;
    let (mut started_at, mut finished_at, mut exit_code) = (0, 0, 0);
    let (mut reason, mut message) = (String::new(), String::new());
    match &record.state {
        ContainerState::Running { since_ns, .. } => started_at = *since_ns,
        ContainerState::Exited { how, since_ns, at_ns } => {
            started_at = since_ns.unwrap_or(0);
            finished_at = *at_ns;
            exit_code = how.exit_code();
            let (why, text) = explain::end(record, how);
            reason = why.into();
            message = shown(text, ENDING_BYTES_MAX);
        }
        ContainerState::Creating | ContainerState::Created | ContainerState::Removing => {}
    }
    let user = record.user.as_ref().map(|user| api::ContainerUser {
        linux: Some(api::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
        }),
    });
    api::ContainerStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: container_state(&record.state) as i32,
        created_at: record.created_ns,
        started_at,
        finished_at,
        exit_code,
        image: Some(image_spec(node, view)),
        image_ref: record.image_ref.clone(),
        reason,
        message,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        mounts: volumes::shown(record),
        log_path: record.log_path.clone(),
        resources: Some(api::ContainerResources { linux: record.resources(), windows: None }),
        image_id: record.image_id.clone(),
        user,
        stop_signal: crate::oci_spec::signal_of_kernel(record.stop_signal) as i32,
    }
}
