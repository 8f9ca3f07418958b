// SPDX-License-Identifier: Apache-2.0
//! `start`: starts the program of a created container, then runs the poststart hooks.

use crate::args::Global;
use crate::beyond_plan::take_scheduling;
use crate::error::{Error, Result};
use crate::hooks::{failed_hook, failed_inside, hooks, only_hooks};
use crate::record::Record;
use crate::state::Status;
use crate::status;
use crate::store::Dir;
use hull_init::plan::Step;
use hull_init::{HookKind, StepError, start_socket};
use std::os::fd::AsFd as _;

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
    match start_socket::release(dir.as_fd()).map_err(Error::call)? {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(described(&dir, &record, &error)?),
        None => {
            let (status, _) = status::of(&dir, &record)?;
            return Err(Error::WrongState { action: "start", id: id.into(), status });
        }
    }
    dir.remove_start_socket()?;
    if record.hooks.is_none() {
        return Ok(());
    }
    let (hooks, pid) = (hooks(&record)?, record.first.map_or(0, |first| first.pid));
    hooks.run(&[HookKind::Poststart], "running", pid).map_err(|error| {
        // As the spec has it: a container whose poststart hook fails is stopped.
        let first = record.first.and_then(|first| status::alive(first).ok().flatten());
        if let Some(first) = first {
            let _gone = hull_sys::pidfd_send_signal(first.as_fd(), 9);
        }
        failed_hook(&record, &hooks, &error)
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
