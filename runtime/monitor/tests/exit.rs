// SPDX-License-Identifier: Apache-2.0
//! Ends that take long: the monitor waits for the kernel to report them, and serves other requests meanwhile. And
//! reports of output that cannot be logged.
//!
//! A process that SIGKILL does not end is one that a v1 freezer holds; there is no such thing in v2.

#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]
#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test wants one case and passes over the rest"
)]

mod support;

use hull_cgroup::{Cgroup, Limits};
use hull_init::plan::Namespace;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, Event, ExitHow, Failure, Request, Response, VERSION_LOG_LOST};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{self, Child};
use support::{Client, PIPES, Pod, container_id, eventually, frame, program, shell, start};

fn pod() -> Option<Pod> {
    Pod::start(Path::new(env!("CARGO_BIN_EXE_hull-monitor")))
}

/// A process in a cgroup that SIGKILL ends only once it is thawed.
struct Frozen {
    process: Child,
    freezer: PathBuf,
}

impl Frozen {
    /// `None` on a host without a v1 freezer.
    fn hold(pod: &Pod, cgroup: &Cgroup) -> Option<Self> {
        let is_freezer = |controllers: &[String]| controllers.iter().any(|name| name == "freezer");
        let root = pod.host.hierarchies().iter().find(|of| is_freezer(&of.controllers));
        let Some(root) = root else {
            println!("NOT RUN: no v1 freezer here, and v2 has nothing that SIGKILL does not end");
            return None;
        };
        let freezer = root.mountpoint.join(format!("hull-test-frozen-{}", std::process::id()));
        fs::create_dir(&freezer).unwrap();
        let process =
            process::Command::new("/bin/busybox").args(["sleep", "1000"]).spawn().unwrap();
        let pid = process.id().cast_signed();
        cgroup.create(&Limits::default()).unwrap();
        cgroup.add(pid, true).unwrap();
        fs::write(freezer.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(freezer.join("freezer.state"), "FROZEN").unwrap();
        let frozen = Self { process, freezer };
        eventually("it is frozen", || (frozen.state() == "FROZEN").then_some(()));
        Some(frozen)
    }

    fn state(&self) -> String {
        fs::read_to_string(self.freezer.join("freezer.state")).unwrap().trim().to_owned()
    }

    /// Requests that are sent meanwhile take effect.
    fn thaw(&self) {
        fs::write(self.freezer.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
        fs::remove_dir(&self.freezer).unwrap();
    }
}

/// How often the monitor fell asleep so far.
fn sleeps(pod: &Pod) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_failed_start_that_leaves_something_holds_up_nobody() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let Some(frozen) = Frozen::hold(&pod, &pod.container_cgroup(&id)) else { return };
    let mut plan = pod.plan(&id, "exit 0");
    plan.process = program(&["/no/such/program"]);
    let log = pod.log_file(&id);
    let failing = daemon.send(start(&id, &plan, PIPES), &[log.as_fd()]);
    eventually("the monitor has given it up", || {
        let known = daemon.hello().containers.iter().any(|(of, _)| *of == id);
        (!known).then_some(())
    });
    let answered = |daemon: &Client| daemon.strays.iter().any(|(request, _)| *request == failing);
    assert!(!answered(&daemon), "answered while it is still there");
    let other = container_id();
    pod.run(&mut daemon, &other, "exit 3");
    assert_eq!(daemon.exit(&other).how, ExitHow::Code(3));
    assert!(!answered(&daemon), "answered while it is still there");
    frozen.thaw();
    daemon.answer(failing).unwrap_err();
    assert!(!pod.container_cgroup(&id).exists().unwrap(), "it is gone when that is reported");
    daemon.ask(Command::Delete { container: other }, &[]).unwrap();
}

#[test]
fn an_end_that_takes_long_is_slept_through() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id, other) = (pod.connect(), container_id(), container_id());
    pod.run(&mut daemon, &other, "while :; do sleep 1000; done");
    let mut plan = pod.plan(&id, "read go < /shared/go; exit 4");
    plan.namespaces.pid = Namespace::Inherit;
    let go = pod.shared().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    let Some(frozen) = Frozen::hold(&pod, &pod.container_cgroup(&id)) else { return };
    File::options().write(true).open(&go).unwrap().write_all(b"go\n").unwrap();
    // Its output is closed by then, and the room for that given back.
    let first = container_id();
    pod.run(&mut daemon, &first, "sleep 0.3");
    daemon.exit(&first);
    let before = sleeps(&pod);
    daemon.exec(&other, 1, &shell("sleep 0.5"), None).unwrap();
    daemon.exec_exit(1);
    let slept = sleeps(&pod) - before;
    assert!(slept < 50, "it woke {slept} times in half a second");
    frozen.thaw();
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(4));
}

fn lost(daemon: &mut Client, id: &ContainerId) -> (u64, i32) {
    daemon.event(|event| match event {
        Event::LogLost { container, bytes, errno } if container == id => Some((*bytes, *errno)),
        _ => None,
    })
}

#[test]
fn output_that_is_not_logged_is_told_of() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    daemon.hello();
    let go = pod.shared().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let plan = pod.plan(&id, "echo lost; read go < /shared/go; echo kept; exit 6");
    let full = File::options().append(true).open("/dev/full").unwrap();
    daemon.ask(start(&id, &plan, PIPES), &[full.as_fd()]).unwrap();
    let line = u64::try_from("2016-10-06T00:17:09.669794202Z stdout F lost\n".len()).unwrap();
    let no_space = rustix::io::Errno::NOSPC.raw_os_error();
    assert_eq!(lost(&mut daemon, &id), (line, no_space));
    // A later daemon gets the report as well.
    let mut daemon = pod.connect();
    daemon.hello();
    assert_eq!(lost(&mut daemon, &id), (line, no_space));
    let log = pod.log_file(&id);
    daemon.ask(Command::ReopenLog { container: id.clone() }, &[log.as_fd()]).unwrap();
    File::options().write(true).open(&go).unwrap().write_all(b"go\n").unwrap();
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(6));
    assert_eq!(pod.output(&id, "stdout"), b"kept\n");
}

#[test]
fn all_that_was_lost_is_told_before_the_end() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    daemon.hello();
    let plan = pod.plan(&id, "seq 1 300000; exit 6");
    let full = File::options().append(true).open("/dev/full").unwrap();
    daemon.ask(start(&id, &plan, PIPES), &[full.as_fd()]).unwrap();
    let head = "2016-10-06T00:17:09.669794202Z stdout F ".len();
    let all: usize = (1..=300_000).map(|number: u32| head + number.to_string().len() + 1).sum();
    let mut told = 0;
    let mut events = 0;
    loop {
        match daemon.event(|event| Some(event.clone())) {
            Event::LogLost { bytes, .. } => {
                events += 1;
                told = bytes;
            }
            Event::LastOutput(..) => {}
            Event::ContainerExited(..) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, u64::try_from(all).unwrap());
    assert!(events <= 3, "told {events} times");
}

#[test]
fn the_end_of_a_failures_output_comes_before_its_exit() {
    let Some(pod) = pod() else { return };
    let mut daemon = pod.connect();
    daemon.hello();
    let ended = |daemon: &mut Client, script: &str| {
        let id = container_id();
        pod.run(daemon, &id, script);
        let output = daemon.event(|event| match event {
            Event::LastOutput(of, output) if *of == id => Some(Some(output.clone())),
            Event::ContainerExited(of, _) if *of == id => Some(None),
            _ => None,
        });
        (id, output)
    };
    let (id, output) = ended(&mut daemon, "seq 1 5000; echo why >&2; exit 7");
    let output = output.unwrap();
    assert_eq!(output.stderr, b"why\n");
    assert!(output.stdout.ends_with(b"4999\n5000\n") && output.stdout.len() <= 4096);
    // A daemon that was not there asks for it.
    daemon.exit(&id);
    let kept = daemon.ask(Command::LastOutput { container: id }, &[]);
    assert_eq!(kept, Ok(Response::LastOutput(output)));
    assert_eq!(
        daemon.ask(Command::LastOutput { container: container_id() }, &[]),
        Err(Failure::NoSuchContainer)
    );
    for script in ["echo all is well", "exit 7"] {
        assert_eq!(ended(&mut daemon, script).1, None, "{script}");
    }
}

#[test]
fn a_running_container_that_runs_out_of_memory_is_reported() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    daemon.hello();
    let go = pod.shared().join("go");
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let hungry = "x=a; while true; do x=$x$x$x$x; done";
    let mut plan = pod.plan(&id, &format!("sh -c '{hungry}'; read go < /shared/go; exit 5"));
    plan.cgroup.limits.memory_bytes = Some(16 << 20);
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    daemon.event(|event| match event {
        Event::OutOfMemory { container, .. } if *container == id => Some(()),
        _ => None,
    });
    File::options().write(true).open(&go).unwrap().write_all(b"go\n").unwrap();
    let exit = daemon.exit(&id);
    assert_eq!((exit.how, exit.oom_kills), (ExitHow::Code(5), 1));
}

/// It could not read what comes behind a message that it does not know.
#[test]
fn an_older_daemon_is_told_only_what_it_knows() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let hello = Request { id: 1000, command: Command::Hello { version: VERSION_LOG_LOST - 1 } };
    daemon.stream.write_all(&frame(&hello)).unwrap();
    daemon.answer(1000).unwrap();
    let plan = pod.plan(&id, "echo lost; exit 6");
    let full = File::options().append(true).open("/dev/full").unwrap();
    daemon.ask(start(&id, &plan, PIPES), &[full.as_fd()]).unwrap();
    let first = daemon.event(|event| Some(event.clone()));
    assert!(matches!(first, Event::ContainerExited(..)), "{first:?}");
}
