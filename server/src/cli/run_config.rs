// SPDX-License-Identifier: Apache-2.0
//! Converts the flags of `hull run` into the configs of CRI. Pure, except for the environment that
//! `-e KEY` reads.

use super::args::{Net, Run};
use super::error::{Error, Result};
use super::{parse, run_logs};
use hull_proto::cri as api;
use std::collections::HashMap;
use std::path::Path;

/// The namespace of the pods of `hull run`.
pub(crate) const NAMESPACE: &str = "hull";
/// The label that finds a pod by its uid, even while it is being created.
pub(crate) const UID_LABEL: &str = "hull.run/uid";
/// Longest name, in bytes: it is also the host name of the pod.
const NAME_BYTES_MAX: usize = 63;

/// The configs of a pod and its container.
#[derive(Debug)]
pub(crate) struct PodConfigs {
    pub(crate) pod: api::PodSandboxConfig,
    pub(crate) container: api::ContainerConfig,
}

/// The name of the pod: --name, or one derived from its uid.
pub(crate) fn name(args: &Run, uid: &str) -> Result<String> {
    let Some(name) = &args.name else { return Ok(format!("run-{}", uid.get(..8).unwrap_or(uid))) };
    let fits = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits {
        return Ok(name.clone());
    }
    let why = format!(
        "a name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `.` and `_`, and begins with one of the first two"
    );
    Err(Error::BadFlag { flag: "--name", value: name.clone(), why })
}

/// Builds both configs.
pub(crate) fn configs(args: &Run, name: &str, uid: &str, logs: &Path) -> Result<PodConfigs> {
    Ok(PodConfigs { pod: pod(args, name, uid, logs)?, container: container(args, name)? })
}

fn namespaces(args: &Run) -> api::NamespaceOption {
    let network = match args.net {
        Net::Pod => api::NamespaceMode::Pod,
        Net::Host => api::NamespaceMode::Node,
    };
    api::NamespaceOption {
        network: network as i32,
        pid: api::NamespaceMode::Container as i32,
        ipc: api::NamespaceMode::Pod as i32,
        ..Default::default()
    }
}

fn pod(args: &Run, name: &str, uid: &str, logs: &Path) -> Result<api::PodSandboxConfig> {
    let host_network = args.net == Net::Host;
    let port_mappings: Vec<_> =
        args.publish.iter().map(|text| parse::publish(text)).collect::<Result<_>>()?;
    for (flag, value, given) in [
        ("--publish", args.publish.join(" "), !port_mappings.is_empty()),
        ("--hostname", args.hostname.clone().unwrap_or_default(), args.hostname.is_some()),
    ] {
        if host_network && given {
            let why = "a pod on the host network has the ports and the name of the host".into();
            return Err(Error::BadFlag { flag, value, why });
        }
    }
    let hostname = args.hostname.clone().unwrap_or_else(|| name.to_owned());
    let security = api::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args)),
        privileged: args.privileged,
        ..Default::default()
    };
    Ok(api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: if host_network { String::new() } else { hostname },
        log_directory: logs.to_string_lossy().into_owned(),
        port_mappings,
        labels: HashMap::from([(UID_LABEL.to_owned(), uid.to_owned())]),
        linux: Some(api::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn container(args: &Run, name: &str) -> Result<api::ContainerConfig> {
    let mut envs = Vec::new();
    for text in &args.env {
        envs.extend(parse::env(text, |key| std::env::var(key).ok())?);
    }
    let mounts = args.volume.iter().map(|text| parse::volume(text)).collect::<Result<_>>()?;
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(api::ImageSpec { image: args.image.clone(), ..Default::default() }),
        command: args.entrypoint.iter().cloned().collect(),
        args: args.command.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs,
        mounts,
        log_path: run_logs::FILE.to_owned(),
        stdin: args.interactive,
        // With -d, others attach one after the other.
        stdin_once: args.interactive && !args.detach,
        tty: args.tty,
        linux: Some(api::LinuxContainerConfig {
            resources: Some(resources(args)?),
            security_context: Some(security(args)?),
        }),
        ..Default::default()
    })
}

fn resources(args: &Run) -> Result<api::LinuxContainerResources> {
    let mut resources = api::LinuxContainerResources::default();
    if let Some(memory) = &args.memory {
        resources.memory_limit_in_bytes = parse::memory(memory)?;
    }
    if let Some(cpus) = &args.cpus {
        resources.cpu_quota = parse::cpus(cpus)?;
        // A small constant.
        resources.cpu_period = i64::try_from(parse::CPU_PERIOD_US).unwrap_or_default();
    }
    Ok(resources)
}

fn security(args: &Run) -> Result<api::LinuxContainerSecurityContext> {
    let mut security = api::LinuxContainerSecurityContext {
        capabilities: Some(api::Capability {
            add_capabilities: args.cap_add.clone(),
            drop_capabilities: args.cap_drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: args.privileged,
        namespace_options: Some(namespaces(args)),
        readonly_rootfs: args.read_only,
        seccomp: Some(api::SecurityProfile::default()), // runtime/default; privileged ones are free of it
        ..Default::default()
    };
    if let Some(user) = &args.user {
        parse::user(user, &mut security)?;
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::*;
    use clap::Parser as _;

    fn args(line: &str) -> Run {
        let words = ["hull", "run"].into_iter().chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Run(run) = cli.command else { panic!("no `run`") };
        *run
    }

    fn parsed(line: &str) -> Result<PodConfigs> {
        let args = args(line);
        let uid = "0123456789abcdef0123456789abcdef";
        configs(&args, &name(&args, uid)?, uid, Path::new("/l"))
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let configs = parsed("--rm busybox sh -c --rm -p").unwrap();
        assert_eq!(configs.container.args, ["sh", "-c", "--rm", "-p"]);
        assert!(configs.container.command.is_empty());
        assert_eq!(configs.pod.hostname, "run-01234567");
        assert_eq!(configs.pod.metadata.unwrap().namespace, NAMESPACE);
    }

    #[test]
    fn every_flag_arrives() {
        let configs = parsed(
            "--name web -p 8080:80 -v /a:/b:ro -e A=1 --user 7:8 --workdir /w --memory 64m --cpus 0.5 \
             --privileged --cap-add NET_ADMIN --cap-drop ALL --read-only --entrypoint /e --hostname h i x",
        )
        .unwrap();
        let (pod, container) = (configs.pod, configs.container);
        assert_eq!((pod.hostname.as_str(), pod.log_directory.as_str()), ("h", "/l"));
        assert_eq!(pod.port_mappings[0].host_port, 8080);
        assert_eq!(
            (container.command, container.args),
            (vec!["/e".to_owned()], vec!["x".to_owned()])
        );
        assert_eq!(container.working_dir, "/w");
        assert_eq!(container.envs[0].value, b"1");
        assert!(container.mounts[0].readonly);
        let linux = container.linux.unwrap();
        let resources = linux.resources.unwrap();
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        assert_eq!((resources.cpu_quota, resources.cpu_period), (50_000, 100_000));
        let security = linux.security_context.unwrap();
        assert!(security.privileged && security.readonly_rootfs);
        assert_eq!(security.run_as_group.unwrap().value, 8);
        let capabilities = security.capabilities.unwrap();
        assert_eq!(
            (capabilities.add_capabilities, capabilities.drop_capabilities),
            (vec!["NET_ADMIN".into()], vec!["ALL".into()])
        );
    }

    #[test]
    fn the_hosts_network_has_no_ports_or_name_of_its_own() {
        let configs = parsed("--net host i").unwrap();
        assert_eq!(configs.pod.hostname, "");
        let options =
            configs.pod.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.network(), api::NamespaceMode::Node);
        parsed("--net host -p 1:1 i").unwrap_err();
        parsed("--net host --hostname x i").unwrap_err();
    }

    #[test]
    fn a_name_is_a_hostname() {
        for bad in ["a/b", "-a", "..", "ü", &"a".repeat(64)] {
            parsed(&format!("--name={bad} i")).unwrap_err();
        }
        parsed("--name a.b-c_1 i").unwrap();
    }
}
