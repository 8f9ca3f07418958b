// SPDX-License-Identifier: Apache-2.0
//! Converts the flags of `hull run` into the configs of CRI. Pure, except for the environment that
//! `-e KEY` reads.

use super::args::Run;
use super::args::run_parts::{Ipc, Pid};
use super::error::{Error, Result};
use super::run_flags::{Mounts, Volumes};
use super::{parse, resources, run_flags, run_logs};
use crate::container::quota;
use crate::oci_spec::{run_options, signal_of_kernel};
use crate::pod::run_pods::{self, RestartPolicy, UID_LABEL};
use hull_proto::cri as api;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The namespace of the pods of `hull run`.
pub(crate) const NAMESPACE: &str = "hull";
/// The annotation of a container with the grace period of its stop, in seconds.
pub(crate) const STOP_TIMEOUT: &str = "hull.run/stop-timeout";
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

/// The circumstances of a run.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    /// Directory of the logs.
    pub(crate) logs: &'a Path,
    pub(crate) volumes: Volumes<'a>,
    /// Published ports, each with its port on the host.
    pub(crate) ports: Vec<api::PortMapping>,
    /// Variables of --env-file.
    pub(crate) env: Vec<api::KeyValue>,
}

/// Builds both configs, and the directories to create for volumes.
pub(crate) fn configs(args: &Run, at: &Setting<'_>) -> Result<(PodConfigs, Vec<PathBuf>)> {
    let mut mounts = Mounts::default();
    args.volume.iter().try_for_each(|text| mounts.volume(text, &at.volumes))?;
    args.storage.mount.iter().try_for_each(|text| mounts.mount(text, &at.volumes))?;
    mounts.tmpfs.extend(args.storage.tmpfs.iter().cloned());
    if let Some(size) = &args.storage.shm_size {
        let bytes = parse::size("--shm-size", size)?;
        mounts.tmpfs.push(format!("/dev/shm:size={bytes},mode=1777"));
    }
    one_mount_for_each_path(&mounts)?;
    let create = std::mem::take(&mut mounts.create);
    Ok((PodConfigs { pod: pod(args, at)?, container: container(args, at, mounts)? }, create))
}

/// Of two mounts at one path, the second would hide the first.
fn one_mount_for_each_path(mounts: &Mounts) -> Result<()> {
    let volumes = mounts.mounts.iter().map(|mount| mount.container_path.as_str());
    let tmpfs = mounts.tmpfs.iter().map(|text| text.split_once(':').map_or(&**text, |of| of.0));
    let mut seen = BTreeSet::new();
    for path in volumes.chain(tmpfs) {
        if !seen.insert(hull_plan::clean(path)) {
            let (value, why) = (path.to_owned(), "two mounts have this path".to_owned());
            return Err(Error::BadFlag { flag: "--volume, --mount or --tmpfs", value, why });
        }
    }
    Ok(())
}

/// The network of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NetworkOf<'a> {
    /// The one that the configuration of the node makes.
    Pod,
    Host,
    /// Only loopback in a namespace of its own.
    None,
    /// That of a CNI configuration with this name.
    Named(&'a str),
}

fn network(args: &Run) -> Result<NetworkOf<'_>> {
    let text = args.networking.network.as_str();
    let bad = |why: &str| {
        let (value, why) = (text.to_owned(), why.to_owned());
        Err(Error::BadFlag { flag: "--network", value, why })
    };
    match text {
        "host" => Ok(NetworkOf::Host),
        "none" => Ok(NetworkOf::None),
        "pod" | "bridge" | "default" => Ok(NetworkOf::Pod),
        other if other.starts_with("container:") => {
            bad("containers share a network only as containers of one pod; see `hull play kube`")
        }
        other
            if other.starts_with(|c: char| c.is_ascii_alphanumeric())
                && run_pods::is_host_name(other) =>
        {
            Ok(NetworkOf::Named(other))
        }
        _ => bad("it is none of pod, host, none, or the name of a CNI configuration"),
    }
}

fn namespaces(args: &Run) -> Result<api::NamespaceOption> {
    use api::NamespaceMode as Mode;
    let network = if network(args)? == NetworkOf::Host { Mode::Node } else { Mode::Pod };
    let pid = match args.isolation.pid {
        Some(Pid::Host) => Mode::Node,
        Some(Pid::Pod) => Mode::Pod,
        Some(Pid::Container) | None => Mode::Container,
    };
    let ipc = match args.isolation.ipc {
        Some(Ipc::Host) => Mode::Node,
        Some(Ipc::Pod) | None => Mode::Pod,
    };
    let userns = args.isolation.userns.as_deref().map(run_flags::userns).transpose()?;
    Ok(api::NamespaceOption {
        network: network as i32,
        pid: pid as i32,
        ipc: ipc as i32,
        userns_options: userns.flatten(),
        ..Default::default()
    })
}

fn pod(args: &Run, at: &Setting<'_>) -> Result<api::PodSandboxConfig> {
    let of = network(args)?;
    let host_network = of == NetworkOf::Host;
    let publishes = !args.publish.is_empty() || args.networking.publish_all;
    let why = match of {
        NetworkOf::Host if publishes => Some("a pod on the host network has the ports of the host"),
        NetworkOf::None if publishes => Some("a pod without a network has no ports"),
        NetworkOf::Pod | NetworkOf::Host | NetworkOf::None | NetworkOf::Named(_) => None,
    };
    if let Some(why) = why {
        if args.publish.is_empty() {
            let text = format!("--publish-all publishes nothing here: {why}");
            return Err(Error::Usage { text });
        }
        let (value, why) = (args.publish.join(" "), why.to_owned());
        return Err(Error::BadFlag { flag: "--publish", value, why });
    }
    if let (true, Some(value)) = (host_network, args.hostname.clone()) {
        let why = "a pod on the host network has the name of the host".into();
        return Err(Error::BadFlag { flag: "--hostname", value, why });
    }
    let hostname = args.hostname.clone().unwrap_or_else(|| at.name.to_owned());
    let mut of_container = api::LinuxContainerSecurityContext::default();
    run_flags::security(&args.isolation.security_opt, &mut of_container)?;
    let security = api::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args)?),
        privileged: args.privileged,
        selinux_options: of_container.selinux_options,
        ..Default::default()
    };
    let mut labels = run_flags::pairs("--label", &args.life.label)?;
    labels.insert(UID_LABEL.to_owned(), at.uid.to_owned());
    let network = &args.networking;
    let dns = (!network.dns.is_empty()
        || !network.dns_search.is_empty()
        || !network.dns_option.is_empty())
    .then(|| api::DnsConfig {
        servers: network.dns.iter().map(ToString::to_string).collect(),
        searches: network.dns_search.clone(),
        options: network.dns_option.clone(),
    });
    Ok(api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: at.name.to_owned(),
            uid: at.uid.to_owned(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: if host_network { String::new() } else { hostname },
        log_directory: at.logs.to_string_lossy().into_owned(),
        dns_config: dns,
        port_mappings: at.ports.clone(),
        labels,
        annotations: pod_annotations(args, of)?,
        linux: Some(api::LinuxPodSandboxConfig {
            security_context: Some(security),
            sysctls: run_flags::sysctls(&args.isolation.sysctl)?,
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// The annotations of the pod: those that were given, and requests for which CRI has no field.
fn pod_annotations(args: &Run, network: NetworkOf<'_>) -> Result<HashMap<String, String>> {
    let mut annotations = run_flags::pairs("--annotation", &args.life.annotation)?;
    let network = match network {
        NetworkOf::Pod | NetworkOf::Host => None,
        NetworkOf::None => Some("none".to_owned()),
        NetworkOf::Named(name) => Some(name.to_owned()),
    };
    let hosts = run_flags::hosts(&args.networking.add_host)?;
    let hosts: String = hosts.iter().map(|(name, ip)| format!("{ip} {name}\n")).collect();
    let hosts = Some(hosts).filter(|text| !text.is_empty());
    let userns = args.isolation.userns.clone().filter(|text| run_flags::is_auto(text));
    let asked =
        [(run_pods::NETWORK, network), (run_pods::HOSTS, hosts), (run_pods::USERNS, userns)];
    for (key, value) in asked {
        annotations.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(annotations)
}

fn container(args: &Run, at: &Setting<'_>, mounts: Mounts) -> Result<api::ContainerConfig> {
    let mut envs = at.env.clone();
    for text in &args.env {
        envs.extend(parse::env(text, |key| std::env::var(key).ok())?);
    }
    let (security, group, groups) = security(args)?;
    let (command, command_args) = command(args)?;
    let (devices, cdi) = run_flags::devices(&args.storage.device, args.storage.gpus.as_deref())?;
    let Mounts { mounts, tmpfs, .. } = mounts;
    let mut annotations = run_flags::pairs("--annotation", &args.life.annotation)?;
    let restart = args.life.restart.filter(|of| *of != RestartPolicy::No);
    let restart = restart.map(|policy| policy.to_string());
    let timeout = args.life.stop_timeout.map(|seconds| seconds.to_string());
    let layer_size = parse::layer_size(&args.storage.storage_opt)?;
    for (key, value) in [
        (run_options::ULIMITS, Some(ulimits(&args.isolation.ulimit)).filter(|of| !of.is_empty())),
        (run_options::TMPFS, Some(tmpfs.join("\n")).filter(|of| !of.is_empty())),
        (run_options::GROUP, group),
        (run_options::GROUPS, groups),
        (run_options::INIT, args.isolation.init.then(|| "true".to_owned())),
        (STOP_TIMEOUT, timeout),
        (quota::ANNOTATION, layer_size),
        (run_pods::RESTART, restart),
    ] {
        annotations.extend(value.map(|value| (key.to_owned(), value)));
    }
    let signal = args.life.stop_signal.map_or(api::Signal::RuntimeDefault, signal_of_kernel);
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: at.name.to_owned(), attempt: 0 }),
        image: Some(api::ImageSpec { image: args.image.clone(), ..Default::default() }),
        command,
        args: command_args,
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs,
        mounts,
        devices,
        cdi_devices: cdi,
        labels: run_flags::pairs("--label", &args.life.label)?,
        annotations,
        stop_signal: signal as i32,
        log_path: run_logs::FILE.to_owned(),
        stdin: args.interactive,
        // With -d, others attach one after the other.
        stdin_once: args.interactive && !args.detach,
        tty: args.tty,
        linux: Some(api::LinuxContainerConfig {
            resources: Some(resources::resources(&args.limits)?),
            security_context: Some(security),
        }),
        ..Default::default()
    })
}

/// Limits as one text; the daemon checks them.
fn ulimits(texts: &[String]) -> String {
    texts.join(" ")
}

/// The entrypoint, and its arguments. An empty entrypoint takes away that of the image, as docker has it: CRI has only
/// one that replaces it, so the command itself becomes it.
fn command(args: &Run) -> Result<(Vec<String>, Vec<String>)> {
    let words = args.command.clone();
    match args.entrypoint.as_deref() {
        None => Ok((Vec::new(), words)),
        Some("") if words.is_empty() => {
            let why = "without the entrypoint of the image, there is nothing to run: \
                       name a command after the image";
            Err(Error::BadFlag { flag: "--entrypoint", value: "''".into(), why: why.into() })
        }
        Some("") => Ok((words, Vec::new())),
        Some(program) => Ok((vec![program.to_owned()], words)),
    }
}

/// The security context; the name of the group, and those of further groups.
fn security(
    args: &Run,
) -> Result<(api::LinuxContainerSecurityContext, Option<String>, Option<String>)> {
    let mut security = api::LinuxContainerSecurityContext {
        capabilities: Some(api::Capability {
            add_capabilities: args.cap_add.clone(),
            drop_capabilities: args.cap_drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: args.privileged,
        namespace_options: Some(namespaces(args)?),
        readonly_rootfs: args.read_only,
        seccomp: Some(api::SecurityProfile::default()), // runtime/default; privileged ones are free of it
        ..Default::default()
    };
    run_flags::security(&args.isolation.security_opt, &mut security)?;
    let group = match &args.user {
        Some(user) => parse::user(user, &mut security)?,
        None => None,
    };
    let groups = parse::groups(&args.isolation.group_add, &mut security)?;
    Ok((security, group, groups))
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Command};
    use super::super::publish;
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
        let (logs, here) = (Path::new("/l"), Path::new("/"));
        let setting = Setting {
            name: &name(&args, uid)?,
            uid,
            logs,
            volumes: Volumes { named: Path::new("/v"), unnamed: Path::new("/u"), here },
            ports: publish::publish_all(&args.publish)?,
            env: Vec::new(),
        };
        configs(&args, &setting).map(|(configs, _)| configs)
    }

    #[test]
    fn two_mounts_at_one_path_are_refused() {
        let two = |tmpfs: &str| {
            let mount = api::Mount { container_path: "/x/".into(), ..Default::default() };
            let mounts =
                Mounts { mounts: vec![mount], tmpfs: vec![tmpfs.into()], ..Default::default() };
            one_mount_for_each_path(&mounts)
        };
        assert!(two("/x:size=1m").unwrap_err().to_string().contains("/x"));
        two("/x/y").unwrap();
    }

    #[test]
    fn what_cri_has_no_field_for_is_in_annotations() {
        let configs = parsed(
            "--tmpfs /t:size=1m --ulimit nofile=1:2 --ulimit core=0 -u app:www --stop-timeout 3 i",
        )
        .unwrap();
        let of = configs.container.annotations;
        assert_eq!(of[run_options::TMPFS], "/t:size=1m");
        assert_eq!(of[run_options::ULIMITS], "nofile=1:2 core=0");
        assert_eq!((of[run_options::GROUP].as_str(), of[STOP_TIMEOUT].as_str()), ("www", "3"));
        assert!(!of.contains_key(run_pods::RESTART));
        let of = parsed("--restart on-failure:3 i").unwrap().container.annotations;
        assert_eq!(of[run_pods::RESTART], "on-failure:3");
        let of = parsed("--init --pid pod i").unwrap().container;
        assert_eq!(of.annotations[run_options::INIT], "true");
        let options = of.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.pid(), api::NamespaceMode::Pod);
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
    fn an_empty_entrypoint_leaves_the_command_alone() {
        let of = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["hull", "run"][..], words].concat()).unwrap();
            let Command::Run(run) = cli.command else { panic!("no `run`") };
            super::command(&run)
        };
        let (command, args) = of(&["--entrypoint", "", "i", "sh", "-c", "x"]).unwrap();
        assert_eq!((command.join(" "), args.len()), ("sh -c x".to_owned(), 0));
        let refused = of(&["--entrypoint", "", "i"]).unwrap_err().to_string();
        assert!(refused.contains("name a command after the image"), "{refused}");
        assert_eq!(of(&["i", "sh"]).unwrap(), (Vec::new(), vec!["sh".to_owned()]));
    }

    #[test]
    fn groups_arrive_by_number_or_name() {
        let container = parsed("--group-add 7 --group-add video i").unwrap().container;
        assert_eq!(container.annotations[run_options::GROUPS], "video");
        let security = container.linux.unwrap().security_context.unwrap();
        assert_eq!(security.supplemental_groups, [7]);
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
    fn the_daemon_gets_networks_and_hosts_as_annotations_of_the_pod() {
        let of = |line: &str| parsed(line).map(|made| made.pod);
        let none = of("--network none --add-host db:10.0.0.9 --add-host six=[::1] i").unwrap();
        assert_eq!(run_pods::network(&none), Some("none"));
        let hosts = run_pods::hosts(&none).unwrap();
        assert_eq!(hosts[0], ("10.0.0.9".parse().unwrap(), "db"));
        assert_eq!(hosts[1], ("::1".parse().unwrap(), "six"));
        assert_eq!(run_pods::network(&of("--net blue i").unwrap()), Some("blue"));
        assert_eq!(run_pods::network(&of("--net bridge i").unwrap()), None);
        for line in ["--net none -p 80 i", "--net none -P i", "--net container:x i", "--net a/b i"]
        {
            of(line).unwrap_err();
        }
        // The flag that was given.
        let refused = of("--net none -P i").unwrap_err().to_string();
        assert!(refused.contains("--publish-all"), "{refused}");
    }

    #[test]
    fn a_name_is_a_hostname() {
        for bad in ["a/b", "-a", "..", "ü", &"a".repeat(64)] {
            parsed(&format!("--name={bad} i")).unwrap_err();
        }
        parsed("--name a.b-c_1 i").unwrap();
    }
}
