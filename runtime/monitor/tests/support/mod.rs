// SPDX-License-Identifier: Apache-2.0
//! A pod for tests: the real monitor, started as the daemon starts it, with busybox containers.
//!
//! Everything is made below one temporary directory and one cgroup of this test's own. Dropping a
//! [`Pod`] ends the monitor and fails the test when a cgroup or a process of the pod is left.
//!
//! Not here: what is expected.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the tests and the measurement each use a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "only tests call this: a panic is their way to fail"
)]

mod client;

pub use client::{Client, frame};

use hull_cgroup::{Cgroup, CgroupFs};
use hull_init::plan::{
    Attrs, Capabilities, Cgroup as PlannedCgroup, IdMaps, Namespace, Namespaces, Op, Source,
};
use hull_init::{PausePlan, Plan, Process};
use hull_proto::id::{ContainerId, PodId};
use hull_proto::monitor::{
    Command, LISTEN_FD, PAUSE_FD, Request, Response, SLOT_SHM, Started, Stdio, VERSION,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything, far above what it takes.
pub const WAIT: Duration = Duration::from_secs(20);
const BUSYBOX: &str = "/bin/busybox";

/// Pipes, no stdin.
pub const PIPES: Stdio = Stdio { log: true, tty: false, stdin: false, stdin_once: false };

/// Looks until `look` gives something; panics with `what` when that takes too long.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WAIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "never came: {what}");
        let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        let _nothing = poll(&mut [], Some(&pause));
    }
}

/// Whether this machine can run the tests; says loudly what is missing, and fails where they must.
pub fn can_run() -> bool {
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
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "this machine lacks {missing}");
    println!("NOT RUN: this machine lacks {missing}");
    false
}

/// A pod with its monitor.
#[derive(Debug)]
pub struct Pod {
    pub id: PodId,
    pub pid: Pid,
    pidfd: OwnedFd,
    pub dir: tempfile::TempDir,
    socket: PathBuf,
    pub host: CgroupFs,
    /// The cgroup that everything of this pod is made in.
    pub cgroup: String,
    /// Processes that must be gone in the end.
    seen: std::cell::RefCell<Vec<OwnedFd>>,
    ended: bool,
    /// Last, also when the pod's own end fails the test.
    _swept: Swept,
}

/// Takes the test's cgroup away, with what is in it.
#[derive(Debug)]
struct Swept(Cgroup);

impl Drop for Swept {
    fn drop(&mut self) {
        // Only a test that fails already has anything in here that might not go.
        let _best_effort = self.0.kill_and_remove(WAIT);
    }
}

fn random<T>(make: fn([u8; 32]) -> T) -> T {
    let mut bytes = [0; 32];
    hull_sys::random(&mut bytes);
    make(bytes)
}

/// An id that no other container has.
pub fn container_id() -> ContainerId {
    random(ContainerId::from_random)
}

impl Pod {
    /// Starts the monitor behind `program`. `None` when this machine cannot.
    pub fn start(program: &Path) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !can_run() {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("hull-monitor-").tempdir().unwrap();
        root_filesystem(&dir.path().join("image"));
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("shared")).unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/hull-test-{}-monitor-{number}", std::process::id());
        let socket = dir.path().join("monitor.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let exe = File::open(program).unwrap();
        let id = random(PodId::from_random);
        let pause = pause_program(dir.path());
        let fds = [(listener.as_fd(), LISTEN_FD), (pause.as_fd(), PAUSE_FD)];
        let pid =
            hull_sys::spawn_program(exe.as_fd(), &["hull-monitor", id.as_str()], &fds).unwrap();
        let pid = Pid::from_raw(pid).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let host = CgroupFs::detect().unwrap();
        let _swept = Swept(Cgroup::at(&host, &cgroup).unwrap());
        Some(Self {
            id,
            pid,
            pidfd,
            dir,
            socket,
            host,
            cgroup,
            seen: Vec::new().into(),
            ended: false,
            _swept,
        })
    }

    /// Connects as a daemon does.
    pub fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// Connects and says nothing.
    pub fn stranger(&self) -> Client {
        Client::stranger(&self.socket)
    }

    /// Where the monitor listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A directory of the host that every container sees as /shared.
    pub fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    pub fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// Opens a log as the daemon does.
    pub fn log_file(&self, id: &ContainerId) -> OwnedFd {
        File::options().append(true).create(true).open(self.log_path(id)).unwrap().into()
    }

    pub fn container_cgroup(&self, id: &ContainerId) -> Cgroup {
        Cgroup::at(&self.host, &format!("{}/{id}", self.cgroup)).unwrap()
    }

    /// A container that runs `script` in busybox's shell, in its own mount and pid namespace.
    pub fn plan(&self, id: &ContainerId, script: &str) -> Plan {
        let layer = |name: &str| {
            let path = self.dir.path().join(format!("{id}-{name}"));
            fs::create_dir(&path).unwrap();
            path.display().to_string()
        };
        let at = self.dir.path().join("root").display().to_string();
        let image = self.dir.path().join("image").display().to_string();
        let upper = Some((layer("upper"), layer("work")));
        let shared = Source::Host(self.shared().display().to_string());
        let ops = vec![
            Op::RootOverlay { lower: vec![image], upper, options: Vec::new(), at },
            mount("proc", "/proc"),
            bind(shared, "/shared"),
            // A shell wants it for what it runs in the background.
            bind(Source::Host("/dev/null".into()), "/dev/null"),
            Op::Pivot,
        ];
        let namespaces =
            Namespaces { mount: Namespace::New, pid: Namespace::New, ..Namespaces::default() };
        let path = format!("{}/{id}", self.cgroup);
        Plan {
            namespaces,
            id_maps: IdMaps::default(),
            cgroup: PlannedCgroup { path, ..PlannedCgroup::default() },
            ops,
            process: shell(script),
        }
    }

    /// Starts a container and gives its process.
    pub fn run(&self, client: &mut Client, id: &ContainerId, script: &str) -> Started {
        let plan = self.plan(id, script);
        self.run_plan(client, id, &plan, PIPES)
    }

    pub fn run_plan(
        &self,
        client: &mut Client,
        id: &ContainerId,
        plan: &Plan,
        stdio: Stdio,
    ) -> Started {
        let command = start(id, plan, stdio);
        let log = self.log_file(id);
        let fds = if stdio.log { vec![log.as_fd()] } else { Vec::new() };
        let Response::Started(started) = client.ask(command, &fds).unwrap() else {
            panic!("a start was answered with something else")
        };
        self.must_end(started.pid);
        started
    }

    /// Starts the pause process.
    pub fn run_pause(&self, client: &mut Client) -> Started {
        let asked = self.send_pause(client);
        let Response::Started(started) = client.answer(asked).unwrap() else {
            panic!("a start was answered with something else")
        };
        self.must_end(started.pid);
        started
    }

    /// Asks for the pause process and gives the request's number.
    pub fn send_pause(&self, client: &mut Client) -> u64 {
        let plan = borsh::to_vec(&self.pause_plan()).unwrap();
        client.send(Command::StartPause { plan, netns: false }, &[])
    }

    fn pause_plan(&self) -> PausePlan {
        let (ipc, uts) = (Namespace::New, Namespace::New);
        PausePlan {
            namespaces: Namespaces { ipc, uts, mount: Namespace::New, ..Namespaces::default() },
            id_maps: IdMaps::default(),
            cgroup: PlannedCgroup {
                path: format!("{}/pause", self.cgroup),
                ..PlannedCgroup::default()
            },
            hostname: Some("test-pod".into()),
            sysctls: Vec::new(),
            shm_bytes: 1 << 20,
            uid: 65_535,
            gid: 65_535,
            oom_score_adj: None,
        }
    }

    /// Notes a process that must be gone when the pod is.
    pub fn must_end(&self, pid: i32) {
        // One that has ended and was reaped already is what is wanted.
        if let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
            self.seen.borrow_mut().push(pidfd);
        }
    }

    /// The log as it is now; its last line may be on its way.
    pub fn raw_log(&self, id: &ContainerId) -> Vec<u8> {
        fs::read(self.log_path(id)).unwrap_or_default()
    }

    /// The program's output to `stream`, from its log, with pieces of lines joined.
    pub fn output(&self, id: &ContainerId, stream: &str) -> Vec<u8> {
        output(&self.raw_log(id), stream)
    }

    /// The direct sub-cgroups that are there.
    pub fn cgroups(&self) -> Vec<String> {
        hull_cgroup::children(&self.host, &self.cgroup).unwrap()
    }

    /// Waits for the monitor's own end and gives its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        assert!(is_over(&self.pidfd, WAIT), "the monitor does not end");
        let (_, status) = waitpid(Some(self.pid), WaitOptions::empty()).unwrap().unwrap();
        self.ended = true;
        status.exit_status()
    }

    /// Whether the monitor has ended by now.
    pub fn is_over(&self) -> bool {
        is_over(&self.pidfd, Duration::ZERO)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing && !self.ended {
            let _ended = pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _reaped = waitpid(Some(self.pid), WaitOptions::empty());
        } else if !self.ended {
            // With everything forgotten and no daemon there it may be ending by itself.
            if let Ok(mut stream) = UnixStream::connect(&self.socket) {
                let hello = Request { id: 1, command: Command::Hello { version: VERSION } };
                let shutdown = Request { id: 2, command: Command::Shutdown };
                let _ending = stream.write_all(&[frame(&hello), frame(&shutdown)].concat());
                assert_eq!(self.wait(), Some(0));
                drop(stream);
            } else {
                assert_eq!(self.wait(), Some(0));
            }
        }
        let left = hull_cgroup::children(&self.host, &self.cgroup).unwrap_or_default();
        if !failing {
            assert!(left.is_empty(), "cgroups left behind: {left:?}");
            let running =
                self.seen.borrow().iter().filter(|pidfd| !is_over(pidfd, Duration::ZERO)).count();
            assert_eq!(running, 0, "processes left behind");
        }
    }
}

fn is_over(pidfd: &OwnedFd, wait: Duration) -> bool {
    let wait = Timespec::try_from(wait).unwrap();
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).unwrap() == 1
}

pub fn start(id: &ContainerId, plan: &Plan, stdio: Stdio) -> Command {
    Command::StartContainer { container: id.clone(), plan: borsh::to_vec(plan).unwrap(), stdio }
}

pub fn mount(fstype: &str, target: &str) -> Op {
    Op::Mount {
        fstype: fstype.into(),
        source: fstype.into(),
        target: target.into(),
        attrs: Attrs::default(),
        options: Vec::new(),
        copy_up: false,
    }
}

pub fn bind(source: Source, target: &str) -> Op {
    Op::Bind {
        source,
        target: target.into(),
        recursive: false,
        attrs: Attrs::default(),
        recursive_attrs: Attrs::default(),
        clear: Attrs::default(),
        propagation: None,
        id_maps: None,
    }
}

/// The pod's /dev/shm, mounted at /dev/shm.
pub fn bind_shm() -> Op {
    bind(Source::Slot(SLOT_SHM), "/dev/shm")
}

/// A shell that runs `script`.
pub fn shell(script: &str) -> Process {
    program(&["/bin/sh", "-c", script])
}

pub fn program(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        umask: None,
        capabilities: Capabilities::default(),
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

/// The output to `stream`, from a log's text.
pub fn output(log: &[u8], stream: &str) -> Vec<u8> {
    let mut output = Vec::new();
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let shown = String::from_utf8_lossy(line);
        let line = line.strip_suffix(b"\n").unwrap_or_else(|| panic!("a line was cut: {shown:?}"));
        let words: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
        let [time, of, tag, content] = words[..] else { panic!("no log line: {shown:?}") };
        assert_eq!((time.len(), time.last()), (30, Some(&b'Z')), "{shown:?}");
        if of != stream.as_bytes() {
            continue;
        }
        output.extend_from_slice(content);
        match tag {
            b"F" => output.push(b'\n'),
            b"P" => {}
            _ => panic!("no log line: {shown:?}"),
        }
    }
    output
}

/// A root file system with busybox in it.
fn root_filesystem(at: &Path) {
    for dir in ["bin", "dev", "proc", "shared", "tmp"] {
        fs::create_dir_all(at.join(dir)).unwrap();
    }
    fs::copy(BUSYBOX, at.join("bin/busybox")).unwrap();
    for applet in
        ["sh", "cat", "dd", "echo", "head", "kill", "mkfifo", "seq", "sleep", "stty", "true", "yes"]
    {
        symlink("busybox", at.join("bin").join(applet)).unwrap();
    }
}

/// The real pause program: the one that $PAUSE_PROGRAM names, on a machine without a compiler; else
/// built here. It needs no crate, so the compiler alone will do.
fn pause_program(dir: &Path) -> OwnedFd {
    static BUILT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let bytes = BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("PAUSE_PROGRAM") {
            return fs::read(path).unwrap();
        }
        let out = dir.join("pause");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../sys/src/bin/pause.rs");
        let built = std::process::Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "-C",
                "panic=abort",
                "-C",
                "opt-level=s",
                "-C",
                "relocation-model=static",
            ])
            .args([
                "-C",
                "target-feature=+crt-static",
                "-C",
                "link-args=-nostartfiles -nostdlib -static",
            ])
            .arg("-o")
            .args([out.as_os_str(), source.as_ref()])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        fs::read(out).unwrap()
    });
    hull_sys::sealed_memfd("pause", bytes).unwrap()
}
