// SPDX-License-Identifier: Apache-2.0
//! Namespace modes of the CRI: what a pod and a container may ask for, and what a container gets.
//!
//! The rule: a mode that cannot be had is refused by its field, never replaced by another one.

use super::{Error, namespace_options};
use hull_proto::cri::{self, NamespaceMode};

/// The mode that holds for a container: its own options', else its pod's.
pub(crate) fn mode(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
    of: impl Fn(&cri::NamespaceOption) -> i32,
) -> NamespaceMode {
    let of_pod = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let of_pod = of_pod.and_then(|context| context.namespace_options.as_ref());
    let options = namespace_options(config).or(of_pod);
    options
        .and_then(|options| NamespaceMode::try_from(of(options)).ok())
        .unwrap_or(NamespaceMode::Pod)
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

/// Refuses modes that a container cannot have.
pub(super) fn check_container(config: &cri::ContainerConfig) -> Result<(), Error> {
    const WHY: &str = "only the pid namespace is another container's";
    let Some(options) = namespace_options(config) else { return Ok(()) };
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
                check_container(&container(options.clone())).unwrap_err().to_string(),
            ] {
                assert!(said.contains(&format!("namespace_options.{field}")), "{said}");
            }
        }
        check_container(&container(of(0, 0, target))).unwrap();
        check_pod(&of(0, 0, target)).unwrap_err();
        check_pod(&of(2, 2, 1)).unwrap();
        check_container(&cri::ContainerConfig::default()).unwrap();
    }
}
