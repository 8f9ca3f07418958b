// SPDX-License-Identifier: Apache-2.0
//! Execs: their streams, their exits, their descriptors.

use crate::support::{PIPES, container_id, eventually, program, shell};
use crate::{pod, step_of};
use hull_init::Step;
use hull_init::plan::Namespace;
use hull_proto::monitor::{Command, ExitHow, Failure, Response, Target, VERSION};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

#[test]
fn an_exec_has_its_own_streams_and_exit_code() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    let (read, write) = pipe();
    let done = daemon.exec(
        &id,
        40,
        &shell("echo in $$; cat /proc/1/cmdline; exit 12"),
        Some(write.as_fd()),
    );
    assert!(matches!(done, Ok(Response::Started(_))), "{done:?}");
    drop(write);
    assert_eq!(daemon.exec_exit(40).how, ExitHow::Code(12));
    let text = read_all(read);
    assert!(text.starts_with("in ") && text.contains("sleep 100"), "{text:?}");
    assert_eq!(pod.output(&id, "stdout"), b"", "the monitor is not in the data path");

    daemon.exec(&id, 41, &shell("kill -KILL $$"), None).unwrap();
    assert_eq!(daemon.exec_exit(41).how, ExitHow::Signal(9));
    let failed = step_of(daemon.exec(&id, 42, &program(&["/no/such"]), None).unwrap_err());
    assert_eq!((failed.step, failed.errno), (Step::Exec, rustix::io::Errno::NOENT.raw_os_error()));
    assert_eq!(
        daemon.exec(&container_id(), 43, &shell("true"), None),
        Err(Failure::NoSuchContainer)
    );
    daemon.exec(&id, 44, &shell("sleep 100"), None).unwrap();
    assert_eq!(daemon.exec(&id, 44, &shell("true"), None), Err(Failure::AlreadyExists));
    let stop = Command::Signal { target: Target::Exec(44), signal: 9 };
    assert_eq!(daemon.ask(stop, &[]), Ok(Response::Ok));
    assert_eq!(daemon.exec_exit(44).how, ExitHow::Signal(9));
}

/// Also one that joined the container while it was ending.
#[test]
fn execs_end_with_their_container() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let mut plan = pod.plan(&id, "while :; do sleep 100; done");
    plan.namespaces.pid = Namespace::Inherit;
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    daemon.exec(&id, 1, &shell("while :; do sleep 100; done"), None).unwrap();
    let kill = Command::Signal { target: Target::Container(id.clone()), signal: 9 };
    assert_eq!(daemon.ask(kill, &[]), Ok(Response::Ok));
    assert_eq!(daemon.exit(&id).how, ExitHow::Signal(9));
    assert_eq!(daemon.exec_exit(1).how, ExitHow::Signal(9));
    assert_eq!(daemon.exec(&id, 2, &shell("true"), None), Err(Failure::NotRunning));
}

/// Descriptors that a request has no use for must not end up with the next one.
#[test]
fn surplus_descriptors_are_closed() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    let (surplus, given) = pipe();
    let hello = Command::Hello { version: VERSION };
    daemon.ask(hello, &[given.as_fd(), given.as_fd()]).unwrap();
    drop(given);
    assert_eq!(read_all(surplus), "", "closed, so the pipe has ended");
    let (read, write) = pipe();
    daemon.exec(&id, 1, &shell("echo mine"), Some(write.as_fd())).unwrap();
    drop(write);
    assert_eq!(read_all(read), "mine\n");
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// Reads until no one holds the other end any more.
fn read_all(from: OwnedFd) -> String {
    rustix::io::ioctl_fionbio(&from, true).unwrap();
    let (mut file, mut bytes) = (File::from(from), Vec::new());
    eventually("the end of the pipe", || match file.read_to_end(&mut bytes) {
        Ok(_) => Some(()),
        Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => None,
        Err(err) => panic!("cannot read: {err}"),
    });
    String::from_utf8(bytes).unwrap()
}
