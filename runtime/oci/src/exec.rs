// SPDX-License-Identifier: Apache-2.0
//! `exec`: a further process in a container, as the command line or a document says.

use crate::args::{Exec, Global};
use crate::console::{self, Receiver};
use crate::create::{check_streams, io, reset_affinity, write_pid};
use crate::documents::{self, unknown_capability};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::setup::host_facts;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::{self, Dir};
use crate::{foreground, home_dir};
use hull_cgroup::CgroupFs;
use hull_init::plan::{IdMap, IdMaps};
use hull_init::{ExecTarget, LaunchOptions, Process};
use hull_plan::accounts::{Account, UserSpec};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, Process as Oci, SpecBuilder, User,
};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// The code is the process's own, unless it is detached.
pub(crate) fn exec(global: &Global, args: &Exec) -> Result<u8> {
    let dir = Dir::open(&global.root, &args.id)?;
    let none = || Error::NotRunning { action: "exec in", id: args.id.clone() };
    let record = dir.record()?.ok_or_else(none)?;
    let first = running(&dir, &record, args)?;
    let oci = document(global, &record, args)?;
    let terminal = oci.terminal() == Some(true);
    check_streams(&args.streams, terminal)?;
    let mut process = planned(&dir, &record, &oci)?;
    if terminal && !args.streams.detach {
        process.terminal = process.terminal.or_else(console::own_size);
    }
    let receiver = args.streams.console_socket.as_deref().map(Receiver::connect).transpose()?;
    let signals = if args.streams.detach { None } else { Some(foreground::signals()?) };
    if !args.ignore_paused {
        status::check_thawed(&status::cgroup(&record)?, &args.id)?;
    }
    let (streams, socket) = io(terminal, receiver.is_some(), args.streams.preserve_fds)?;
    let (maps, cgroup) = (id_maps(&record), cgroup(&record, args));
    let target = ExecTarget {
        pidfd: first.as_fd(),
        id_maps: record.user_namespace.then_some(&maps),
        cgroup: &cgroup,
    };
    let keyring = format!("_ses.{}", args.id);
    reset_affinity(global);
    let launch = LaunchOptions {
        outlives: true,
        kept_fds: args.streams.preserve_fds,
        keyring: Some(&keyring),
        ..LaunchOptions::default()
    };
    let host = CgroupFs::detect().map_err(failed(&args.id))?;
    let described = |error| Error::Exec {
        id: args.id.clone(),
        failure: Box::new(hull_plan::diagnose_process(&process, &error)),
    };
    let mut started =
        hull_init::launch_exec(&host, &target, &process, &streams, &launch).map_err(described)?;
    drop(streams);
    started.wait().map_err(described)?;
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

fn running(dir: &Dir, record: &Record, args: &Exec) -> Result<OwnedFd> {
    let unfit = |status| Error::WrongState { action: "exec in", id: args.id.clone(), status };
    match status::of(dir, record)? {
        (Status::Created | Status::Running, Some(first)) => Ok(first),
        (Status::Paused, Some(first)) if args.ignore_paused => Ok(first),
        (Status::Stopped, _) => Err(Error::NotRunning { action: "exec in", id: args.id.clone() }),
        (status, _) => Err(unfit(status)),
    }
}

fn cgroup(record: &Record, args: &Exec) -> String {
    match &args.cgroup {
        Some(below) => format!("{}/{}", record.cgroup, below.trim_matches('/')),
        None => record.cgroup.clone(),
    }
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
            documents::parse(global, path, &bytes, "")?
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
            let name = entry.split_inclusive('=').next().unwrap_or_default();
            env.retain(|old| !old.starts_with(name));
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
        oci.set_capabilities(Some(with(oci.capabilities().as_ref(), &more)));
    }
    Ok(oci)
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
fn with(sets: Option<&LinuxCapabilities>, more: &[Capability]) -> LinuxCapabilities {
    let none = Capabilities::default;
    let mut sets = sets.cloned().unwrap_or_else(|| {
        let mut empty = LinuxCapabilities::default();
        empty.set_bounding(Some(none())).set_effective(Some(none())).set_permitted(Some(none()));
        empty.set_inheritable(None).set_ambient(None);
        empty
    });
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

/// The capabilities of these names, with or without `CAP_`; unknown ones are left out, with a warning.
fn capabilities(global: &Global, names: &[String]) -> Vec<Capability> {
    let mut known = Vec::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        match serde_json::from_value::<Capability>(full.into()) {
            Ok(capability) => known.push(capability),
            Err(_) => unknown_capability(global, name),
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
        let sets = with(None, &more);
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(count(set), Some(2));
        }
        assert_eq!((count(sets.inheritable()), count(sets.ambient())), (None, None));
        let own = serde_json::from_str(r#"{"bounding":["CAP_CHOWN"],"inheritable":["CAP_KILL"]}"#);
        let sets = with(Some(&own.unwrap()), &more);
        assert_eq!(count(sets.bounding()), Some(2));
        assert_eq!((count(sets.inheritable()), count(sets.ambient())), (Some(1), Some(2)));
    }
}
