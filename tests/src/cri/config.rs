// SPDX-License-Identifier: Apache-2.0
//! Configs of pods and containers as a kubelet sends them, and the parts that tests change.

use hull_proto::cri::{self as api, ContainerConfig, PodSandboxConfig};
use std::path::Path;

/// Namespaces as a kubelet asks for by default: net and ipc of the pod, pid of the container.
#[must_use]
pub fn own_namespaces() -> api::NamespaceOption {
    api::NamespaceOption {
        network: api::NamespaceMode::Pod.into(),
        pid: api::NamespaceMode::Container.into(),
        ipc: api::NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

/// The config of a container called `name`, as a kubelet sends it.
#[must_use]
pub fn container(name: &str, of_image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(image(of_image)),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(api::LinuxContainerConfig {
            resources: None,
            security_context: Some(api::LinuxContainerSecurityContext {
                namespace_options: Some(own_namespaces()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// A container that runs `script` in the image's shell.
#[must_use]
pub fn shell(name: &str, of_image: &str, script: &str) -> ContainerConfig {
    container(name, of_image, &["/bin/sh", "-c", script])
}

/// A container that does nothing until it gets SIGTERM, and then exits at once.
#[must_use]
pub fn idle(name: &str, of_image: &str) -> ContainerConfig {
    shell(name, of_image, "trap 'exit 0' TERM; while true; do sleep 1000 & wait; done")
}

/// The security context of a container config, to be changed.
pub fn security(config: &mut ContainerConfig) -> &mut api::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The resources of a container config, to be changed.
pub fn resources(config: &mut ContainerConfig) -> &mut api::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

/// The security context of a pod config, to be changed.
pub fn pod_security(config: &mut PodSandboxConfig) -> &mut api::LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The namespaces of a pod config, to be changed.
pub fn pod_namespaces(config: &mut PodSandboxConfig) -> &mut api::NamespaceOption {
    pod_security(config).namespace_options.get_or_insert_default()
}

/// A bind mount.
#[must_use]
pub fn mount(from: &Path, to: &str) -> api::Mount {
    api::Mount {
        host_path: from.display().to_string(),
        container_path: to.into(),
        ..Default::default()
    }
}

/// The image of a request.
#[must_use]
pub fn image(name: &str) -> api::ImageSpec {
    api::ImageSpec { image: name.into(), user_specified_image: name.into(), ..Default::default() }
}
