// SPDX-License-Identifier: Apache-2.0
//! `start`: the container that waits is told to go, then the poststart hooks run.

use crate::args::Global;
use crate::create::hook_failed;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::status::{self, Status};
use crate::store::Dir;
use hull_init::plan::Step;
use hull_init::{HookKind, Hooks, StepError, gate};
use oci_spec::runtime::{Spec, SpecBuilder};
use std::os::fd::AsFd as _;

pub(crate) fn start(global: &Global, id: &str) -> Result<()> {
    let dir = Dir::open(&global.root, id)?;
    dir.lock()?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    if record.first.is_none() {
        return Err(Error::Unfit { action: "start", id: id.into(), status: Status::Creating });
    }
    match gate::open(dir.as_fd()).map_err(Error::call)? {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(described(&record, &error)?),
        None => {
            let (status, _) = status::of(&dir, &record)?;
            return Err(Error::Unfit { action: "start", id: id.into(), status });
        }
    }
    dir.remove_gate()?;
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

/// The container's hooks, as they were when it was created.
pub(crate) fn hooks(record: &Record) -> Result<Hooks> {
    let planned = |source| Error::Plan { id: record.id.clone(), source };
    hull_plan::hooks(&only_hooks(record)?, record.state_for_hooks()).map_err(planned)
}

fn only_hooks(record: &Record) -> Result<Spec> {
    let mut spec = SpecBuilder::default()
        .build()
        .map_err(|err| Error::BadValue { value: err.to_string(), what: "a record's hooks" })?;
    spec.set_hooks(record.hooks.clone());
    Ok(spec)
}

pub(crate) fn failed_hook(record: &Record, hooks: &Hooks, error: &StepError) -> Error {
    let at = if let Step::Hook(at) = error.step { at } else { u32::MAX };
    hook_failed(hooks, record.id.clone(), at, error)
}

/// Why its last step failed, which nothing but its process is needed for.
fn described(record: &Record, error: &StepError) -> Result<Error> {
    if matches!(error.step, Step::Hook(_)) {
        return Ok(failed_hook(record, &hooks(record)?, error));
    }
    let spec = only_hooks(record)?;
    let facts = hull_plan::HostFacts { apparmor: true, selinux: true, ..Default::default() };
    let process = hull_plan::process(&record.process, &spec, &facts)
        .map_err(|source| Error::PlanProcess { source })?;
    let failure = Box::new(hull_plan::describe_process(&process, error));
    Ok(Error::Start { id: record.id.clone(), failure })
}
