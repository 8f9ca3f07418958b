// SPDX-License-Identifier: Apache-2.0
//! The whole plan: namespaces, cgroup, operations in their order, process.
//!
//! The order: root, mounts as the spec has them, devices and links, the working directory, settings
//! of the namespaces, then what takes rights away (read-only and masked paths), the pivot last but for
//! the root's own attributes.

use crate::{Error, HostFacts, limits, mounts, process, refuse};
use hull_init::Plan;
use hull_init::plan::{Cgroup, IdMap, IdMaps, Namespace, Namespaces, Op, Source};
use oci_spec::runtime::{Linux, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Spec};

/// How a plan is to be made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The root file system.
    pub root: Root,
    /// Source texts of mounts that stand for something else than a path of the host.
    pub sources: Vec<(String, Source)>,
    /// What is known of the host.
    pub host: HostFacts,
}

/// Where the root file system comes from.
#[derive(Debug, Clone)]
pub enum Root {
    /// An overlay of these layers.
    Overlay {
        /// Topmost first.
        lower: Vec<String>,
        /// Upper and work directory.
        upper: Option<(String, String)>,
        /// Further options.
        options: Vec<(String, Option<String>)>,
        /// An empty directory to attach it at.
        at: String,
    },
    /// The directory that the spec's `root.path` names, relative to this bundle.
    Bundle(String),
}

/// Devices that every container has: path, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links that every container has: path, content.
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Plans the start of `spec`.
pub fn plan(spec: &Spec, options: &Options) -> Result<Plan, Error> {
    let linux = spec.linux().as_ref().ok_or(Error::Missing { field: "linux" })?;
    let oci = spec.process().as_ref().ok_or(Error::Missing { field: "process" })?;
    if spec.hooks().is_some() {
        return Err(Error::Unsupported { what: "OCI hooks", value: "hooks".into() });
    }
    refuse::not_done(spec, linux, oci)?;
    let namespaces = namespaces(linux)?;
    let mut ops = vec![root(spec, &options.root)?];
    for mount in spec.mounts().iter().flatten() {
        ops.push(mounts::op(mount, &options.sources, bundle(&options.root))?);
    }
    if makes_devices(&options.root, &ops) {
        devices(linux, &mut ops)?;
    }
    let process = process(oci, spec, &options.host)?;
    ops.push(Op::Mkdir { path: process.cwd.clone(), mode: 0o755 });
    settings(spec, linux, &namespaces, &mut ops)?;
    for path in linux.readonly_paths().iter().flatten() {
        ops.push(Op::Readonly { path: mounts::inside(path)? });
    }
    for path in linux.masked_paths().iter().flatten() {
        ops.push(Op::Mask { path: mounts::inside(path)? });
    }
    ops.push(Op::Pivot);
    if let Some(text) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty()) {
        ops.push(Op::RootPropagation(mounts::propagation(text)?));
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        ops.push(Op::RootReadonly);
    }
    let path =
        linux.cgroups_path().as_ref().ok_or(Error::Missing { field: "linux.cgroupsPath" })?;
    let resources = linux.resources().as_ref();
    Ok(Plan {
        id_maps: IdMaps {
            uids: ranges(linux.uid_mappings().as_deref()),
            gids: ranges(linux.gid_mappings().as_deref()),
        },
        namespaces,
        cgroup: Cgroup {
            path: path.to_string_lossy().into_owned(),
            limits: resources.map(limits).transpose()?.unwrap_or_default(),
        },
        ops,
        process,
    })
}

/// The directory that relative paths of a spec begin at.
fn bundle(root: &Root) -> Option<&str> {
    match root {
        Root::Bundle(bundle) => Some(bundle),
        Root::Overlay { .. } => None,
    }
}

/// Devices and links belong into a /dev of the container's own: one that is mounted new, or a bundle's
/// directory, as long as it is not the host's that is bound there.
fn makes_devices(root: &Root, ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Mount { target, .. } if target == "/dev"))
        || bundle(root).is_some()
            && !ops.iter().any(|op| matches!(op, Op::Bind { target, .. } if target == "/dev"))
}

fn root(spec: &Spec, root: &Root) -> Result<Op, Error> {
    Ok(match root {
        Root::Overlay { lower, upper, options, at } => Op::RootOverlay {
            lower: lower.clone(),
            upper: upper.clone(),
            options: options.clone(),
            at: at.clone(),
        },
        Root::Bundle(bundle) => {
            let path = spec.root().as_ref().ok_or(Error::Missing { field: "root" })?.path();
            let source = std::path::Path::new(bundle).join(path);
            Op::RootBind { source: source.to_string_lossy().into_owned() }
        }
    })
}

fn namespaces(linux: &Linux) -> Result<Namespaces, Error> {
    let mut namespaces = Namespaces::default();
    for of in linux.namespaces().iter().flatten() {
        let one = match of.path() {
            Some(path) if path.as_os_str().is_empty() => Namespace::New,
            Some(path) => Namespace::Join(path.to_string_lossy().into_owned()),
            None => Namespace::New,
        };
        let place = match of.typ() {
            LinuxNamespaceType::Mount => &mut namespaces.mount,
            LinuxNamespaceType::Cgroup => &mut namespaces.cgroup,
            LinuxNamespaceType::Uts => &mut namespaces.uts,
            LinuxNamespaceType::Ipc => &mut namespaces.ipc,
            LinuxNamespaceType::User => &mut namespaces.user,
            LinuxNamespaceType::Pid => &mut namespaces.pid,
            LinuxNamespaceType::Network => &mut namespaces.net,
            LinuxNamespaceType::Time => &mut namespaces.time,
        };
        if *place != Namespace::Inherit {
            return Err(Error::Bad {
                field: "linux.namespaces",
                value: of.typ().to_string(),
                why: "it is there twice",
            });
        }
        *place = one;
    }
    if namespaces.mount != Namespace::New {
        return Err(Error::Bad {
            field: "linux.namespaces",
            value: "mount".into(),
            why: "a container needs a new one",
        });
    }
    for (name, offset) in linux.time_offsets().iter().flatten() {
        let clock = match name.as_str() {
            "monotonic" => 1,
            "boottime" => 7,
            other => {
                return Err(Error::Bad {
                    field: "linux.timeOffsets",
                    value: other.into(),
                    why: "no such clock",
                });
            }
        };
        let (seconds, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        namespaces.time_offsets.push((clock, seconds, nanos));
    }
    Ok(namespaces)
}

pub(crate) fn ranges(maps: Option<&[LinuxIdMapping]>) -> Vec<IdMap> {
    let maps = maps.unwrap_or_default().iter();
    maps.map(|map| IdMap { inside: map.container_id(), outside: map.host_id(), length: map.size() })
        .collect()
}

fn devices(linux: &Linux, ops: &mut Vec<Op>) -> Result<(), Error> {
    let own = linux.devices().as_deref().unwrap_or_default();
    for (path, major, minor) in DEVICES {
        if own.iter().all(|device| device.path().to_string_lossy() != path) {
            ops.push(Op::Device {
                path: path.into(),
                block: false,
                fifo: false,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    for device in own {
        let number = |of: i64| {
            u32::try_from(of).map_err(|_| Error::Bad {
                field: "linux.devices",
                value: of.to_string(),
                why: "it is no device number",
            })
        };
        let fifo = device.typ() == LinuxDeviceType::P;
        ops.push(Op::Device {
            path: mounts::inside(&device.path().to_string_lossy())?,
            block: device.typ() == LinuxDeviceType::B,
            fifo,
            major: if fifo { 0 } else { number(device.major())? },
            minor: if fifo { 0 } else { number(device.minor())? },
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    for (path, content) in LINKS {
        ops.push(Op::Symlink { content: content.into(), path: path.into() });
    }
    Ok(())
}

/// Hostname and sysctls, where the namespace is not the host's.
fn settings(
    spec: &Spec,
    linux: &Linux,
    namespaces: &Namespaces,
    ops: &mut Vec<Op>,
) -> Result<(), Error> {
    if namespaces.uts == Namespace::New {
        if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
            ops.push(Op::Hostname(name.into()));
        }
        if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
            ops.push(Op::Domainname(name.into()));
        }
    }
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (name, value) in sysctls {
        check_sysctl(name, namespaces)?;
        ops.push(Op::Sysctl { name: name.clone(), value: value.clone() });
    }
    Ok(())
}

/// Refuses a setting that is the host's.
pub fn check_sysctl(name: &str, namespaces: &Namespaces) -> Result<(), Error> {
    let dotted = name.replace('/', ".");
    let refuse =
        |because| Err(Error::HostSysctl { name: name.chars().take(200).collect(), because });
    let climbs = name.split(['/', '.']).any(str::is_empty);
    let of_ipc = dotted.starts_with("kernel.msg")
        || dotted.starts_with("kernel.shm")
        || dotted == "kernel.sem"
        || dotted.starts_with("fs.mqueue.");
    let of_net = dotted.starts_with("net.");
    match (of_ipc, of_net) {
        _ if climbs => refuse(""),
        (true, _) if namespaces.ipc != Namespace::Inherit => Ok(()),
        (_, true) if namespaces.net != Namespace::Inherit => Ok(()),
        (true, _) => refuse(" here: the pod uses the host's IPC namespace"),
        (_, true) => refuse(" here: the pod uses the host's network"),
        (false, false) => refuse(""),
    }
}
