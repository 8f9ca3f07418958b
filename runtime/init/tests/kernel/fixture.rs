// SPDX-License-Identifier: Apache-2.0
//! A busybox root and a cgroup for one test; starting, waiting, and looking for what was left.

use hull_cgroup::{Cgroup, CgroupFs};
use hull_init::plan::{
    Attrs, Capabilities, Cgroup as PlannedCgroup, IdMaps, Namespace, Namespaces, Op, Source,
};
use hull_init::{ExecTarget, Io, LaunchOptions, PendingProcess, Plan, Process, StepError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSYBOX: &str = "/bin/busybox";
/// Longest wait for anything, far above what it takes.
const WAIT: Duration = Duration::from_secs(20);

/// The tools and rights that this machine lacks for the tests.
pub(crate) fn missing() -> Option<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !Path::new(BUSYBOX).is_file() {
        missing.push(format!("{BUSYBOX} (package busybox-static)"));
    }
    if let Err(err) = CgroupFs::detect() {
        missing.push(format!("cgroups ({err})"));
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// Nothing that a test mounts is ever seen on the host.
pub(crate) fn own_mount_namespace() {
    hull_sys::unshare(hull_sys::flags::NEWNS).unwrap();
    change_root_propagation(1 << 19);
}

fn change_root_propagation(propagation: u64) {
    let root = File::open("/").unwrap();
    let attr = hull_sys::Attr { propagation, ..hull_sys::Attr::default() };
    hull_sys::mount_setattr(root.as_fd(), true, &attr).unwrap();
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Everything of one test.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: CgroupFs,
    cgroup: String,
    count: Cell<u32>,
    mounts: String,
}

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; 128 and the signal's number for one that was killed.
    pub(crate) code: i32,
    /// Its output on stdout and stderr, without the last line's end.
    pub(crate) out: String,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroup: String,
    id_maps: Option<IdMaps>,
    out: File,
    /// Closed, ends `cat` in the container.
    stdin: Option<OwnedFd>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let mounts = mounts();
        let dir = tempfile::Builder::new().prefix("hull-init-").tempdir().unwrap();
        let this = Self {
            dir,
            host: CgroupFs::detect().unwrap(),
            cgroup: format!("/hull-test-{}-init", std::process::id()),
            count: Cell::new(0),
            mounts,
        };
        for name in
            ["image/bin", "image/proc", "image/dev", "image/etc", "image/tmp", "root", "outside"]
        {
            fs::create_dir_all(this.path(name)).unwrap();
        }
        fs::copy(BUSYBOX, this.path("image/bin/busybox")).unwrap();
        let applets = std::process::Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox")
        {
            symlink("busybox", this.path("image/bin").join(applet)).unwrap();
        }
        this
    }

    /// A path of the host that is this test's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn number(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// The overlay of the image with an upper layer of its own.
    pub(crate) fn overlay(&self) -> Op {
        let number = self.number();
        let layer = |name: &str| {
            let path = self.path(&format!("{name}-{number}"));
            fs::create_dir(&path).unwrap();
            path.display().to_string()
        };
        Op::RootOverlay {
            lower: vec![self.text("image")],
            upper: Some((layer("upper"), layer("work"))),
            options: Vec::new(),
            at: self.text("root"),
        }
    }

    /// A container that runs `script`: overlay, proc, `ops`, pivot; mount, pid, ipc, uts, net and cgroup
    /// namespaces of its own.
    pub(crate) fn plan(&self, script: &str, ops: Vec<Op>) -> Plan {
        let new = Namespace::New;
        let mut all = vec![self.overlay(), mount("proc", "/proc")];
        all.extend(ops);
        all.push(Op::Pivot);
        Plan {
            namespaces: Namespaces {
                mount: new.clone(),
                pid: new.clone(),
                net: new.clone(),
                ipc: new.clone(),
                uts: new.clone(),
                cgroup: new,
                ..Namespaces::default()
            },
            id_maps: IdMaps::default(),
            cgroup: self.planned_cgroup(),
            ops: all,
            process: shell(script),
        }
    }

    pub(crate) fn planned_cgroup(&self) -> PlannedCgroup {
        PlannedCgroup {
            path: format!("{}/{}", self.cgroup, self.number()),
            ..PlannedCgroup::default()
        }
    }

    /// Starts a container and waits until its program runs, or a step has failed.
    pub(crate) fn start(&self, plan: &Plan, slots: &[OwnedFd]) -> Result<Running, StepError> {
        self.start_as(plan, slots, &LaunchOptions::default())
    }

    /// As `start`, with options.
    pub(crate) fn start_as(
        &self,
        plan: &Plan,
        slots: &[OwnedFd],
        how: &LaunchOptions<'_>,
    ) -> Result<Running, StepError> {
        let (ours, stdin, out, io) = streams();
        let starting = hull_init::launch(&self.host, plan, io, slots, how)?;
        drop(stdin);
        let mut running = running(starting, out, Some(ours), &plan.cgroup.path)?;
        running.id_maps =
            (plan.namespaces.user != Namespace::Inherit).then(|| plan.id_maps.clone());
        Ok(running)
    }

    /// Runs a container to its end.
    #[track_caller]
    pub(crate) fn run(&self, plan: &Plan) -> Ended {
        match self.start(plan, &[]) {
            Ok(running) => running.wait(),
            Err(error) => panic!("not started: {error:?}"),
        }
    }

    /// Runs `script` in a container with `ops`, and gives what it said. It must succeed.
    #[track_caller]
    pub(crate) fn says(&self, script: &str, ops: Vec<Op>) -> String {
        let ended = self.run(&self.plan(script, ops));
        assert_eq!(ended.code, 0, "{}", ended.out);
        ended.out
    }

    /// Runs a container on these streams; its exit code.
    pub(crate) fn run_on(&self, plan: &Plan, streams: [OwnedFd; 3]) -> Result<i32, StepError> {
        let [stdin, stdout, stderr] = streams;
        let io = Io::Streams { stdin, stdout, stderr };
        let mut starting = hull_init::spawn(&self.host, plan, io, &[])?;
        outcome(&mut starting)?;
        Ok(wait(starting.pidfd.as_fd()))
    }

    /// Runs a container with this input; what it wrote.
    pub(crate) fn run_with_stdin(&self, plan: &Plan, stdin: OwnedFd) -> String {
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let code = self.run_on(plan, [stdin, stdout.try_clone().unwrap(), stdout]);
        let mut text = String::new();
        File::from(out).read_to_string(&mut text).unwrap();
        assert_eq!(code, Ok(0), "{text}");
        text.trim_end().to_owned()
    }

    /// The step at which the start fails.
    #[track_caller]
    pub(crate) fn failure(&self, plan: &Plan) -> StepError {
        match self.start(plan, &[]) {
            Ok(running) => panic!("started: {:?}", running.wait()),
            Err(error) => error,
        }
    }

    /// Runs a further process in a container.
    pub(crate) fn exec(&self, of: &Running, process: &Process) -> Result<Ended, StepError> {
        let (ours, stdin, out, io) = streams();
        let starting = hull_init::exec(&self.host, &of.target(), process, &io)?;
        drop((io, stdin));
        running(starting, out, Some(ours), &of.cgroup).map(Running::wait)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Taken away in any case; what must not be there is looked at before.
        let failing = std::thread::panicking();
        let no_children = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        let mut left = Vec::new();
        if let Ok(cgroup) = Cgroup::at(&self.host, &self.cgroup) {
            left = cgroup.procs().unwrap_or_default();
            cgroup.kill_and_remove(WAIT).unwrap();
        }
        // Those of a failed test must not fail the next one too.
        while let Some(_reaped) = hull_sys::reap_any() {}
        if !failing {
            assert_eq!(no_children.err(), Some(rustix::io::Errno::CHILD), "children left behind");
            assert!(left.is_empty(), "processes left behind: {left:?}");
            assert_eq!(mounts(), self.mounts, "mounts left behind");
        }
    }
}

/// Gives the container a user namespace of its own.
pub(crate) fn mapped_root(plan: &mut Plan) {
    plan.namespaces.user = Namespace::New;
    plan.id_maps = crate::users::maps(100_000);
}

/// Our side of stdin, a spare of theirs, our side of the output, and what the process gets.
fn streams() -> (OwnedFd, OwnedFd, File, Io) {
    let (stdin, ours) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let io = Io::Streams {
        stdin: stdin.try_clone().unwrap(),
        stderr: stdout.try_clone().unwrap(),
        stdout,
    };
    (ours, stdin, out.into(), io)
}

/// Waits for the status pipe.
pub(crate) fn outcome(starting: &mut PendingProcess) -> Result<(), StepError> {
    loop {
        readable(starting.status.as_fd());
        match starting.poll() {
            Some(Err(error)) => {
                // Also who made it.
                let _known = starting.wait();
                wait(starting.pidfd.as_fd());
                return Err(error);
            }
            Some(Ok(())) => return starting.wait(),
            None => {}
        }
    }
}

fn running(
    mut starting: PendingProcess,
    out: File,
    stdin: Option<OwnedFd>,
    cgroup: &str,
) -> Result<Running, StepError> {
    outcome(&mut starting)?;
    let PendingProcess { pid, pidfd, .. } = starting;
    Ok(Running { pid, pidfd, cgroup: cgroup.to_owned(), id_maps: None, out, stdin })
}

impl Running {
    /// The container as the target of a further process.
    pub(crate) fn target(&self) -> ExecTarget<'_> {
        ExecTarget {
            pidfd: self.pidfd.as_fd(),
            id_maps: self.id_maps.as_ref(),
            cgroup: &self.cgroup,
        }
    }

    /// Closes its input and waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        drop(self.stdin.take());
        let mut out = Vec::new();
        self.out.read_to_end(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap().trim_end_matches('\n').to_owned();
        Ended { code: wait(self.pidfd.as_fd()), out }
    }

    /// Reads one line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }
}

#[track_caller]
fn readable(fd: BorrowedFd<'_>) {
    let wait = Timespec::try_from(WAIT).unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&wait)), Ok(1), "nothing came");
}

/// Waits for a process's end and reaps it.
#[track_caller]
pub(crate) fn wait(pidfd: BorrowedFd<'_>) -> i32 {
    readable(pidfd);
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

/// Whether a process that may be no child of ours has ended.
#[track_caller]
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) {
    readable(pidfd);
}

pub(crate) fn mount(fstype: &str, target: &str) -> Op {
    mount_with(fstype, target, &[])
}

pub(crate) fn mount_with(fstype: &str, target: &str, options: &[(&str, &str)]) -> Op {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned())));
    Op::Mount {
        fstype: fstype.into(),
        source: fstype.into(),
        target: target.into(),
        attrs: Attrs::default(),
        options: options.collect(),
        copy_up: false,
    }
}

pub(crate) fn bind(source: &str, target: &str) -> Op {
    bind_of(Source::Host(source.into()), target)
}

pub(crate) fn bind_of(source: Source, target: &str) -> Op {
    Op::Bind {
        source,
        target: target.into(),
        recursive: true,
        attrs: Attrs::default(),
        recursive_attrs: Attrs::default(),
        clear: Attrs::default(),
        propagation: None,
        id_maps: None,
    }
}

pub(crate) fn device(path: &str, major: u32, minor: u32) -> Op {
    Op::Device {
        path: path.into(),
        block: false,
        fifo: false,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

pub(crate) fn shell(script: &str) -> Process {
    program(&["/bin/sh", "-c", script])
}

pub(crate) fn program(args: &[&str]) -> Process {
    // What Docker gives, and SYS_ADMIN never.
    let usual = 0xa804_25fb;
    Process {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        umask: None,
        capabilities: Capabilities {
            bounding: usual,
            effective: usual,
            permitted: usual,
            ..Capabilities::default()
        },
        no_new_privs: true,
        seccomp: None,
        apparmor: None,
        selinux: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        terminal: None,
        io_priority: None,
        scheduler: None,
        personality: None,
    }
}
