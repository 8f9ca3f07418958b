// SPDX-License-Identifier: Apache-2.0
//! `kill`: a signal to the first process, or to all.

use crate::args::{Global, Kill};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::Dir;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd as _;

const KILL: i32 = 9;
const LAST: i32 = 64;

/// In the order of their numbers on every architecture that we run on, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by number or by name, with `SIG` or without; `RTMIN+3` and `RTMAX-1` too.
pub(crate) fn signal(text: &str) -> Result<i32> {
    let bad = || Error::BadValue { value: text.chars().take(40).collect(), what: "a signal" };
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=LAST).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, base: i32| match rest {
        "" => Some(base),
        rest => rest.parse::<i32>().ok().map(|offset| base + offset),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(rest, 34).filter(|number| (34..=LAST).contains(number)),
        (_, Some(rest)) => real_time(rest, LAST).filter(|number| (34..=LAST).contains(number)),
        _ => {
            let at = NAMES.iter().position(|known| *known == name);
            at.and_then(|at| i32::try_from(at + 1).ok())
        }
    };
    number.ok_or_else(bad)
}

pub(crate) fn kill(global: &Global, args: &Kill) -> Result<()> {
    let signal = signal(args.signal.as_deref().unwrap_or("TERM"))?;
    let dir = Dir::open(&global.root, &args.id)?;
    let none = || Error::NotRunning { action: "kill", id: args.id.clone() };
    let record = dir.record()?.ok_or_else(none)?;
    let (status, first) = status::of(&dir, &record)?;
    // Without a pid namespace of its own nothing else ends with the first process.
    if args.all || (signal == KILL && !record.own_pid_namespace) {
        if status == Status::Stopped && !args.all {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGKILL", 9),
            ("sighup", 1),
            ("31", 31),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGWRONG", "RTMIN-1", "-9"] {
            signal(text).unwrap_err();
        }
    }
}
