// SPDX-License-Identifier: Apache-2.0
//! From a bundle to everything that a container's first process is made of. Decides; touches nothing.

use crate::args::{Create, Global};
use crate::beyond_plan::{BeyondPlan, label_mounts};
use crate::cgroup_place::{self, CgroupPlace};
use crate::error::{Error, Result};
use crate::hooks::inherit_env;
use crate::record::{self, Record};
use crate::resources::{checks_memory, warn_of_kernel_memory};
use crate::systemd::Scope;
use crate::{documents, home_dir, joined_maps, log, seccomp, store, systemd};
use hull_init::plan::{IdMap, Op};
use hull_init::{HookKind, Hooks, Phase, Plan};
use hull_plan::defaults::with_device_rules;
use hull_plan::{HostFacts, Namespace, Options, Root};
use hull_sys::time::rfc3339_now;
use oci_spec::runtime::{Capabilities, Process, Spec};
use std::path::{Path, PathBuf};

/// A container that is to be made.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) plan: Plan,
    pub(crate) hooks: Hooks,
    pub(crate) record: Record,
    /// Whether the spec names its cgroup.
    pub(crate) names_cgroup: bool,
    /// Properties of the scope that annotations ask for.
    pub(crate) unit_properties: Vec<(String, systemd::Value)>,
    /// Its cgroup, if that is a scope of systemd.
    pub(crate) scope: Option<Scope>,
    pub(crate) beyond: BeyondPlan,
    /// Its process wants a terminal.
    pub(crate) terminal: bool,
}

/// Reads the bundle, and works out what is to be made.
pub(crate) fn setup(global: &Global, args: &Create) -> Result<Setup> {
    let root = &global.root;
    store::checked(&args.id)?;
    let bundle = bundle(args.bundle.as_deref())?;
    let mut spec = config(global, &bundle)?;
    joined_maps::fill_in(&mut spec)?;
    let rootfs = rootfs(&bundle, &spec)?;
    let names_cgroup = cgroup_place::is_named(&spec);
    let CgroupPlace { path, roots, scope } = cgroup_place::fill_in(global, &mut spec, &args.id)?;
    let planned = |source| Error::Plan { id: args.id.clone(), source };
    hull_plan::check_values(&spec).map_err(planned)?;
    check_propagation(&spec, args.no_pivot).map_err(planned)?;
    let hooks = spec.hooks().clone();
    let record = record(&spec, args, &bundle, &rootfs, path)?;
    let beyond = BeyondPlan::take(&mut spec)?;
    if let Some(root) = spec.root_mut() {
        // Without links: paths in it are recognized by their text.
        root.set_path(rootfs.clone());
    }
    warn_of_ambient(global, &record.process);
    warn_of_personality(global, &spec);
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    warn_of_kernel_memory(global, resources);
    let checks_memory = resources.and_then(checks_memory).unwrap_or(false);
    check_env(&record.process)?;
    let mut steps = hull_plan::hooks(&spec, record.state_for_hooks()).map_err(planned)?;
    inherit_env(&mut steps);
    spec.set_hooks(None);
    let options = Options {
        root: Root::Bundle(bundle.to_string_lossy().into_owned()),
        sources: Vec::new(),
        host: host_facts(),
        further_phases: Vec::from_iter(
            steps.has(&[HookKind::StartContainer]).then_some(Phase::Hooks),
        ),
    };
    let mut plan = hull_plan::plan(&spec, &options).map_err(planned)?;
    label_all(&mut plan.ops, beyond.mount_label.as_deref(), options.host).map_err(planned)?;
    check_joined_settings(&plan).map_err(planned)?;
    if let Some(profile) = &beyond.seccomp {
        plan.process.seccomp = Some(seccomp::filter(root, profile)?);
        let phases = phases(&plan, &record.process, &steps, beyond.listener.is_some());
        hull_plan::check_start(&plan.process, &phases).map_err(planned)?;
    }
    let rules = std::mem::take(&mut plan.cgroup.limits.devices);
    plan.cgroup.limits.devices = with_device_rules(rules);
    home_dir::complete(&mut plan.process.env, plan.process.uid, &rootfs);
    if args.no_pivot {
        move_root(&mut plan.ops);
    }
    let record = Record {
        user_namespace: plan.namespaces.user != Namespace::Inherit,
        id_maps: (ranges(&plan.id_maps.uids), ranges(&plan.id_maps.gids)),
        personality: plan.process.personality,
        own_pid_namespace: plan.namespaces.pid == Namespace::New,
        hooks,
        memory_policy: beyond.memory_policy.clone(),
        checks_memory,
        listener: beyond.listener.clone(),
        cgroup_roots: roots,
        ..record
    };
    let unit_properties = match &scope {
        Some(_) => systemd::properties::of_annotations(&record.annotations)?,
        None => Vec::new(),
    };
    let terminal = record.process.terminal() == Some(true);
    Ok(Setup { plan, hooks: steps, record, names_cgroup, unit_properties, scope, beyond, terminal })
}

/// Moves the root to its place where it would be exchanged, pivot_root(2).
fn move_root(ops: &mut [Op]) {
    for op in ops.iter_mut().filter(|op| matches!(op, Op::Pivot)) {
        *op = Op::MoveRoot;
    }
}

/// The phases of the start that run under the seccomp filter of the container's process.
fn phases(plan: &Plan, process: &Process, hooks: &Hooks, has_listener: bool) -> Vec<Phase> {
    let all = [
        (Phase::Wait, true),
        (Phase::Birth, matches!(plan.namespaces.pid, Namespace::Join(_))),
        (Phase::Terminal, process.terminal() == Some(true)),
        (Phase::Hooks, hooks.has(&[HookKind::StartContainer])),
        (Phase::Listener, has_listener),
    ];
    all.into_iter().filter(|(_, is_made)| *is_made).map(|(phase, _)| phase).collect()
}

/// Labels the mounts with `linux.mountLabel`, which a host without SELinux cannot.
fn label_all(
    ops: &mut [Op],
    label: Option<&str>,
    host: HostFacts,
) -> std::result::Result<(), hull_plan::Error> {
    match label {
        Some(label) if !host.selinux => {
            Err(hull_plan::Error::NoModule { module: "SELinux", label: label.to_owned() })
        }
        Some(label) => {
            label_mounts(ops, label);
            Ok(())
        }
        None => Ok(()),
    }
}

fn ranges(maps: &[IdMap]) -> Vec<[u32; 3]> {
    maps.iter().map(|map| [map.container_id, map.host_id, map.length]).collect()
}

/// The facts about the host that planning needs; only files of security modules are read.
pub(crate) fn host_facts() -> HostFacts {
    let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled");
    HostFacts {
        apparmor: apparmor.is_ok_and(|text| text.starts_with(b"Y")),
        selinux: rustix::fs::stat("/sys/fs/selinux/enforce").is_ok(),
        ..HostFacts::default()
    }
}

/// Refuses an environment that no program can read, as runc does: an entry without a name or without a value.
pub(crate) fn check_env(process: &Process) -> Result<()> {
    let mut env = process.env().iter().flatten();
    let Some(entry) = env.find(|entry| entry.find('=').is_none_or(|at| at == 0)) else {
        return Ok(());
    };
    let source = hull_plan::Error::Bad {
        field: "process.env",
        value: hull_sys::text::shown(entry, 100),
        why: "an entry is a name that is not empty, `=`, and a value",
    };
    Err(Error::PlanProcess { source })
}

/// Without being inheritable and permitted a capability cannot be ambient, `capabilities(7)`.
fn warn_of_ambient(global: &Global, process: &Process) {
    let Some(sets) = process.capabilities() else { return };
    let has = |set: &Option<Capabilities>, one| set.as_ref().is_some_and(|set| set.contains(one));
    for one in sets.ambient().iter().flatten() {
        if !has(sets.inheritable(), one) || !has(sets.permitted(), one) {
            let why = "it is not inheritable and permitted";
            let name = one.to_string();
            let name = name.trim_start_matches("CAP_");
            log::warn(global, &format!("can't raise ambient capability CAP_{name}: {why}"));
        }
    }
}

/// As runc, which passes over them: no kernel has such flags for a whole container.
fn warn_of_personality(global: &Global, spec: &Spec) {
    let personality = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref());
    if personality.is_some_and(|of| of.flags().iter().flatten().next().is_some()) {
        log::warn(global, "linux.personality.flags are ignored: the runtime spec defines none");
    }
}

/// Without pivot_root the host's root stays below the container's, and would be made private with it.
fn check_propagation(spec: &Spec, no_pivot: bool) -> std::result::Result<(), hull_plan::Error> {
    let linux = spec.linux().as_ref();
    let propagation = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    match propagation.filter(|of| no_pivot && matches!(*of, "private" | "rprivate")) {
        Some(value) => Err(hull_plan::Error::Bad {
            field: "linux.rootfsPropagation",
            value: value.to_owned(),
            why: "it is not safe without pivot_root (--no-pivot)",
        }),
        None => Ok(()),
    }
}

/// Refuses kernel settings of a namespace that the container joins if that is the caller's own.
fn check_joined_settings(plan: &Plan) -> std::result::Result<(), hull_plan::Error> {
    let mut namespaces = plan.namespaces.clone();
    for (of, name) in [
        (&mut namespaces.net, "net"),
        (&mut namespaces.ipc, "ipc"),
        (&mut namespaces.uts, "uts"),
        (&mut namespaces.user, "user"),
    ] {
        if let Namespace::Join(path) = &*of
            && is_own_namespace(path, name)
        {
            *of = Namespace::Inherit;
        }
    }
    for op in &plan.ops {
        if let Op::Sysctl { name, .. } = op {
            hull_plan::check_sysctl(name, &namespaces)?;
        }
    }
    Ok(())
}

fn is_own_namespace(path: &str, name: &str) -> bool {
    let identity = |path: &str| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let own = identity(&format!("/proc/self/ns/{name}"));
    own.is_some() && own == identity(path)
}

fn bundle(named: Option<&Path>) -> Result<PathBuf> {
    let named = named.unwrap_or(Path::new("."));
    std::fs::canonicalize(named).map_err(|err| Error::BadFile {
        path: named.to_owned(),
        what: "a bundle",
        why: err.to_string(),
    })
}

fn config(global: &Global, bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let bytes = store::read_bounded(&path).map_err(|err| Error::BadFile {
        path: bundle.to_owned(),
        what: "a bundle",
        why: err_text(&err),
    })?;
    let spec: Spec = documents::parse(global, &path, &bytes, "/process")?;
    if !spec.version().starts_with("1.") {
        let why = format!("`{}` is not version 1 of the OCI runtime spec", spec.version());
        return Err(Error::BadFile { path, what: "a runtime spec", why });
    }
    Ok(spec)
}

fn err_text(err: &Error) -> String {
    std::error::Error::source(err).map_or_else(|| err.to_string(), ToString::to_string)
}

fn rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let planned = hull_plan::Error::Missing { field: "root" };
    let root = spec.root().as_ref().ok_or(Error::PlanProcess { source: planned })?;
    let path = bundle.join(root.path());
    let found = std::fs::canonicalize(&path).and_then(|path| {
        if path.is_dir() { Ok(path) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
    });
    found.map_err(|err| Error::BadFile { path, what: "root.path", why: err.to_string() })
}

fn record(
    spec: &Spec,
    args: &Create,
    bundle: &Path,
    rootfs: &Path,
    cgroup: String,
) -> Result<Record> {
    let missing = hull_plan::Error::Missing { field: "process" };
    let process = spec.process().clone().ok_or(Error::PlanProcess { source: missing })?;
    Ok(Record {
        version: record::VERSION,
        id: args.id.clone(),
        oci_version: spec.version().clone(),
        bundle: bundle.to_string_lossy().into_owned(),
        rootfs: rootfs.to_string_lossy().into_owned(),
        created: rfc3339_now(),
        cgroup,
        first: None,
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        process,
        user_namespace: false,
        id_maps: (Vec::new(), Vec::new()),
        own_pid_namespace: false,
        personality: None,
        hooks: None,
        memory_policy: None,
        checks_memory: false,
        listener: None,
        systemd_unit: None,
        without_cgroup: false,
        cgroup_roots: Vec::new(),
    })
}
