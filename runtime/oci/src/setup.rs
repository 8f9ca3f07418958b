// SPDX-License-Identifier: Apache-2.0
//! From a bundle to everything that a container's first process is made of. Decides; touches nothing.

use crate::args::{Create, Global};
use crate::error::{Error, Result};
use crate::record::{self, Record};
use crate::{documents, home_dir, seccomp, store};
use hull_init::plan::{IdMap, Op};
use hull_init::{Hooks, Plan};
use hull_plan::defaults::with_device_rules;
use hull_plan::{HostFacts, Namespace, Options, Root};
use hull_sys::time::rfc3339_now;
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};

/// A container that is to be made.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) plan: Plan,
    pub(crate) hooks: Hooks,
    pub(crate) record: Record,
    /// Its process wants a terminal.
    pub(crate) terminal: bool,
}

/// The cgroup of a container without a `cgroupsPath` is this and its id. It has no parent of its own,
/// which nobody could take away in the end.
const CGROUP_PREFIX: &str = "/hull-oci-";

/// Reads the bundle, and works out what is to be made.
pub(crate) fn setup(global: &Global, args: &Create) -> Result<Setup> {
    let root = &global.root;
    store::checked(&args.id)?;
    let bundle = bundle(args.bundle.as_deref())?;
    let mut spec = config(global, &bundle)?;
    let rootfs = rootfs(&bundle, &spec)?;
    let cgroup = cgroup_path(&mut spec, &args.id);
    // Compiled here, where it is kept.
    let profile = spec.linux_mut().as_mut().and_then(|linux| linux.seccomp_mut().take());
    let hooks = spec.hooks().clone();
    let record = record(&spec, args, &bundle, &rootfs, cgroup)?;
    let planned = |source| Error::Plan { id: args.id.clone(), source };
    let steps = hull_plan::hooks(&spec, record.state_for_hooks()).map_err(planned)?;
    spec.set_hooks(None);
    let options = Options {
        root: Root::Bundle(bundle.to_string_lossy().into_owned()),
        sources: Vec::new(),
        host: host_facts(),
    };
    let mut plan = hull_plan::plan(&spec, &options).map_err(planned)?;
    if let Some(profile) = profile {
        if profile.listener_path().is_some() {
            let what = "linux.seccomp.listenerPath".into();
            let hint = "take it out of config.json: seccomp notification is not done";
            return Err(Error::NotSupported { what, hint });
        }
        plan.process.seccomp = Some(seccomp::filter(root, &profile)?);
    }
    let rules = std::mem::take(&mut plan.cgroup.limits.devices);
    plan.cgroup.limits.devices = with_device_rules(rules);
    home_dir::complete(&mut plan.process.env, plan.process.uid, &rootfs);
    if args.no_pivot {
        for op in plan.ops.iter_mut().filter(|op| matches!(op, Op::Pivot)) {
            *op = Op::MoveRoot;
        }
    }
    let record = Record {
        user_namespace: plan.namespaces.user != Namespace::Inherit,
        id_maps: (ranges(&plan.id_maps.uids), ranges(&plan.id_maps.gids)),
        personality: plan.process.personality,
        own_pid_namespace: plan.namespaces.pid == Namespace::New,
        hooks,
        ..record
    };
    let terminal = record.process.terminal() == Some(true);
    Ok(Setup { plan, hooks: steps, record, terminal })
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

/// Fills in what the spec leaves to us.
fn cgroup_path(spec: &mut Spec, id: &str) -> String {
    let Some(linux) = spec.linux_mut() else { return String::new() };
    let named = linux.cgroups_path().as_ref().map(|path| path.to_string_lossy().into_owned());
    let path = match named.filter(|path| !path.is_empty()) {
        Some(path) if path.starts_with('/') => path,
        Some(path) => format!("/{path}"),
        None => format!("{CGROUP_PREFIX}{id}"),
    };
    linux.set_cgroups_path(Some(path.clone().into()));
    path
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
    })
}
