// SPDX-License-Identifier: Apache-2.0
//! Processes that must not get data from a monitor, nor stop it: those that can reach its socket, and those that read
//! its memory in a new process.

#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]
#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

mod support;

use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, ProcessState, Request, Started, VERSION};
use hull_sys::{ForkResult, flags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use support::{Client, PIPES, Pod, container_id, eventually, frame, shell};

/// How a stranger's process ends.
const TURNED_AWAY: i32 = 0;
const ANSWERED: i32 = 1;
const NOT_CONNECTED: i32 = 2;

fn pod() -> Option<Pod> {
    Pod::start(Path::new(env!("CARGO_BIN_EXE_hull-monitor")))
}

fn hello() -> Vec<u8> {
    frame(&Request { id: 1, command: Command::Hello { version: VERSION } })
}

/// A pod that is in use: a daemon, a container and an exec.
struct Busy {
    daemon: Client,
    id: ContainerId,
    started: Started,
}

impl Busy {
    fn make(pod: &Pod) -> Self {
        let (mut daemon, id) = (pod.connect(), container_id());
        let started = pod.run(&mut daemon, &id, "while :; do sleep 100; done");
        daemon.exec(&id, 1, &shell("read line < /shared/go; exit 5"), None).unwrap();
        Self { daemon, id, started }
    }

    /// Nothing has happened to it: the same connection, the container, the exec.
    #[track_caller]
    fn goes_on_untouched(mut self, pod: &Pod) {
        let facts = self.daemon.hello().containers;
        assert_eq!(facts, [(self.id, ProcessState::Running(self.started))]);
        let go = pod.shared().join("go");
        // The exec may not have come to open it yet.
        let mut go = File::options().read(true).write(true).open(go).unwrap();
        go.write_all(b"go\n").unwrap();
        let exit = self.daemon.exec_exit(1);
        assert_eq!(exit.how, hull_proto::monitor::ExitHow::Code(5), "the exec has gone on");
    }
}

fn with_fifo(pod: &Pod) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, pod.shared().join("go"), mode).unwrap();
}

#[test]
fn bytes_that_are_no_hello_end_their_connection_and_nothing_else() {
    let Some(pod) = pod() else { return };
    with_fifo(&pod);
    let busy = Busy::make(&pod);
    let mut huge = 0x7fff_ffff_u32.to_le_bytes().to_vec();
    huge.extend([0; 4096]);
    // Longer than a hello, though not too long for a request.
    let long = [&1000_u32.to_le_bytes()[..], &[0; 1000]].concat();
    let other = frame(&Request { id: 1, command: Command::Shutdown });
    let no_version = frame(&Request { id: 1, command: Command::Hello { version: 0 } });
    for bytes in [&b"hello\n"[..], &[0xff; 64], &[0; 64], &huge, &long, &other, &no_version] {
        let mut stranger = pod.stranger();
        stranger.stream.write_all(bytes).unwrap();
        assert_eq!(stranger.message(), None, "closed after {bytes:?}");
    }
    let hello = hello();
    for length in 1..hello.len() {
        pod.stranger().stream.write_all(&hello[..length]).unwrap();
    }
    busy.goes_on_untouched(&pod);
}

#[test]
fn those_that_say_nothing_keep_nobody_out_and_are_closed_in_time() {
    let Some(pod) = pod() else { return };
    with_fifo(&pod);
    let busy = Busy::make(&pod);
    let mut silent: Vec<Client> = (0..100).map(|_| pod.stranger()).collect();
    // One half of a hello is as little.
    for of in silent.iter_mut().skip(95) {
        of.stream.write_all(&hello()[..3]).unwrap();
    }
    let mut late = pod.stranger();
    late.stream.write_all(&hello()[..5]).unwrap();
    busy.goes_on_untouched(&pod);
    late.stream.write_all(&hello()[5..]).unwrap();
    assert!(late.message().is_some(), "its hello is whole, and in time");
    let mut daemon = pod.connect();
    assert_eq!(daemon.hello().pod, pod.id, "a daemon gets in beside all of them");
    for of in &mut silent {
        assert_eq!(of.message(), None);
    }
    daemon.hello();
}

/// Connects from a process in new namespaces, says hello and waits. Gives how that ended.
fn from_namespaces(pod: &Pod, flags: u64) -> i32 {
    let (address, hello) = (SocketAddrUnix::new(pod.socket()).unwrap(), hello());
    // The child has only this thread, and makes nothing but system calls.
    match hull_sys::clone3(flags, None).unwrap() {
        ForkResult::Child => {
            let ours = socket(AddressFamily::UNIX, SocketType::STREAM, None);
            let Ok(ours) = ours else { hull_sys::exit_now(NOT_CONNECTED) };
            if connect(&ours, &address).is_err() {
                hull_sys::exit_now(NOT_CONNECTED);
            }
            // Refused when it was closed before.
            let _closed = rustix::io::write(&ours, &hello);
            let mut answer = [0; 64];
            match rustix::io::read(&ours, &mut answer) {
                Ok(0) | Err(_) => hull_sys::exit_now(TURNED_AWAY),
                Ok(_) => hull_sys::exit_now(ANSWERED),
            }
        }
        ForkResult::Parent { pidfd, .. } => {
            let until = rustix::event::Timespec::try_from(support::WAIT).unwrap();
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&until)).unwrap();
            if ended == 0 {
                let kill = rustix::process::Signal::KILL;
                rustix::process::pidfd_send_signal(&pidfd, kill).unwrap();
            }
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
            assert_eq!(ended, 1, "it was neither answered nor turned away");
            status.unwrap().exit_status().unwrap()
        }
    }
}

/// As a container does that has the socket's directory for a volume. Root there may be root here.
#[test]
fn only_a_process_in_the_monitors_own_namespaces_may_be_the_daemon() {
    let Some(pod) = pod() else { return };
    with_fifo(&pod);
    let busy = Busy::make(&pod);
    for (flags, what) in [
        (flags::NEWPID, "another pid namespace"),
        (flags::NEWUSER, "another user namespace"),
        (flags::NEWPID | flags::NEWUSER, "both"),
    ] {
        for _ in 0..20 {
            assert_eq!(from_namespaces(&pod, flags), TURNED_AWAY, "{what}");
        }
    }
    busy.goes_on_untouched(&pod);
    // Nothing but the namespaces was wrong with it.
    assert_eq!(from_namespaces(&pod, flags::NEWNS), ANSWERED);
}

/// Whether the process has these bytes anywhere in its memory.
fn has_in_memory(pid: i32, bytes: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    maps.lines().any(|line| {
        let range = line.split_ascii_whitespace().next().unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (start, end) = (number(start), number(end));
        let mut part = vec![0; usize::try_from(end - start).unwrap()];
        // Not of what the kernel keeps for itself ([vvar]).
        memory.read_exact_at(&mut part, start).is_ok()
            && part.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// A newborn process is a copy of the monitor until its exec, and a container with CAP_SYS_PTRACE reads it.
#[test]
fn nothing_of_what_was_started_stays_in_memory() {
    let Some(pod) = pod() else { return };
    let mut daemon = pod.connect();
    let (id, pid) = (container_id(), pod.pid.as_raw_nonzero().get());
    with_fifo(&pod);
    let mut plan =
        pod.plan(&id, "read line < /shared/go; echo $line; echo end; read more < /shared/go");
    // Longer than what is read at a time, too.
    let filler = "x".repeat(9000);
    for secret in ["in-env-of-container", "second-in-env-of-container"] {
        plan.process.env.push(format!("SECRET={secret}-{filler}").into_bytes());
    }
    plan.process.args.push(b"in-args-of-container".to_vec());
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    let mut process = shell("exit 0");
    process.env.push(b"SECRET=in-env-of-exec".to_vec());
    process.args.push(b"in-args-of-exec".to_vec());
    daemon.exec(&id, 1, &process, None).unwrap();
    daemon.exec_exit(1);
    let mut go = File::options().read(true).write(true).open(pod.shared().join("go")).unwrap();
    go.write_all(b"in-output\n").unwrap();
    eventually("its output", || pod.raw_log(&id).ends_with(b" end\n").then_some(()));
    let garbage = Command::StartContainer {
        container: container_id(),
        plan: b"in-a-refused-plan".repeat(10),
        stdio: PIPES,
    };
    let log = pod.log_file(&id);
    assert!(daemon.ask(garbage, &[log.as_fd()]).is_err());
    daemon.hello();
    assert!(has_in_memory(pid, pod.id.as_str().as_bytes()), "its own pod's id is in there");
    for secret in [
        "in-env-of-container",
        "in-args-of-container",
        "in-env-of-exec",
        "in-args-of-exec",
        "in-a-refused-plan",
        "in-output",
        "xxxxxxxxxxxxxxxxxxxxxxxx",
    ] {
        assert!(!has_in_memory(pid, secret.as_bytes()), "`{secret}` is left in memory");
    }
}

/// A newer daemon comes while the older one is in the middle of a request.
#[test]
fn a_daemon_comes_back_after_half_a_request() {
    let Some(pod) = pod() else { return };
    let (mut old, id) = (pod.connect(), container_id());
    let started = pod.run(&mut old, &id, "while :; do sleep 100; done");
    let mut stream: UnixStream = old.stream.try_clone().unwrap();
    stream.write_all(&[200, 0, 0, 0, 1]).unwrap();
    let mut daemon = pod.connect();
    assert_eq!(old.message(), None, "the older one is closed");
    let facts = daemon.hello().containers;
    assert_eq!(facts, [(id, ProcessState::Running(started))]);
    // And one that says what cannot be a request loses its own connection only.
    daemon.stream.write_all(&[0xff; 64]).unwrap();
    assert_eq!(daemon.message(), None);
    eventually("a daemon is back", || {
        matches!(pod.connect().hello().containers[..], [(_, ProcessState::Running(_))])
            .then_some(())
    });
}
