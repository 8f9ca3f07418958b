// SPDX-License-Identifier: Apache-2.0
//! Tries to change the programs that other processes run, through `/proc/<pid>/exe`: mode, owner and extended
//! attributes, any of which would keep all other pods from starting.

use crate::new_processes;
use crate::output::print_line;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file capability, version 2, with none set.
const CAPABILITY: &[u8] = &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether `refused` was printed.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Tries to change programs until it is killed. Prints `refused` once one was on a read-only mount.
pub(crate) fn change_all() -> ! {
    let own = rustix::fs::stat("/proc/self/exe").map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
    new_processes::visit_all(move |pid| change(pid, own))
}

fn change(pid: u32, own: (u64, u64)) {
    let exe = format!("/proc/{pid}/exe");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(program) = rustix::fs::openat(CWD, exe, flags, Mode::empty()) else { return };
    if rustix::fs::fstat(&program).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == own) {
        return;
    }
    for (call, result) in attempts(&program) {
        match result {
            Ok(()) => print_line(&format!("CHANGED by {call} of the program of {pid}")),
            Err(Errno::ROFS) if !REFUSED.swap(true, Ordering::Relaxed) => print_line("refused"),
            Err(_) => {}
        }
    }
}

fn attempts(program: &OwnedFd) -> [(&'static str, Result<(), Errno>); 4] {
    use rustix::fs::{fchmod, fchown, fsetxattr};
    let set = |name| fsetxattr(program, name, CAPABILITY, XattrFlags::empty());
    [
        ("fchmod", fchmod(program, Mode::empty())),
        ("fsetxattr(security.capability)", set("security.capability")),
        ("fsetxattr(user.x)", set("user.x")),
        ("fchown", fchown(program, Some(Uid::from_raw(1)), Some(Gid::from_raw(1)))),
    ]
}
