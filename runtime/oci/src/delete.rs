// SPDX-License-Identifier: Apache-2.0
//! `delete`, and the one teardown: a failed create, `run` at its end and `delete` all come here.
//!
//! Everything is found by the record, or by the directory alone; what is not there counts as gone. So it
//! may run at any time, any number of times.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::log;
use crate::record::Record;
use crate::start::{failed_hook, hooks};
use crate::status::{self, Status, failed};
use crate::store::Dir;
use hull_init::HookKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long processes may take to end after SIGKILL.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let dir = match Dir::open(&global.root, id) {
        Err(Error::NoContainer { .. }) if force => return Ok(()),
        other => other?,
    };
    // With force it does not wait for who hangs in a hook.
    if !force {
        dir.lock()?;
    }
    let record = dir.record()?;
    let status = match &record {
        Some(record) => status::of(&dir, record)?.0,
        None => Status::Creating,
    };
    match status {
        // One that was never started is thrown away without more ado, as runc does it.
        Status::Stopped | Status::Created => {}
        Status::Creating | Status::Running | Status::Paused if force => {}
        Status::Creating | Status::Running | Status::Paused => {
            return Err(Error::Unfit { action: "delete", id: id.into(), status });
        }
    }
    tear_down(global, &dir, record.as_ref())
}

/// Ends what runs, takes away what there is, runs the poststop hooks, gives the id back.
pub(crate) fn tear_down(global: &Global, dir: &Dir, record: Option<&Record>) -> Result<()> {
    let Some(record) = record else { return dir.remove() };
    let cgroup = status::cgroup(record)?;
    let first = record.first.map(status::alive).transpose()?.flatten();
    if let Some(first) = &first {
        hull_sys::pidfd_send_signal(first.as_fd(), 9).map_err(Error::call)?;
    }
    if cgroup.is_frozen().map_err(failed(&record.id))? {
        // In v1 what is frozen does not even end.
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
    cgroup.kill_and_remove(LIMIT).map_err(failed(&record.id))?;
    if record.hooks.is_some() {
        let hooks = hooks(record)?;
        // As the spec has it: the container goes all the same.
        if let Err(error) = hooks.run(&[HookKind::Poststop], "stopped", 0) {
            log::warn(global, &format!("cannot {}", failed_hook(record, &hooks, &error)));
        }
    }
    dir.remove()
}
