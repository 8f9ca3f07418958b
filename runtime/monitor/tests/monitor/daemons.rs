// SPDX-License-Identifier: Apache-2.0
//! Daemons that come and go: state is kept, and answers reach only the daemon that sent the request.

use crate::support::{PIPES, container_id, eventually, start};
use crate::{empty_plan, go, on_hold, pod, process_state, seq, support};
use hull_proto::monitor::{Command, ExitHow, Failure, ProcessState, Request, Response, VERSION};
use std::fs::{self};
use std::io::Write as _;
use std::os::fd::AsFd as _;

#[test]
fn what_happens_while_no_daemon_is_there_is_kept() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let hold = on_hold(&pod, "go");
    let started = pod.run(&mut daemon, &id, &format!("{hold} seq 1 100000; exit 9"));
    drop(daemon);
    go(&pod, "go");
    let last = b"stdout F 100000\n".as_slice();
    eventually("all output, with nobody connected", || {
        pod.raw_log(&id).ends_with(last).then_some(())
    });
    for _ in 0..3 {
        let mut daemon = pod.connect();
        eventually("the exit", || match process_state(&mut daemon, &id) {
            Some(ProcessState::Exited(of, exit)) => {
                assert_eq!((of, exit.how), (started, ExitHow::Code(9)));
                Some(())
            }
            Some(ProcessState::Running(_)) => None,
            other => panic!("it is {other:?}"),
        });
    }
    assert_eq!(pod.output(&id, "stdout"), seq(100_000));
    let mut daemon = pod.connect();
    for _ in 0..2 {
        assert_eq!(daemon.ask(Command::Delete { container: id.clone() }, &[]), Ok(Response::Ok));
        assert_eq!(process_state(&mut daemon, &id), None);
    }
    assert!(!pod.container_cgroup(&id).exists().unwrap());
}

#[test]
fn a_newer_daemon_replaces_the_older_one() {
    let Some(pod) = pod() else { return };
    let mut old = pod.connect();
    assert_eq!(old.hello().pod, pod.id);
    let mut new = pod.connect();
    assert_eq!(new.hello().monitor_pid, pod.pid.as_raw_nonzero().get());
    assert_eq!(old.message(), None, "the old connection is closed");
}

/// The numbers of requests are each daemon's own: an answer for one that is gone must not reach the
/// next one.
#[test]
fn an_answer_goes_to_the_daemon_that_sent_the_request_or_to_none() {
    let Some(pod) = pod() else { return };
    let (mut old, first) = (pod.connect(), container_id());
    pod.run(&mut old, &first, "while :; do sleep 100; done");
    // A start that hangs: its process is frozen from birth.
    let Some(unified) = pod.host.unified() else {
        assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "this machine lacks a cgroup2 mount");
        return println!("NOT RUN: this machine lacks a cgroup2 mount");
    };
    let freeze = unified.join(pod.cgroup.trim_start_matches('/')).join("cgroup.freeze");
    fs::write(&freeze, "1").unwrap();
    let id = container_id();
    let plan = pod.plan(&id, "exit 4");
    old.send(start(&id, &plan, PIPES), &[pod.log_file(&id).as_fd()]);
    let mut new = pod.connect();
    eventually("the start is known", || {
        (process_state(&mut new, &id) == Some(ProcessState::Starting)).then_some(())
    });
    fs::write(&freeze, "0").unwrap();
    assert_eq!(new.exit(&id).how, ExitHow::Code(4));
    assert_eq!(new.strays, [], "answers to requests of another daemon");
}

/// The kubelet asks its new daemon again for a start that the old one did not live to answer.
#[test]
fn a_start_requested_again_after_a_restart_is_the_same_start() {
    let Some(pod) = pod() else { return };
    let (mut old, hanging, running) = (pod.connect(), container_id(), container_id());
    let started = pod.run(&mut old, &running, "while :; do sleep 100; done");
    let Some(unified) = pod.host.unified() else {
        assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "this machine lacks a cgroup2 mount");
        return println!("NOT RUN: this machine lacks a cgroup2 mount");
    };
    let freeze = unified.join(pod.cgroup.trim_start_matches('/')).join("cgroup.freeze");
    fs::write(&freeze, "1").unwrap();
    let plan = pod.plan(&hanging, "exit 4");
    old.send(start(&hanging, &plan, PIPES), &[pod.log_file(&hanging).as_fd()]);
    let mut new = pod.connect();
    eventually("the start is known", || {
        (process_state(&mut new, &hanging) == Some(ProcessState::Starting)).then_some(())
    });

    let again = new.send(start(&hanging, &plan, PIPES), &[pod.log_file(&hanging).as_fd()]);
    let other = empty_plan(&pod);
    let log = pod.log_file(&running);
    let answer = new.ask(start(&running, &other, PIPES), &[log.as_fd()]);
    assert_eq!(answer, Ok(Response::Started(started)), "it runs since the old daemon's time");
    fs::write(&freeze, "0").unwrap();
    assert!(matches!(new.answer(again), Ok(Response::Started(_))));
    assert_eq!(new.exit(&hanging).how, ExitHow::Code(4));

    // It has ended by the time the next daemon asks.
    let mut third = pod.connect();
    let log = pod.log_file(&hanging);
    let answer = third.ask(start(&hanging, &plan, PIPES), &[log.as_fd()]);
    assert!(matches!(answer, Ok(Response::Started(_))), "{answer:?}");
    assert_eq!(third.exit(&hanging).how, ExitHow::Code(4));
    let log = pod.log_file(&hanging);
    let twice = third.ask(start(&hanging, &plan, PIPES), &[log.as_fd()]);
    assert_eq!(twice, Err(Failure::AlreadyExists), "one daemon asks once");
}

/// Facts are kept for the next one.
#[test]
fn a_daemon_that_does_not_read_is_dropped() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let started = pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    let hello = support::frame(&Request { id: 1, command: Command::Hello { version: VERSION } });
    let many: Vec<u8> = hello.repeat(1000);
    let dropped = (0..1000).any(|_| daemon.stream.write_all(&many).is_err());
    assert!(dropped, "a million answers were kept for it");
    let mut daemon = pod.connect();
    assert_eq!(process_state(&mut daemon, &id), Some(ProcessState::Running(started)));
}

/// A daemon that was killed half-way through starting a pod.
#[test]
fn a_monitor_with_nothing_in_it_ends_with_its_daemon() {
    let Some(mut pod) = pod() else { return };
    let mut daemon = pod.connect();
    daemon.hello();
    assert!(!pod.is_over());
    drop(daemon);
    assert_eq!(pod.wait(), Some(0));
}
