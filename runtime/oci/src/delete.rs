// SPDX-License-Identifier: Apache-2.0
//! `delete`, and the only teardown, which a failed create and the end of `run` use too.
//!
//! It finds everything by the record, or by the directory alone, and treats missing parts as removed. So it
//! is idempotent and may run at any time.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::hooks::{failed_hook, hooks};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::Dir;
use crate::{log, systemd};
use hull_init::HookKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

/// How long processes may take to exit after SIGKILL.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let dir = match Dir::open(&global.root, id) {
        Err(Error::NoContainer { .. }) if force => return Ok(()),
        other => other?,
    };
    // With --force it does not wait for a command that hangs in a hook.
    if !force {
        dir.lock()?;
    }
    let record = match dir.record() {
        // Nothing else can free the id.
        Err(error @ Error::Record { .. }) if force => {
            let text =
                "its processes, if there are any, stay in the cgroup that its config.json names";
            log::warn(global, &format!("container `{id}`: {}: {text}", log::chain(&error)));
            return dir.remove();
        }
        other => other?,
    };
    let status = match &record {
        Some(record) => status::of(&dir, record)?.0,
        None => Status::Creating,
    };
    match status {
        // A container that was never started is deleted without --force, as in runc.
        Status::Stopped | Status::Created => {}
        Status::Creating | Status::Running | Status::Paused if force => {}
        Status::Creating | Status::Running | Status::Paused => {
            return Err(Error::WrongState { action: "delete", id: id.into(), status });
        }
    }
    tear_down(global, &dir, record.as_ref())
}

/// Kills all processes, removes the cgroup, runs the poststop hooks, and frees the id.
pub(crate) fn tear_down(global: &Global, dir: &Dir, record: Option<&Record>) -> Result<()> {
    let Some(record) = record else { return dir.remove() };
    let cgroup = status::cgroup(record)?;
    let first = record.first.map(status::alive).transpose()?.flatten();
    if let Some(first) = &first {
        hull_sys::pidfd_send_signal(first.as_fd(), 9).map_err(Error::call)?;
    }
    if cgroup.is_frozen().map_err(failed(&record.id))? {
        // On v1 a frozen process does not die before it is thawed.
        cgroup.thaw().map_err(failed(&record.id))?;
    }
    if let Some(first) = &first {
        let mut fds = [PollFd::new(first, PollFlags::IN)];
        let wait = Timespec::try_from(LIMIT).ok();
        let _woken = poll(&mut fds, wait.as_ref());
        if fds[0].revents().is_empty() {
            return Err(Error::StillRuns { id: record.id.clone(), seconds: LIMIT.as_secs() });
        }
    }
    // Looked at while its cgroup is there: the name alone may be another's by now.
    let unit = record.systemd_unit.as_deref();
    let is_ours =
        unit.map(|unit| systemd::is_ours(unit, &record.cgroup)).transpose()? == Some(true);
    cgroup.kill_and_remove(LIMIT).map_err(failed(&record.id))?;
    if let (Some(unit), true) = (&record.systemd_unit, is_ours) {
        // The record stays while the unit is there.
        systemd::stop(unit)?;
    }
    if record.hooks.is_some() {
        let hooks = hooks(record)?;
        // As the spec requires, a failed poststop hook does not keep the container.
        // A bundle that its owner has already removed keeps no hook from its work.
        let bundle = Some(Path::new(&record.bundle)).filter(|bundle| bundle.is_dir());
        for error in hooks.run_all(&[HookKind::Poststop], "stopped", 0, bundle) {
            log::warn(global, &format!("cannot {}", failed_hook(record, &hooks, &error)));
        }
    }
    dir.remove()
}
