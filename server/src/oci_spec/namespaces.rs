// SPDX-License-Identifier: Apache-2.0
//! Namespace modes of the CRI: what a pod and a container may ask for, and what a container gets.
//!
//! The rule: a mode that cannot be had is refused by its field, never replaced by another one.

use super::{Error, namespace_options};
use hull_proto::cri::{self, NamespaceMode};

/// The mode that holds for a container: its own options', else its pod's. A container that asks for the namespace of
/// a pod which has the host's gets the host's. (Entering it would need rights that a user namespace takes away.)
pub(crate) fn mode(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
    of: impl Fn(&cri::NamespaceOption) -> i32,
) -> NamespaceMode {
    let known = |options: &cri::NamespaceOption| NamespaceMode::try_from(of(options)).ok();
    let of_pod = of_pod(pod, known);
    match namespace_options(config).map(|options| known(options).unwrap_or(NamespaceMode::Pod)) {
        None => of_pod,
        Some(NamespaceMode::Pod) if of_pod == NamespaceMode::Node => NamespaceMode::Node,
        Some(own) => own,
    }
}

fn of_pod(
    pod: &cri::PodSandboxConfig,
    known: impl Fn(&cri::NamespaceOption) -> Option<NamespaceMode>,
) -> NamespaceMode {
    let context = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = context.and_then(|context| context.namespace_options.as_ref());
    options.and_then(known).unwrap_or(NamespaceMode::Pod)
}

/// The name of a pod's uts namespace, which is also in its files and in the environment of its containers: the
/// host's on the host's network, and where the config names none.
pub(crate) fn hostname(pod: &cri::PodSandboxConfig) -> String {
    let known = |options: &cri::NamespaceOption| NamespaceMode::try_from(options.network).ok();
    if of_pod(pod, known) == NamespaceMode::Node || pod.hostname.is_empty() {
        return node_name();
    }
    pod.hostname.clone()
}

/// The host's name, `uname(2)`.
pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Refuses modes that a pod cannot have.
pub(super) fn check_pod(options: &cri::NamespaceOption) -> Result<(), Error> {
    const WHY: &str = "TARGET is for the pid namespace of a container";
    for (field, mode) in [
        ("namespace_options.network", options.network),
        ("namespace_options.ipc", options.ipc),
        ("namespace_options.pid", options.pid),
    ] {
        refuse_target(field, mode, WHY)?;
    }
    Ok(())
}

/// Refuses modes that a container of this pod cannot have.
pub(super) fn check_container(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
) -> Result<(), Error> {
    const WHY: &str = "only the pid namespace is another container's";
    let Some(options) = namespace_options(config) else { return Ok(()) };
    // The pause process of such a pod is in the host's pid namespace.
    let pid_of_pod = of_pod(pod, |options| NamespaceMode::try_from(options.pid).ok());
    if options.pid == NamespaceMode::Pod as i32 && pid_of_pod == NamespaceMode::Container {
        return Err(Error::Bad {
            field: "namespace_options.pid",
            value: "POD".into(),
            why: "the pod has no pid namespace: its own mode is CONTAINER",
        });
    }
    refuse_target("namespace_options.network", options.network, WHY)?;
    refuse_target("namespace_options.ipc", options.ipc, WHY)?;
    known("namespace_options.pid", options.pid).map(drop)
}

fn known(field: &'static str, mode: i32) -> Result<NamespaceMode, Error> {
    NamespaceMode::try_from(mode).map_err(|_| Error::Bad {
        field,
        value: mode.to_string(),
        why: "there is no namespace mode of that number",
    })
}

fn refuse_target(field: &'static str, mode: i32, why: &'static str) -> Result<(), Error> {
    match known(field, mode)? {
        NamespaceMode::Target => Err(Error::Bad { field, value: "TARGET".into(), why }),
        NamespaceMode::Pod | NamespaceMode::Container | NamespaceMode::Node => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(options: cri::NamespaceOption) -> cri::ContainerConfig {
        cri::ContainerConfig {
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn pod(options: cri::NamespaceOption) -> cri::PodSandboxConfig {
        cri::PodSandboxConfig {
            linux: Some(cri::LinuxPodSandboxConfig {
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn modes_that_cannot_be_are_refused_by_their_field() {
        let target = NamespaceMode::Target as i32;
        let of =
            |network, ipc, pid| cri::NamespaceOption { network, ipc, pid, ..Default::default() };
        for (options, field) in [
            (of(target, 0, 0), "network"),
            (of(0, target, 0), "ipc"),
            (of(7, 0, 0), "network"),
            (of(0, -1, 0), "ipc"),
            (of(0, 0, 4), "pid"),
        ] {
            for said in [
                check_pod(&options).unwrap_err().to_string(),
                check_container(&container(options.clone()), &pod(Default::default()))
                    .unwrap_err()
                    .to_string(),
            ] {
                assert!(said.contains(&format!("namespace_options.{field}")), "{said}");
            }
        }
        check_container(&container(of(0, 0, target)), &pod(of(0, 0, 1))).unwrap();
        check_container(&container(of(0, 0, 0)), &pod(of(0, 0, 1))).unwrap_err();
        check_pod(&of(0, 0, target)).unwrap_err();
        check_pod(&of(2, 2, 1)).unwrap();
        check_container(&cri::ContainerConfig::default(), &pod(of(0, 0, 1))).unwrap();
    }

    #[test]
    fn the_pods_namespace_is_the_hosts_where_the_pod_has_the_hosts() {
        let of =
            |network, ipc, pid| cri::NamespaceOption { network, ipc, pid, ..Default::default() };
        let network = |of_container, of_pod| {
            mode(&container(of_container), &pod(of_pod), |options| options.network)
        };
        assert_eq!(network(of(0, 0, 0), of(2, 0, 0)), NamespaceMode::Node);
        assert_eq!(network(of(0, 0, 0), of(0, 0, 0)), NamespaceMode::Pod);
        assert_eq!(network(of(2, 0, 0), of(0, 0, 0)), NamespaceMode::Node);
        let pid = mode(&container(of(0, 0, 1)), &pod(of(0, 0, 2)), |options| options.pid);
        assert_eq!(pid, NamespaceMode::Container);
        let none = mode(&cri::ContainerConfig::default(), &pod(of(0, 2, 0)), |of| of.ipc);
        assert_eq!(none, NamespaceMode::Node);
    }

    #[test]
    fn a_pod_has_its_own_name_only_in_a_namespace_of_its_own() {
        let named = |network| cri::PodSandboxConfig {
            hostname: "web-0".into(),
            ..pod(cri::NamespaceOption { network, ..Default::default() })
        };
        assert_eq!(hostname(&named(0)), "web-0");
        assert_eq!(hostname(&named(2)), node_name());
        assert_eq!(hostname(&cri::PodSandboxConfig::default()), node_name());
        assert!(!node_name().is_empty());
    }
}
