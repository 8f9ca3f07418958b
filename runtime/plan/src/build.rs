// SPDX-License-Identifier: Apache-2.0
//! The whole plan: namespaces, cgroup, operations in their order, process.
//!
//! The order: root, mounts as the spec has them, devices and links, the working directory, settings
//! of the namespaces, then the restrictions (read-only and masked paths), the pivot, and last the root's own
//! attributes.

use crate::defaults::{DEVICES, LINKS};
use crate::id_maps::ranges;
use crate::seccomp::check_start;
use crate::sysctls::check_sysctl;
use crate::{Error, HostFacts, limits, mounts, process, unsupported};
use hull_init::plan::{Cgroup, IdMaps, Namespace, Namespaces, Op, Source};
use hull_init::{Phase, Plan};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Process, Spec};

/// Input of a plan beyond the spec.
#[derive(Debug, Clone)]
pub struct Options {
    /// The root file system.
    pub root: Root,
    /// Source texts of mounts that do not name a path of the host, and the sources that replace them.
    pub sources: Vec<(String, Source)>,
    /// Facts about the host.
    pub host: HostFacts,
    /// Phases of the start that the spec does not tell: startContainer hooks, which travel beside the plan, and an
    /// injected init.
    pub further_phases: Vec<Phase>,
}

/// The source of the root file system.
#[derive(Debug, Clone)]
pub enum Root {
    /// An overlay of these layers.
    Overlay {
        /// Layer directories, topmost first.
        lower: Vec<String>,
        /// Upper and work directory.
        upper: Option<(String, String)>,
        /// Further mount options.
        options: Vec<(String, Option<String>)>,
        /// An empty directory to attach it at.
        at: String,
    },
    /// The directory that the spec's `root.path` names, relative to this bundle.
    Bundle(String),
}

/// Plans the start of `spec`.
pub fn plan(spec: &Spec, options: &Options) -> Result<Plan, Error> {
    let linux = spec.linux().as_ref().ok_or(Error::Missing { field: "linux" })?;
    let oci = spec.process().as_ref().ok_or(Error::Missing { field: "process" })?;
    if spec.hooks().is_some() {
        return Err(Error::Unsupported { what: "OCI hooks", value: "hooks".into() });
    }
    unsupported::refuse(spec, linux, oci)?;
    let namespaces = namespaces(linux)?;
    unsupported::refuse_without_namespace(spec, linux, &namespaces)?;
    let id_maps = IdMaps {
        uids: ranges(linux.uid_mappings().as_deref()),
        gids: ranges(linux.gid_mappings().as_deref()),
    };
    let mut ops = vec![root(spec, &options.root)?];
    let bundle = bundle(spec, &options.root);
    let surroundings = mounts::Surroundings {
        sources: &options.sources,
        bundle: bundle.as_ref(),
        user_maps: (namespaces.user != Namespace::Inherit).then_some(&id_maps),
    };
    for mount in spec.mounts().iter().flatten() {
        ops.push(mounts::op(mount, surroundings)?);
    }
    devices(linux, &mut ops)?;
    let process = process(oci, spec, &options.host)?;
    check_start(&process, &phases(&namespaces, oci, &options.further_phases))?;
    ops.push(Op::Mkdir { path: process.cwd.clone(), mode: 0o755 });
    settings(spec, linux, &namespaces, &mut ops)?;
    for path in linux.readonly_paths().iter().flatten() {
        ops.push(Op::Readonly { path: mounts::inside(path)? });
    }
    for path in linux.masked_paths().iter().flatten() {
        let mask = Op::Mask { path: mounts::inside(path)? };
        if !ops.contains(&mask) {
            ops.push(mask);
        }
    }
    ops.push(Op::Pivot);
    if let Some(text) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty()) {
        ops.push(Op::RootPropagation(mounts::propagation(text)?));
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        ops.push(Op::RootReadonly);
    }
    if options.further_phases.contains(&Phase::Init) {
        ops.push(Op::Init);
    }
    let path =
        linux.cgroups_path().as_ref().ok_or(Error::Missing { field: "linux.cgroupsPath" })?;
    let resources = linux.resources().as_ref();
    Ok(Plan {
        id_maps,
        namespaces,
        cgroup: Cgroup {
            path: path.to_string_lossy().into_owned(),
            limits: resources.map(limits).transpose()?.unwrap_or_default(),
        },
        ops,
        process,
    })
}

/// The phases of the start of a pod's container that run under its seccomp filter.
fn phases(namespaces: &Namespaces, process: &Process, further: &[Phase]) -> Vec<Phase> {
    let mut phases = vec![Phase::ParentDeath];
    phases.extend(further);
    if matches!(namespaces.pid, Namespace::Join(_)) {
        phases.push(Phase::Birth);
    }
    if process.terminal() == Some(true) {
        phases.push(Phase::Terminal);
    }
    phases
}

/// The bundle to which paths of a spec refer.
fn bundle(spec: &Spec, root: &Root) -> Option<mounts::Bundle> {
    match root {
        Root::Bundle(bundle) => {
            let path = spec.root().as_ref()?.path();
            let rootfs = std::path::Path::new(bundle).join(path);
            let rootfs = mounts::clean(&rootfs.to_string_lossy());
            Some(mounts::Bundle { dir: bundle.clone(), rootfs })
        }
        Root::Overlay { .. } => None,
    }
}

/// Whether what is made at `path` lands in a file system of the container's own: its root, or one that is mounted
/// new. Nothing is made or changed in a tree that was bound there, which has another owner: the host with
/// its `/dev`, or another container that shares a volume. Whatever a container needs there must exist already.
fn is_own(ops: &[Op], path: &str) -> bool {
    let covers = |target: &str| {
        path.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let last = ops.iter().rev().find_map(|op| {
        if let Op::Mount { target, fstype, .. } | Op::MountWith { target, fstype, .. } = op {
            covers(target).then_some(matches!(fstype.as_str(), "tmpfs" | "ramfs"))
        } else if let Op::Bind { target, .. }
        | Op::BindWith { target, .. }
        | Op::Cgroups { target, .. } = op
        {
            covers(target).then_some(false)
        } else {
            None
        }
    });
    last.unwrap_or(true)
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
        return Err(Error::NoMountNamespace { is_joined: namespaces.mount != Namespace::Inherit });
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

/// Device nodes and links, where they are the container's own ([`is_own`]).
fn devices(linux: &Linux, ops: &mut Vec<Op>) -> Result<(), Error> {
    let asked = linux.devices().as_deref().unwrap_or_default();
    let mut made = Vec::new();
    for (path, major, minor) in DEVICES {
        if asked.iter().all(|device| mounts::clean(&device.path().to_string_lossy()) != path) {
            made.push(Op::Device {
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
    for device in asked {
        let made_of = self::device(device)?;
        // The container's own terminals are behind the link: the host's node would lead nowhere.
        let is_link = matches!(&made_of, Op::Device { path, .. }
            if LINKS.iter().any(|(link, _)| link == path));
        if !is_link {
            made.push(made_of);
        }
    }
    for (path, content) in LINKS {
        made.push(Op::Symlink { content: content.into(), path: path.into() });
    }
    made.retain(|op| {
        let (Op::Device { path, .. } | Op::Symlink { path, .. }) = op else { return true };
        is_own(ops, path)
    });
    ops.append(&mut made);
    Ok(())
}

fn device(device: &LinuxDevice) -> Result<Op, Error> {
    let number = |of: i64| {
        u32::try_from(of).map_err(|_| Error::Bad {
            field: "linux.devices",
            value: of.to_string(),
            why: "it is not a device number",
        })
    };
    let fifo = device.typ() == LinuxDeviceType::P;
    Ok(Op::Device {
        path: mounts::inside(&device.path().to_string_lossy())?,
        block: device.typ() == LinuxDeviceType::B,
        fifo,
        major: if fifo { 0 } else { number(device.major())? },
        minor: if fifo { 0 } else { number(device.minor())? },
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Hostname, loopback and sysctls, where the namespace is not the host's.
fn settings(
    spec: &Spec,
    linux: &Linux,
    namespaces: &Namespaces,
    ops: &mut Vec<Op>,
) -> Result<(), Error> {
    // A joined one is that of other containers, and gets the name as with runc.
    if namespaces.uts != Namespace::Inherit {
        if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
            ops.push(Op::Hostname(name.into()));
        }
        if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
            ops.push(Op::Domainname(name.into()));
        }
    }
    if namespaces.net == Namespace::New {
        ops.push(Op::LoopbackUp);
    }
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (name, value) in sysctls {
        check_sysctl(name, namespaces)?;
        ops.push(Op::Sysctl { name: name.clone(), value: value.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn settings_of_a_namespace_that_is_not_there_are_refused() {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        for (at, value, kind) in [
            ("/linux/uidMappings", map.clone(), "user"),
            ("/linux/gidMappings", map, "user"),
            ("/linux/timeOffsets", json!({"boottime": {"secs": 9}}), "time"),
            ("/hostname", json!("x"), "uts"),
            ("/domainname", json!("x"), "uts"),
        ] {
            let mut spec = json!({
                "ociVersion": "1.2.1", "root": {"path": "rootfs"},
                "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
                "linux": {"cgroupsPath": "/x", "namespaces": [{"type": "mount"}]},
            });
            let (above, name) = at.rsplit_once('/').unwrap();
            spec.pointer_mut(above).unwrap()[name] = value;
            let options = Options {
                root: Root::Bundle("/bundle".into()),
                sources: Vec::new(),
                host: HostFacts::default(),
                further_phases: Vec::new(),
            };
            let planned =
                |spec: &Value| plan(&serde_json::from_value(spec.clone()).unwrap(), &options);
            let refused = planned(&spec).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
            assert!(refused.hint().unwrap().contains(kind), "{refused}");
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({"type": kind}));
            planned(&spec).unwrap();
        }
    }

    fn mount(kind: &str, target: &str) -> Value {
        json!({"destination": target, "type": kind, "source": "/srv", "options": []})
    }

    /// Paths of devices and links that a container with these mounts gets.
    fn made(mounts: &[Value], devices: &Value) -> Vec<String> {
        let spec = json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "mounts": mounts,
            "linux": {"cgroupsPath": "/x", "namespaces": [{"type": "mount"}], "devices": devices},
        });
        let options = Options {
            root: Root::Bundle("/bundle".into()),
            sources: Vec::new(),
            host: HostFacts::default(),
            further_phases: Vec::new(),
        };
        let plan = plan(&serde_json::from_value(spec).unwrap(), &options).unwrap();
        let path = |op: Op| {
            let (Op::Device { path, .. } | Op::Symlink { path, .. }) = op else { return None };
            Some(path)
        };
        plan.ops.into_iter().filter_map(path).collect()
    }

    #[test]
    fn calls_for_hooks_in_the_container_are_refused_with_all_others() {
        let rule = json!({"names": ["ppoll", "rt_sigtimedwait", "waitid", "clone", "clone3", "fork"], "action": "SCMP_ACT_ERRNO"});
        let spec = json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "linux": {
                "cgroupsPath": "/x", "namespaces": [{"type": "mount"}],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]},
            },
        });
        let spec = serde_json::from_value(spec).unwrap();
        let refused = |further: &[Phase]| {
            let options = Options {
                root: Root::Bundle("/bundle".into()),
                sources: Vec::new(),
                host: HostFacts::default(),
                further_phases: further.to_vec(),
            };
            plan(&spec, &options).unwrap_err().to_string()
        };
        let (without, with) = (refused(&[]), refused(&[Phase::Hooks]));
        assert!(without.contains("`ppoll`") && !without.contains("`waitid`"), "{without}");
        assert!(with.contains("`ppoll`") && with.contains("`waitid`"), "{with}");
        let init = refused(&[Phase::Init]);
        assert!(init.contains("`rt_sigtimedwait`") && !init.contains("`waitid`"), "{init}");
        assert!(!with.contains("`rt_sigtimedwait`"), "{with}");
    }

    #[test]
    fn a_path_is_masked_once() {
        let spec = json!({
            "ociVersion": "1.2.1", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
            "linux": {
                "cgroupsPath": "/x", "namespaces": [{"type": "mount"}],
                "maskedPaths": ["/a", "/b", "/a", "//a/"],
            },
        });
        let options = Options {
            root: Root::Bundle("/bundle".into()),
            sources: Vec::new(),
            host: HostFacts::default(),
            further_phases: Vec::new(),
        };
        let plan = plan(&serde_json::from_value(spec).unwrap(), &options).unwrap();
        let masks = plan.ops.iter().filter(|op| matches!(op, Op::Mask { .. })).count();
        assert_eq!(masks, 2);
    }

    #[test]
    fn devices_that_every_container_has_may_be_asked_for() {
        let asked = json!([
            {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
            {"path": "/dev/./null", "type": "c", "major": 1, "minor": 3},
            {"path": "/dev/console", "type": "c", "major": 5, "minor": 1},
        ]);
        let made = made(&[], &asked);
        let count = |path: &str| made.iter().filter(|of| *of == path).count();
        assert_eq!([count("/dev/ptmx"), count("/dev/null"), count("/dev/console")], [1, 1, 1]);
        assert_eq!(made.iter().rposition(|of| of == "/dev/ptmx"), Some(made.len() - 1), "the link");
    }

    #[test]
    fn nothing_is_made_in_a_tree_that_somebody_else_gave() {
        let fuse = json!([
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
            {"path": "/dev/dri/card0", "type": "c", "major": 226, "minor": 0},
        ]);
        let (dev, all) = (mount("tmpfs", "/dev"), 14);
        assert_eq!(made(&[], &fuse).len(), all);
        assert_eq!(made(std::slice::from_ref(&dev), &fuse).len(), all);
        let with = |more: Value| made(&[dev.clone(), more], &fuse);
        assert_eq!(with(mount("bind", "/dev")), [""; 0]);
        assert_eq!(with(mount("bind", "/devices")).len(), all);
        // As volumes are: whatever the file system, it is not new.
        assert_eq!(with(mount("devtmpfs", "/dev")), [""; 0]);
        let without = |more: &[Value], missing: &[&str]| {
            let made = made(&[std::slice::from_ref(&dev), more].concat(), &fuse);
            assert_eq!(made.len(), all - missing.len(), "{missing:?}");
            assert!(missing.iter().all(|of| !made.iter().any(|path| path == of)), "{made:?}");
        };
        without(&[mount("bind", "/dev/null")], &["/dev/null"]);
        without(&[mount("bind", "/dev/./dri/")], &["/dev/dri/card0"]);
        without(&[mount("bind", "/dev/core")], &["/dev/core"]);
        without(&[mount("bind", "/dev/shm"), mount("bind", "/dev/pts")], &[]);
        // What is mounted new on top of it is the container's again.
        assert_eq!(made(&[mount("bind", "/dev"), dev.clone()], &fuse).len(), all);
    }
}
