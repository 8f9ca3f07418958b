// SPDX-License-Identifier: Apache-2.0
//! `kill`: a signal to the first process, or to all.

use crate::args::{Global, Kill};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::Dir;
use hull_plan::signals;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd as _;

const KILL: i32 = 9;

/// A signal by number or by name; see [`signals::number`].
pub(crate) fn signal(text: &str) -> Result<i32> {
    // Only looks whether the process can be signalled, kill(2).
    if text == "0" {
        return Ok(0);
    }
    signals::number(text)
        .ok_or_else(|| Error::BadValue { value: text.chars().take(40).collect(), what: "a signal" })
}

pub(crate) fn kill(global: &Global, args: &Kill) -> Result<()> {
    let signal = signal(args.signal.as_deref().unwrap_or("TERM"))?;
    let dir = Dir::open(&global.root, &args.id)?;
    let none = || Error::NotRunning { action: "kill", id: args.id.clone() };
    let record = dir.record()?.ok_or_else(none)?;
    let (status, first) = status::of(&dir, &record)?;
    // Without a pid namespace of its own nothing else ends with the first process.
    if args.all || (signal == KILL && !record.own_pid_namespace) {
        // Its other processes go on when the first one has ended.
        let is_over = status == Status::Stopped
            && !status::cgroup(&record)?.is_populated().map_err(failed(&record.id))?;
        if is_over && !args.all {
            return Err(none());
        }
        to_all(&record, signal)?;
    } else {
        let first = first.ok_or_else(none)?;
        hull_sys::pidfd_send_signal(first.as_fd(), signal).map_err(Error::call)?;
    }
    if status == Status::Paused && signal == KILL {
        // In v1 what is frozen does not even end.
        status::cgroup(&record)?.thaw().map_err(failed(&record.id))?;
    }
    Ok(())
}

fn to_all(record: &Record, signal: i32) -> Result<()> {
    let cgroup = status::cgroup(record)?;
    if signal == KILL {
        return cgroup.kill().map_err(failed(&record.id));
    }
    for pid in cgroup.procs().map_err(failed(&record.id))? {
        let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // One that has ended meanwhile needs no signal.
        if let Some(process) = process {
            hull_sys::pidfd_send_signal(process.as_fd(), signal).map_err(Error::call)?;
        }
    }
    Ok(())
}
