// SPDX-License-Identifier: Apache-2.0
//! `start`: starts the program of a created container, then runs the poststart hooks.

use crate::args::Global;
use crate::beyond_plan::take_scheduling;
use crate::error::{Error, Result};
use crate::hooks::{failed_hook, failed_inside, hooks, only_hooks};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::Dir;
use hull_init::plan::Step;
use hull_init::start_socket::{self, Released};
use hull_init::{HookKind, Hooks, StepError};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long a process may take to report that its hooks have ended or were killed.
const REPORT_TIME: Duration = Duration::from_secs(5);

pub(crate) fn start(global: &Global, id: &str) -> Result<()> {
    let dir = Dir::open(&global.root, id)?;
    dir.lock()?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    if record.first.is_none() {
        return Err(Error::WrongState { action: "start", id: id.into(), status: Status::Creating });
    }
    let (status, _) = status::of(&dir, &record)?;
    if status == Status::Paused {
        return Err(Error::WrongState { action: "start", id: id.into(), status });
    }
    // A frozen parent: the process would not answer, and the lock would be held meanwhile.
    match status::check_thawed(&status::cgroup(&record)?, id) {
        // As with runc: what is frozen with its parent is paused, also while it is being frozen.
        Err(Error::Frozen { .. }) => {
            let status = Status::Paused;
            return Err(Error::WrongState { action: "start", id: id.into(), status });
        }
        other => other?,
    }
    let hooks = record.hooks.is_some().then(|| hooks(&record)).transpose()?;
    let time = hooks.as_ref().and_then(hook_time);
    match start_socket::release(dir.as_fd(), time).map_err(Error::call)? {
        Released::Reported(Ok(())) => {}
        Released::Reported(Err(error)) => return Err(described(&dir, &record, &error)?),
        Released::TimedOut => return Err(too_late(&record, time.unwrap_or_default())?),
        Released::NoWaiter => {
            let (status, _) = status::of(&dir, &record)?;
            return Err(Error::WrongState { action: "start", id: id.into(), status });
        }
    }
    dir.remove_start_socket()?;
    let Some(hooks) = hooks else { return Ok(()) };
    let pid = record.first.map_or(0, |first| first.pid);
    hooks.run(&[HookKind::Poststart], "running", pid).map_err(|error| {
        // As the spec has it: a container whose poststart hook fails is stopped.
        let first = record.first.and_then(|first| status::alive(first).ok().flatten());
        if let Some(first) = first {
            let _gone = hull_sys::pidfd_send_signal(first.as_fd(), 9);
        }
        failed_hook(&record, &hooks, &error)
    })
}

/// The time that the container's process has for its startContainer hooks and its exec, if it has such hooks. It keeps
/// the time of each itself.
fn hook_time(hooks: &Hooks) -> Option<Duration> {
    let kinds = [HookKind::StartContainer];
    hooks.has(&kinds).then(|| hooks.time_max(&kinds) + REPORT_TIME)
}

/// Kills a container whose process has not come to its program in time, with its hooks.
fn too_late(record: &Record, time: Duration) -> Result<Error> {
    let first = record.first.and_then(|first| status::alive(first).transpose()).transpose()?;
    status::cgroup(record)?.kill().map_err(failed(&record.id))?;
    if let Some(first) = first {
        // Without a cgroup of its own it is in none.
        let _gone = hull_sys::pidfd_send_signal(first.as_fd(), 9);
    }
    Ok(Error::Hook {
        id: record.id.clone(),
        hook: "startContainer hooks".into(),
        why: format!("they have not ended {} s after the start; the container was killed", time.as_secs()),
        hint: Some(
            "something has stopped the process that runs them: a process of the pid namespace that the container joins, or one of the host".into(),
        ),
    })
}

/// Why its last step failed, which nothing but its process is needed for.
fn described(dir: &Dir, record: &Record, error: &StepError) -> Result<Error> {
    if matches!(error.step, Step::Hook(_)) {
        return failed_inside(dir, record, error);
    }
    let spec = only_hooks(record)?;
    let facts = hull_plan::HostFacts { apparmor: true, selinux: true, ..Default::default() };
    let mut plain = record.process.clone();
    take_scheduling(&mut plain, None)?;
    let process = hull_plan::process(&plain, &spec, &facts)
        .map_err(|source| Error::PlanProcess { source })?;
    let failure = Box::new(hull_plan::diagnose_process(&process, error));
    Ok(Error::Start { id: record.id.clone(), failure })
}
