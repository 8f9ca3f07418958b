// SPDX-License-Identifier: Apache-2.0
//! A machine in namespaces of its own: network, mount, UTS, IPC and PID, with a PID 1 that reaps, and cgroups.
//!
//! ```text
//! <dir>/lib, log, tmp   its /var/lib, /var/log and /tmp; its /run is a tmpfs
//! <dir>/programs        the folder of Kubernetes' programs, mounted there
//! <dir>/hull            the Hull that it runs, mounted there
//! <dir>/pid             PID 1, as the host numbers it
//! ```
//!
//! All else is the host's file system. When PID 1 ends, the kernel kills every other process of the machine, and its
//! mounts and links go with the namespaces. PID 1 ends when its standard input closes: that is this process's end of
//! a pipe, or a FIFO that PID 1 itself keeps open when the machine is to outlive this process.

use super::cgroups::{Cgroups, SYSTEM};
use crate::eventually;
use crate::expect::ExpectExt;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// PID 1. `/proc/self/stat` is read before the new /proc hides the host's numbers.
const INIT: &str = r#"
set -eu
name=$1 dir=$2 programs=$3 hull=$4
read -r pid _ < /proc/self/stat
mount --make-rprivate /
mkdir -p "$dir"/{cgroup,lib,log,tmp,programs}
chmod 1777 "$dir/tmp"
touch "$dir/hull"
mount --rbind /sys/fs/cgroup "$dir/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$dir/cgroup" /sys/fs/cgroup
mount -t proc proc /proc
mount --bind "$programs" "$dir/programs"
mount --bind "$hull" "$dir/hull"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock
mount --bind "$dir/lib" /var/lib
mount --bind "$dir/log" /var/log
mount --bind "$dir/tmp" /tmp
mount --make-rshared /
hostname "$name"
ip link set lo up
echo "$pid" > "$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"
read -r _ || true
"#;

/// Joins the cgroups whose files `$1` names, and becomes the rest.
const JOIN: &str = r#"
for file in $1; do echo $$ > "$file" || exit 1; done
shift
exec "$@"
"#;

/// Where programs on a machine find others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a machine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as this process, at most.
    Process,
    /// Until a call of [`Machine::end`], by any process.
    Kept,
}

/// A machine that has booted.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    cgroups: Cgroups,
    /// PID 1, as the host numbers it.
    pid: i32,
    /// `unshare`, the parent of PID 1; unset where another process started the machine.
    parent: Option<Child>,
    /// Open as long as the machine is to live.
    lifeline: Option<ChildStdin>,
}

/// The names and programs of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Description<'a> {
    /// Its host name.
    pub host_name: &'a str,
    /// Its directory, which has to be on a disk.
    pub dir: &'a Path,
    /// Its group in every cgroup hierarchy; the host has no other group of that name.
    pub cgroup: &'a str,
    /// The folder of Kubernetes' programs.
    pub programs: &'a Path,
    /// The program of Hull.
    pub hull: &'a Path,
}

impl Machine {
    /// Boots a machine, after it has removed what is left of an earlier one of these names.
    #[must_use]
    pub fn boot(description: Description<'_>, lifetime: Lifetime) -> Self {
        let Description { host_name, dir, cgroup, programs, hull } = description;
        let cgroups = Cgroups::of(cgroup);
        if let Some(old) = Self::running(dir, cgroup) {
            old.end();
        }
        cgroups.remove();
        remove(dir);
        fs::create_dir_all(dir).or_fail(format!("make {}", dir.display()));
        cgroups.make();
        let log = log_file(&dir.join("init.log"));
        let mut command = Command::new("sh");
        command
            .args(["-c", JOIN, "join", &cgroups.procs(SYSTEM), "setsid"])
            .args([
                "unshare",
                "--net",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["bash", "-c", INIT, "init", host_name])
            .args([dir, programs, hull])
            .env_clear()
            .env("PATH", PATH)
            .stdin(stdin(dir, lifetime))
            .stdout(log.try_clone().or_fail("share the log of PID 1"))
            .stderr(log);
        let mut parent = command.spawn().or_fail("start a machine");
        let lifeline = parent.stdin.take();
        let up = eventually::blocking(eventually::deadline(), || {
            if let Some(status) = parent.try_wait().map_err(|err| err.to_string())? {
                return Ok(Err(status));
            }
            let text = fs::read_to_string(dir.join("pid")).map_err(|err| err.to_string())?;
            text.trim().parse::<i32>().map(Ok).map_err(|err| err.to_string())
        });
        let text = || fs::read_to_string(dir.join("init.log")).unwrap_or_default();
        let pid = match up {
            Ok(Ok(pid)) => pid,
            Ok(Err(status)) => panic!("PID 1 of a machine ended with {status}: {}", text()),
            Err(last) => panic!("PID 1 of a machine did not come up: {last}: {}", text()),
        };
        Self { dir: dir.to_owned(), cgroups, pid, parent: Some(parent), lifeline }
    }

    /// The machine in `dir` that another process has booted, if it runs.
    #[must_use]
    pub fn running(dir: &Path, cgroup: &str) -> Option<Self> {
        let text = fs::read_to_string(dir.join("pid")).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        // The number may belong to another process by now.
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let named = dir.as_os_str().as_encoded_bytes();
        let is_it = arguments.split(|byte| *byte == 0).any(|argument| argument == named);
        is_it.then(|| Self {
            dir: dir.to_owned(),
            cgroups: Cgroups::of(cgroup),
            pid,
            parent: None,
            lifeline: None,
        })
    }

    /// Its directory on the host.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its cgroups, which are made.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// PID 1, as the host numbers it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A path of the machine, as the host opens it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// A command on the machine, in `group` of its cgroups; not started yet.
    #[must_use]
    pub fn command(&self, group: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", JOIN, "join", &self.cgroups.procs(group)])
            .args(["nsenter", "--target", &self.pid.to_string()])
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null());
        command
    }

    /// Calls `act` on a thread in the machine's network namespace; sockets that it makes stay there.
    pub fn in_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        self.in_namespace(&PathBuf::from(format!("/proc/{}/ns/net", self.pid)), act)
    }

    /// Calls `act` on a thread in the network namespace at `path`, as the host opens it; sockets that it makes stay
    /// there.
    pub fn in_namespace<T: Send>(&self, path: &Path, act: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(path).or_fail(format!("open {}", path.display()));
        let result = std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).or_fail("enter a network namespace");
                act()
            });
            entered.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Ends the machine and removes all of it but its directory.
    pub fn end(mut self) {
        self.stop();
    }

    /// Ends the machine; every call but the first does nothing more.
    pub fn stop(&mut self) {
        drop(self.lifeline.take());
        // It may be gone already.
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        if let Some(mut parent) = self.parent.take() {
            drop(parent.wait());
        }
        self.cgroups.remove();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Without a lifeline it is one that is to be kept, or one that has ended.
        if self.lifeline.is_some() {
            self.stop();
        }
    }
}

/// Opens a log to append to.
#[must_use]
pub fn log_file(path: &Path) -> fs::File {
    let opened = fs::File::options().append(true).create(true).open(path);
    opened.or_fail(format!("open {}", path.display()))
}

/// Removes the directory of a machine that has ended. Its mounts went with its namespace.
pub fn remove(dir: &Path) {
    if let Err(err) = fs::remove_dir_all(dir) {
        assert!(err.kind() == std::io::ErrorKind::NotFound, "remove {}: {err}", dir.display());
    }
}

/// The standard input of PID 1.
fn stdin(dir: &Path, lifetime: Lifetime) -> Stdio {
    match lifetime {
        Lifetime::Process => Stdio::piped(),
        Lifetime::Kept => {
            let path = dir.join("lifeline");
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).or_fail("make a FIFO");
            // Open for writing as well, so it never ends.
            let both = fs::File::options().read(true).write(true).open(&path);
            Stdio::from(both.or_fail(format!("open {}", path.display())))
        }
    }
}
