// SPDX-License-Identifier: Apache-2.0
//! The pod as a whole: its /dev/shm, its shutdown, its monitor process.

use crate::pod;
use crate::support::{PIPES, bind_shm, container_id, shell, start};
use hull_init::plan::Namespace;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, Event, ExitHow, Failure, ProcessState, Response, Target};
use std::fs::{self};
use std::os::fd::AsFd as _;

#[test]
fn containers_share_the_shm_of_their_pod() {
    let Some(pod) = pod() else { return };
    let mut daemon = pod.connect();
    let (one, two) = (container_id(), container_id());
    let with_shm = |id: &ContainerId, script: &str| {
        let mut plan = pod.plan(id, script);
        plan.ops.insert(1, bind_shm());
        plan
    };
    let plan = with_shm(&one, "echo shared > /dev/shm/file");
    let log = pod.log_file(&one);
    let early = daemon.ask(start(&one, &plan, PIPES), &[log.as_fd()]);
    assert!(
        matches!(early, Err(Failure::BadRequest(_))),
        "there is no pause process yet: {early:?}"
    );

    let started = pod.run_pause(&mut daemon);
    assert_eq!(daemon.hello().pause, Some(ProcessState::Running(started)));
    pod.run_plan(&mut daemon, &one, &plan, PIPES);
    assert_eq!(daemon.exit(&one).how, ExitHow::Code(0));
    pod.run_plan(&mut daemon, &two, &with_shm(&two, "cat /dev/shm/*"), PIPES);
    assert_eq!(daemon.exit(&two).how, ExitHow::Code(0));
    assert_eq!(pod.output(&two, "stdout"), b"shared\n", "that file, and nothing of the host's");

    let stop = Command::Signal { target: Target::Pause, signal: 9 };
    assert_eq!(daemon.ask(stop, &[]), Ok(Response::Ok));
    let exit = daemon.event(|event| match event {
        Event::PauseExited(exit) => Some(*exit),
        _ => None,
    });
    assert_eq!(exit.how, ExitHow::Signal(9));
    assert_eq!(daemon.hello().pause, Some(ProcessState::Exited(started, exit)));
}

/// The pause process's mount namespace is the host's until it has made its own root.
#[test]
fn the_shm_of_a_starting_pause_process_is_not_passed_on() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let mut plan = pod.plan(&id, "exit 0");
    plan.ops.insert(1, bind_shm());
    let Some(unified) = pod.host.unified() else {
        assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "this machine lacks a cgroup2 mount");
        return println!("NOT RUN: this machine lacks a cgroup2 mount");
    };
    // Frozen from birth: the pause process stays on its way until it is thawed.
    let cgroup = unified.join(pod.cgroup.trim_start_matches('/'));
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
    let pause = pod.send_pause(&mut daemon);
    let log = pod.log_file(&id);
    let asked = daemon.send(start(&id, &plan, PIPES), &[log.as_fd()]);
    let answer = daemon.answer(asked);
    assert!(matches!(answer, Err(Failure::BadRequest(_))), "{answer:?}");
    fs::write(cgroup.join("cgroup.freeze"), "0").unwrap();
    daemon.answer(pause).unwrap();
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(0), "with the pause process up, it may start");
}

#[test]
fn shutdown_leaves_nothing_behind() {
    let Some(mut pod) = pod() else { return };
    let mut daemon = pod.connect();
    pod.run_pause(&mut daemon);
    let (one, two) = (container_id(), container_id());
    pod.run(&mut daemon, &one, "trap '' TERM; sleep 1000 & while :; do echo busy; done");
    let mut plan = pod.plan(&two, "sleep 1000 & sleep 1000 & while :; do sleep 100; done");
    plan.namespaces.pid = Namespace::Inherit;
    pod.run_plan(&mut daemon, &two, &plan, PIPES);
    daemon.exec(&two, 1, &shell("while :; do sleep 100; done"), None).unwrap();
    for pid in pod.container_cgroup(&two).procs().unwrap() {
        pod.must_end(pid);
    }
    assert_eq!(daemon.ask(Command::Shutdown, &[]), Ok(Response::Ok));
    assert_eq!(pod.wait(), Some(0));
    assert_eq!(pod.cgroups(), Vec::<String>::new());
}

#[test]
fn the_monitor_shows_under_its_own_name() {
    let Some(pod) = pod() else { return };
    pod.connect().hello();
    let name = fs::read_to_string(format!("/proc/{}/comm", pod.pid.as_raw_nonzero())).unwrap();
    assert_eq!(name, "hull-monitor\n");
}
