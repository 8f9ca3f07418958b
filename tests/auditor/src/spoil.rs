// SPDX-License-Identifier: Apache-2.0
//! What the processes of others run (`/proc/<pid>/exe`), spoilt for everybody; and sockets of the host.

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many numbers ahead of the newest process are tried.
const AHEAD: u32 = 6;
const THREADS: u32 = 3;
/// A file capability, version 2, with none set.
const CAPABILITY: &[u8] = &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Times that each socket is connected to.
const KNOCKS: u32 = 50;

/// Whether that was said.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Tries to spoil programs until it is killed. Says `refused` once one was read-only.
pub(crate) fn run() -> ! {
    crate::say("ready");
    for _ in 1..THREADS {
        std::thread::spawn(move || hunt());
    }
    hunt()
}

fn hunt() -> ! {
    let own = rustix::fs::stat("/proc/self/exe").map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
    let mut newest = 0;
    loop {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = names.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
        newest = pids.inspect(|pid| spoil(*pid, own)).max().unwrap_or(newest);
        for _ in 0..200 {
            for pid in newest + 1..=newest + AHEAD {
                spoil(pid, own);
            }
        }
    }
}

fn spoil(pid: u32, own: (u64, u64)) {
    let exe = format!("/proc/{pid}/exe");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(program) = rustix::fs::openat(CWD, exe, flags, Mode::empty()) else { return };
    if rustix::fs::fstat(&program).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == own) {
        return;
    }
    for (call, result) in attempts(&program) {
        match result {
            Ok(()) => crate::say(&format!("SPOILT by {call} of the program of {pid}")),
            Err(Errno::ROFS) if !REFUSED.swap(true, Ordering::Relaxed) => crate::say("refused"),
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

/// Says `hello` to every monitor below a directory, again and again. Gives how many there are, or what
/// one answered.
pub(crate) fn knock(dir: &str) -> String {
    let pods = fs::read_dir(dir).into_iter().flatten().flatten();
    let sockets = pods.map(|pod| pod.path().join("monitor.sock"));
    let (mut count, mut silent) = (0, Vec::new());
    for socket in sockets {
        count += 1;
        for _ in 0..KNOCKS {
            if let Err(why) = knock_at(&socket, &mut silent) {
                return why;
            }
        }
    }
    format!("knocked at {count}")
}

fn knock_at(socket: &Path, silent: &mut Vec<UnixStream>) -> Result<(), String> {
    let connect = || UnixStream::connect(socket).map_err(|err| format!("connect: {err}"));
    silent.push(connect()?);
    let mut stream = connect()?;
    // Closed before, most likely.
    let written = stream.write_all(b"hello\n");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(got) if got > 0 => Err(format!("answered {got} bytes ({written:?})")),
        Ok(_) | Err(_) => Ok(()),
    }
}
