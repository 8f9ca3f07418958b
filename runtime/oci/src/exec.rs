// SPDX-License-Identifier: Apache-2.0
//! `exec`: a further process in a container, as the command line or a document says.

use crate::args::{Exec, Global};
use crate::beyond_plan::take_scheduling;
use crate::console::{self, Receiver};
use crate::create::{check_streams, io, reset_affinity, write_pid};
use crate::documents::{self, unknown_capability};
use crate::error::{Error, Result};
use crate::listener::{Listener, connect_agent};
use crate::record::Record;
use crate::setup::{check_env, host_facts};
use crate::state::Status;
use crate::status;
use crate::store::{self, Dir};
use crate::{foreground, home_dir, rootless};
use hull_cgroup::{Cgroup, CgroupFs};
use hull_init::plan::{IdMap, IdMaps};
use hull_init::{ExecTarget, LaunchOptions, PendingProcess, Phase, Process, StepError};
use hull_plan::accounts::{Account, UserSpec};
use hull_sys::SchedAttr;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, Process as Oci, SpecBuilder, User,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// The code is the process's own, unless it is detached.
pub(crate) fn exec(global: &Global, args: &Exec) -> Result<u8> {
    let dir = Dir::open(&global.root, &args.id)?;
    let none = || Error::NotRunning { action: "exec in", id: args.id.clone() };
    let record = dir.record()?.ok_or_else(none)?;
    let first = running(&dir, &record, args)?;
    let oci = document(global, &record, args)?;
    check(&oci)?;
    let terminal = oci.terminal() == Some(true);
    check_streams(&args.streams, terminal)?;
    let mut plain = oci.clone();
    let scheduling = take_scheduling(&mut plain, record.memory_policy.as_ref())?;
    let mut process = planned(&dir, &record, &plain)?;
    if terminal && !args.streams.detach {
        process.terminal = process.terminal.or_else(console::own_size);
    }
    let receiver = Receiver::connect("--console-socket", args.streams.console_socket.as_deref())?;
    let pidfd_receiver = Receiver::connect("--pidfd-socket", args.streams.pidfd_socket.as_deref())?;
    let listener = record.listener.as_ref().map(connect_agent).transpose()?;
    let signals = if args.streams.detach { None } else { Some(foreground::signals()?) };
    if !args.ignore_paused {
        status::check_thawed(&status::cgroup(&record)?, &args.id)?;
    }
    let (streams, socket) = io(terminal, receiver.is_some(), args.streams.preserve_fds)?;
    let host = status::host_of(&record)?;
    let maps = id_maps(&record);
    let (cgroup, hierarchies) = sub_cgroups(&host, &record, &args.cgroups)?;
    let target = ExecTarget {
        pidfd: first.as_fd(),
        id_maps: record.user_namespace.then_some(&maps),
        cgroup: &cgroup,
    };
    let keyring = format!("_ses.{}", args.id);
    set_initial_cpus(global, &oci)?;
    let late = scheduling.not_inherited().map(Late::new).transpose()?;
    check_filter(&process, terminal, listener.is_some(), late.is_some())?;
    let launch = LaunchOptions {
        outlives: true,
        kept_fds: args.streams.preserve_fds,
        keyring: Some(&keyring),
        scheduling: Some(&scheduling),
        keeps_capabilities: oci.capabilities().is_none(),
        scheduled_by_parent: late.as_ref().map(|late| late.gate.as_fd()),
        seccomp_listener: listener.as_ref().map(Listener::end),
        hierarchies: &hierarchies,
        write_maps: rootless::map_writer(),
        groups_are_denied: rootless::groups_are_denied(),
        ..LaunchOptions::default()
    };
    let described = |error| described(&args.id, &process, &error);
    let kills = KillsBefore::of(&host, &cgroup);
    let mut started =
        hull_init::launch_exec(&host, &target, &process, &streams, &launch).map_err(described)?;
    drop(streams);
    if let Err(error) = attend(&record, &mut started, listener, late) {
        started.kill();
        return Err(error);
    }
    started.wait().map_err(|error| described(kills.or_memory(error)))?;
    pidfd_receiver.iter().try_for_each(|receiver| receiver.give_pidfd(&started.pidfd))?;
    if let Some(path) = &args.streams.pid_file {
        write_pid(path, started.pid)?;
    }
    let master = console::receive(socket.as_ref(), receiver.as_ref())?;
    let resize = oci.console_size().is_none();
    match signals {
        Some(signals) => foreground::supervise(&started.pidfd, &signals, master.as_ref(), resize),
        None => Ok(0),
    }
}

/// The number of out-of-memory kills in a container's cgroup before a process of it.
struct KillsBefore {
    cgroup: Option<Cgroup>,
    number: u64,
}

impl KillsBefore {
    fn of(host: &CgroupFs, cgroup: &str) -> Self {
        let cgroup = Cgroup::at(host, cgroup).ok();
        let counters = cgroup.as_ref().and_then(|of| of.exit_counters().ok());
        Self { cgroup, number: counters.map_or(0, |of| of.oom_kills) }
    }

    /// The error of the process, or the lack of memory if that ended it.
    fn or_memory(&self, error: StepError) -> StepError {
        match &self.cgroup {
            Some(cgroup) => error.or_memory(cgroup, self.number),
            None => error,
        }
    }
}

fn check(oci: &Oci) -> Result<()> {
    check_env(oci)?;
    hull_plan::check_process(oci).map_err(|source| Error::PlanProcess { source })
}

/// Why a step of an exec failed, in words.
fn described(id: &str, process: &Process, error: &StepError) -> Error {
    let failure = Box::new(hull_plan::diagnose_process(process, error));
    Error::Exec { id: id.to_owned(), failure }
}

/// Refuses a start of which a call of Hull's own would fail under the container's filter.
fn check_filter(
    process: &Process,
    has_terminal: bool,
    has_listener: bool,
    is_late: bool,
) -> Result<()> {
    let all = [
        (Phase::Birth, true),
        (Phase::Terminal, has_terminal),
        (Phase::Listener, has_listener),
        (Phase::Schedule, is_late),
    ];
    let phases = all.into_iter().filter(|(_, is_made)| *is_made).map(|(phase, _)| phase);
    hull_plan::check_start(process, &phases.collect::<Vec<_>>())
        .map_err(|source| Error::PlanProcess { source })
}

fn running(dir: &Dir, record: &Record, args: &Exec) -> Result<OwnedFd> {
    let unfit = |status| Error::WrongState { action: "exec in", id: args.id.clone(), status };
    let paused = || Error::Paused { id: args.id.clone() };
    match status::of(dir, record)? {
        (Status::Created | Status::Running, Some(first)) => Ok(first),
        (Status::Paused, Some(first)) if args.ignore_paused => Ok(first),
        (Status::Paused, _) => Err(paused()),
        (Status::Stopped, _) => Err(Error::NotRunning { action: "exec in", id: args.id.clone() }),
        (status, _) => Err(unfit(status)),
    }
}

/// Does for a process what it waits for before its exec.
fn attend(
    record: &Record,
    started: &mut PendingProcess,
    listener: Option<Listener>,
    late: Option<Late>,
) -> Result<()> {
    if let Some(listener) = listener {
        listener.pass_on(record, "running", started)?;
    }
    late.map_or(Ok(()), |late| late.schedule(started))
}

/// A scheduler that the process gets from here: see [`LaunchOptions::scheduled_by_parent`].
struct Late {
    attr: SchedAttr,
    gate: OwnedFd,
    opener: OwnedFd,
}

impl Late {
    fn new(attr: SchedAttr) -> Result<Self> {
        let (gate, opener) =
            pipe_with(PipeFlags::CLOEXEC).map_err(Error::of(|| "pipe2(CLOEXEC)"))?;
        Ok(Self { attr, gate, opener })
    }

    /// Schedules the process, and lets it go on.
    fn schedule(self, started: &mut PendingProcess) -> Result<()> {
        if started.wait_for_program() {
            hull_sys::sched_setattr(started.pid, &self.attr).map_err(Error::call)?;
        }
        // One that has failed has no need of it.
        let _gone = rustix::io::write(&self.opener, b"g");
        Ok(())
    }
}

/// Before the process enters the container's cgroup: the CPUs that its document names, or all.
fn set_initial_cpus(global: &Global, oci: &Oci) -> Result<()> {
    let initial = oci.exec_cpu_affinity().as_ref().and_then(|of| of.initial().as_deref());
    match initial.filter(|list| !list.is_empty()) {
        Some(list) => {
            let mask = hull_plan::cpu_mask(list);
            let mask = mask.map_err(|source| Error::PlanProcess { source })?;
            let failed = |source| Error::Affinity { list: list.to_owned(), source };
            hull_sys::set_affinity(&mask).map_err(failed)
        }
        None => {
            reset_affinity(global);
            Ok(())
        }
    }
}

/// The cgroup of an exec, and its places in hierarchies of cgroup v1 where that is another one.
fn sub_cgroups(
    host: &CgroupFs,
    record: &Record,
    asked: &[String],
) -> Result<(String, Vec<(String, String)>)> {
    let mut all = record.cgroup.clone();
    let mut some: Vec<(String, String)> = Vec::new();
    let wrong = |why: &str, text: &str| {
        let text: String = text.chars().take(200).collect();
        Err(Error::Usage { what: format!("--cgroup: {why} `{text}`") })
    };
    for text in asked {
        let prefixed = text.split_once(':');
        if prefixed.is_none() && asked.len() > 1 {
            return wrong("of several, each names its controllers (CONTROLLER:PATH):", text);
        }
        if prefixed.is_some_and(|(controllers, _)| controllers.split(',').any(str::is_empty)) {
            return wrong("a controller has no name in", text);
        }
        let (controllers, below) = prefixed.unwrap_or(("", text));
        let parts = below.split('/').filter(|part| !matches!(*part, "" | "."));
        let parts: Vec<_> = parts.collect();
        if parts.contains(&"..") {
            let value = text.chars().take(200).collect();
            return Err(Error::BadValue { value, what: "--cgroup: bad sub cgroup path" });
        }
        let path = [&[record.cgroup.as_str()], parts.as_slice()].concat().join("/");
        if controllers.is_empty() {
            all = path;
            continue;
        }
        for controller in controllers.split(',') {
            let known = host.hierarchies().iter().any(|of| {
                of.controllers.iter().any(|name| name.trim_start_matches("name=") == controller)
            });
            if !known {
                return wrong("unknown controller", controller);
            }
            if some.iter().any(|(name, _)| name == controller) {
                return wrong("several paths for controller", controller);
            }
            some.push((controller.to_owned(), path.clone()));
        }
    }
    Ok((all, some))
}

fn id_maps(record: &Record) -> IdMaps {
    let maps = |of: &[[u32; 3]]| -> Vec<IdMap> {
        of.iter()
            .map(|[container_id, host_id, length]| IdMap {
                container_id: *container_id,
                host_id: *host_id,
                length: *length,
            })
            .collect()
    };
    IdMaps { uids: maps(&record.id_maps.0), gids: maps(&record.id_maps.1) }
}

/// The process document of an exec: the named file, or else the container's own with other
/// arguments. Options of the command line override it.
fn document(global: &Global, record: &Record, args: &Exec) -> Result<Oci> {
    let mut oci = match &args.process {
        Some(path) => {
            let bytes = store::read_bounded(path)?;
            completed(documents::parse(global, path, &bytes, "")?, &record.process)
        }
        None => {
            let mut own = record.process.clone();
            own.set_terminal(Some(args.tty));
            own.set_console_size(None);
            own
        }
    };
    if !args.args.is_empty() {
        oci.set_args(Some(args.args.clone()));
    }
    if args.tty {
        oci.set_terminal(Some(true));
    }
    if let Some(cwd) = &args.cwd {
        oci.set_cwd(cwd.into());
    }
    if !args.env.is_empty() {
        let mut env = oci.env().clone().unwrap_or_default();
        for entry in &args.env {
            let name = entry.split('=').next();
            env.retain(|old| old.split('=').next() != name);
            env.push(entry.clone());
        }
        oci.set_env(Some(env));
    }
    if let Some(user) = &args.user {
        oci.set_user(parse_user(user, oci.user())?);
        // HOME was the container's user's.
        let env = oci.env().clone().unwrap_or_default();
        let kept = env.into_iter().filter(|entry| !entry.starts_with("HOME="));
        oci.set_env(Some(kept.collect()));
    }
    if !args.groups.is_empty() {
        let mut user = oci.user().clone();
        user.set_additional_gids(Some(args.groups.clone()));
        oci.set_user(user);
    }
    if args.no_new_privs {
        oci.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &args.apparmor {
        oci.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.label {
        oci.set_selinux_label(Some(label.clone()));
    }
    if !args.capabilities.is_empty() {
        let more = capabilities(global, &args.capabilities);
        // Without sets it keeps all of the caller's.
        let sets = oci.capabilities().as_ref().map(|sets| with(sets, &more));
        oci.set_capabilities(sets);
    }
    Ok(oci)
}

/// The document of an exec with what it leaves out of the container's own process, as runc fills it in.
fn completed(mut oci: Oci, own: &Oci) -> Oci {
    if oci.capabilities().is_none() {
        oci.set_capabilities(own.capabilities().clone());
    }
    if oci.selinux_label().as_ref().is_none_or(String::is_empty) {
        oci.set_selinux_label(own.selinux_label().clone());
    }
    if oci.scheduler().is_none() {
        oci.set_scheduler(own.scheduler().clone());
    }
    if oci.io_priority().is_none() {
        oci.set_io_priority(*own.io_priority());
    }
    if oci.exec_cpu_affinity().is_none() {
        oci.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    oci
}

/// `UID[:GID]`; names are the image's, and looked up by the program that calls this one.
fn parse_user(text: &str, of_container: &User) -> Result<User> {
    let what = "a user: write UID or UID:GID, in numbers";
    let bad = || Error::BadValue { value: text.chars().take(100).collect(), what };
    let number = |of| match of {
        Account::Id(id) => Ok(id),
        Account::Name(_) => Err(bad()),
    };
    let asked = UserSpec::parse(text).map_err(|_| bad())?;
    let uid = number(asked.user)?;
    let gid = asked.group.map_or(Ok(of_container.gid()), number)?;
    let mut user = of_container.clone();
    user.set_uid(uid).set_gid(gid);
    Ok(user)
}

/// The container's sets, and these in the bounding, effective and permitted one. In the ambient one only if the
/// container has an inheritable one, which an exec does not add to: a capability that is not inheritable cannot be
/// ambient (`capabilities(7)`). As runc has it.
fn with(sets: &LinuxCapabilities, more: &[Capability]) -> LinuxCapabilities {
    let mut sets = sets.clone();
    let joined = |old: &Option<Capabilities>| -> Option<Capabilities> {
        Some(old.iter().flatten().copied().chain(more.iter().copied()).collect())
    };
    let (bounding, effective) = (joined(sets.bounding()), joined(sets.effective()));
    let permitted = joined(sets.permitted());
    let ambient =
        if sets.inheritable().is_some() { joined(sets.ambient()) } else { sets.ambient().clone() };
    sets.set_bounding(bounding)
        .set_effective(effective)
        .set_permitted(permitted)
        .set_ambient(ambient);
    sets
}

/// The capabilities of these names; unknown ones are left out, with a warning.
fn capabilities(global: &Global, names: &[String]) -> Vec<Capability> {
    let mut known = Vec::new();
    for name in names {
        match documents::capability(name) {
            Some(capability) => known.push(capability),
            None => unknown_capability(global, name),
        }
    }
    known
}

fn planned(dir: &Dir, record: &Record, oci: &Oci) -> Result<Process> {
    let spec = SpecBuilder::default().build();
    let spec = spec.map_err(|err| Error::BadValue { value: err.to_string(), what: "a spec" })?;
    let mut process = hull_plan::process(oci, &spec, &host_facts())
        .map_err(|source| Error::PlanProcess { source })?;
    process.seccomp = match dir.filter()? {
        Some(bytes) => Some(borsh::from_slice(&bytes).map_err(|err| Error::BadValue {
            value: err.to_string(),
            what: "the container's compiled seccomp filter",
        })?),
        None => None,
    };
    process.personality = record.personality;
    if let Some(first) = record.first {
        // Its root as it is now, mounts and all.
        let root = format!("/proc/{}/root", first.pid);
        home_dir::complete(&mut process.env, process.uid, Path::new(&root));
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_numbers_and_keeps_the_containers_group() {
        let mut own = User::default();
        own.set_uid(1).set_gid(2);
        let both = parse_user("7:8", &own).unwrap();
        assert_eq!((both.uid(), both.gid()), (7, 8));
        let one = parse_user("7", &own).unwrap();
        assert_eq!((one.uid(), one.gid()), (7, 2));
        for bad in ["", "root", "1:", "-1", "+1", "1:+2", " 1", "1:2:3", "4294967295", "4294967296"]
        {
            parse_user(bad, &own).unwrap_err();
        }
    }

    #[test]
    fn a_capability_goes_into_the_sets_that_need_no_inheritance() {
        let more = [Capability::NetAdmin, Capability::Chown];
        let count = |set: &Option<Capabilities>| set.as_ref().map(Capabilities::len);
        let sets = with(&serde_json::from_str("{}").unwrap(), &more);
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(count(set), Some(2));
        }
        assert_eq!((count(sets.inheritable()), count(sets.ambient())), (None, None));
        let own = serde_json::from_str(r#"{"bounding":["CAP_CHOWN"],"inheritable":["CAP_KILL"]}"#);
        let sets = with(&own.unwrap(), &more);
        assert_eq!(count(sets.bounding()), Some(2));
        assert_eq!((count(sets.inheritable()), count(sets.ambient())), (Some(1), Some(2)));
    }

    #[test]
    fn a_document_is_completed_from_the_containers_process() {
        let own = r#"{"cwd": "/", "args": ["x"], "user": {"uid": 1, "gid": 1}, "selinuxLabel": "a:b:c",
            "capabilities": {"bounding": ["CAP_KILL"]}, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
            "scheduler": {"policy": "SCHED_BATCH"}, "execCPUAffinity": {"final": "0"}, "env": ["A=b"]}"#;
        let own: Oci = serde_json::from_str(own).unwrap();
        let plain = r#"{"cwd": "/", "args": ["y"], "user": {"uid": 0, "gid": 0}}"#;
        let done = completed(serde_json::from_str(plain).unwrap(), &own);
        assert_eq!(done.capabilities(), own.capabilities());
        assert_eq!(done.selinux_label(), own.selinux_label());
        assert_eq!(done.scheduler(), own.scheduler());
        assert_eq!(done.io_priority(), own.io_priority());
        assert_eq!(done.exec_cpu_affinity(), own.exec_cpu_affinity());
        assert_eq!((done.user().uid(), done.env().is_none()), (0, true), "these are its own");
        let none =
            r#"{"cwd": "/", "args": ["y"], "user": {"uid": 0, "gid": 0}, "capabilities": {}}"#;
        let done = completed(serde_json::from_str(none).unwrap(), &own);
        assert!(done.capabilities().as_ref().is_some_and(|sets| sets.bounding().is_none()));
    }
}
