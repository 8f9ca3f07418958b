// SPDX-License-Identifier: Apache-2.0
//! Starts and ends of containers: exit codes, signals, limits, failed steps.

use crate::support::{PIPES, container_id, eventually, program, start};
use crate::{empty_plan, go, on_hold, pod, process_state, seq, step_of, support};
use hull_init::Step;
use hull_init::plan::Namespace;
use hull_proto::id::ContainerId;
use hull_proto::monitor::{Command, ExitHow, Failure, Response, Stdio, Target};
use std::fs::{self};
use std::os::fd::AsFd as _;

#[test]
fn an_exit_is_reported_with_its_code_and_all_output() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "echo to stdout; echo to stderr >&2; printf unfinished; exit 7");
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(7));
    assert_eq!(pod.output(&id, "stdout"), b"to stdout\nunfinished");
    assert_eq!(pod.output(&id, "stderr"), b"to stderr\n");
}

#[test]
fn a_signal_ends_a_container_and_is_reported_as_such() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(
        &mut daemon,
        &id,
        "trap 'echo heard; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
    );
    eventually("the trap is set", || pod.raw_log(&id).ends_with(b"stdout F ready\n").then_some(()));
    let term = Command::Signal { target: Target::Container(id.clone()), signal: 15 };
    assert_eq!(daemon.ask(term.clone(), &[]), Ok(Response::Ok));
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(3));
    assert_eq!(pod.output(&id, "stdout"), b"ready\nheard\n");
    assert_eq!(daemon.ask(term, &[]), Ok(Response::Ok), "one that has ended counts as a success");

    let id = container_id();
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    let kill = Command::Signal { target: Target::ContainerAll(id.clone()), signal: 9 };
    assert_eq!(daemon.ask(kill, &[]), Ok(Response::Ok));
    assert_eq!(daemon.exit(&id).how, ExitHow::Signal(9));
    let unknown = Command::Signal { target: Target::Container(container_id()), signal: 9 };
    assert_eq!(daemon.ask(unknown, &[]), Err(Failure::NoSuchContainer));
}

/// With the host's pid namespace the kernel ends nothing by itself.
#[test]
fn a_container_ends_with_its_first_process() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let mut plan =
        pod.plan(&id, "sleep 1000 & (while :; do echo more; done) & echo started; exit 5");
    plan.namespaces.pid = Namespace::Inherit;
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(5));
    assert_eq!(pod.container_cgroup(&id).procs().unwrap(), [], "the rest was killed");
    let told = pod.output(&id, "stdout");
    assert!(String::from_utf8(told.clone()).unwrap().contains("started\n"));
    daemon.hello();
    assert_eq!(pod.output(&id, "stdout"), told, "nothing is written after the word of the end");
}

/// A process that left the container's cgroup cannot be found; it must not hold up the others.
#[test]
fn a_process_that_escaped_does_not_delay_the_end() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let hold = on_hold(&pod, "go");
    let mut plan = pod.plan(&id, &format!("yes flood & echo $! > /shared/pid; {hold} exit 0"));
    plan.namespaces.pid = Namespace::Inherit;
    pod.run_plan(&mut daemon, &id, &plan, Stdio { log: false, ..PIPES });
    let pid: i32 = eventually("the pid of the one to escape", || {
        fs::read_to_string(pod.shared().join("pid")).ok()?.trim().parse().ok()
    });
    pod.must_end(pid);
    // Beside the container's: the pod's own has controllers for those below and holds no process itself.
    let elsewhere = format!("{}/elsewhere", pod.cgroup);
    let elsewhere = hull_cgroup::Cgroup::at(&pod.host, &elsewhere).unwrap();
    elsewhere.create(&hull_cgroup::Limits::default()).unwrap();
    elsewhere.add(pid, true).unwrap();
    go(&pod, "go");
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(0));
    // Its output is read by nobody now.
    eventually("the escaped one ends of SIGPIPE", || {
        elsewhere.procs().unwrap().is_empty().then_some(())
    });
    elsewhere.kill_and_remove(support::WAIT).unwrap();
}

#[test]
fn two_containers_run_side_by_side() {
    let Some(pod) = pod() else { return };
    let mut daemon = pod.connect();
    let (one, two) = (container_id(), container_id());
    let (hold_one, hold_two) = (on_hold(&pod, "one"), on_hold(&pod, "two"));
    pod.run(&mut daemon, &one, &format!("{hold_one} seq 1 20000; exit 1"));
    pod.run(&mut daemon, &two, &format!("{hold_two} seq 1 30000 >&2; exit 2"));
    let again = start(&one, &empty_plan(&pod), PIPES);
    let log = pod.log_file(&one);
    assert_eq!(daemon.ask(again, &[log.as_fd()]), Err(Failure::AlreadyExists));
    go(&pod, "two");
    go(&pod, "one");
    assert_eq!(daemon.exit(&one).how, ExitHow::Code(1));
    assert_eq!(daemon.exit(&two).how, ExitHow::Code(2));
    assert_eq!(pod.output(&one, "stdout"), seq(20_000));
    assert_eq!(pod.output(&two, "stderr"), seq(30_000));
    assert_eq!(pod.output(&two, "stdout"), b"");
}

#[test]
fn a_failed_start_names_its_step_and_leaves_nothing() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let good = pod.plan(&id, "exit 0");
    let mut no_program = good.clone();
    no_program.process = program(&["/no/such/program"]);
    let mut no_cwd = good.clone();
    no_cwd.process.cwd = "/no/such/directory".into();
    let mut no_namespace = good.clone();
    no_namespace.namespaces.net = Namespace::Join("/no/such/namespace".into());
    for (plan, step) in [
        (no_program, Step::Exec),
        (no_cwd, Step::Cwd),
        (no_namespace, Step::Join(hull_init::plan::NamespaceKind::Net)),
    ] {
        let log = pod.log_file(&id);
        let failed = step_of(daemon.ask(start(&id, &plan, PIPES), &[log.as_fd()]).unwrap_err());
        assert_eq!((failed.step, failed.errno), (step, rustix::io::Errno::NOENT.raw_os_error()));
        assert_eq!(process_state(&mut daemon, &id), None);
        assert_eq!(pod.cgroups(), Vec::<String>::new(), "after a failed {step:?}");
    }
    pod.run_plan(&mut daemon, &id, &good, PIPES);
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(0), "the same id can be used again");
    let garbage =
        Command::StartContainer { container: container_id(), plan: vec![1, 2, 3], stdio: PIPES };
    let log = pod.log_file(&id);
    assert!(matches!(daemon.ask(garbage, &[log.as_fd()]), Err(Failure::BadRequest(_))));
}

#[test]
fn limits_are_updated_and_bad_ones_refused() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    let limits =
        hull_cgroup::Limits { memory_bytes: Some(64 << 20), ..hull_cgroup::Limits::default() };
    let update = |limits: &hull_cgroup::Limits, container: &ContainerId| Command::Update {
        container: container.clone(),
        limits: borsh::to_vec(limits).unwrap(),
    };
    assert_eq!(daemon.ask(update(&limits, &id), &[]), Ok(Response::Ok));
    let stats = pod.container_cgroup(&id).stats().unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
    let bad = hull_cgroup::Limits {
        cpuset_cpus: Some("nonsense".into()),
        ..hull_cgroup::Limits::default()
    };
    assert!(matches!(daemon.ask(update(&bad, &id), &[]), Err(Failure::System(_))));
    assert_eq!(daemon.ask(update(&limits, &container_id()), &[]), Err(Failure::NoSuchContainer));
}

#[test]
fn the_out_of_memory_killer_is_seen_in_the_exit() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let mut plan = pod.plan(&id, "x=$(yes | head -c 400000000); exit 0");
    plan.cgroup.limits.memory_bytes = Some(16 << 20);
    plan.cgroup.limits.memory_swap_bytes = Some(16 << 20);
    pod.run_plan(&mut daemon, &id, &plan, PIPES);
    let exit = daemon.exit(&id);
    assert_eq!(exit.how, ExitHow::Signal(9));
    assert!(exit.oom_kills >= 1, "{exit:?}");
    assert!(exit.memory_peak_bytes.is_some_and(|peak| peak > 8 << 20), "{exit:?}");
}

#[test]
fn deleting_a_running_container_ends_it() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    assert_eq!(daemon.ask(Command::Delete { container: id.clone() }, &[]), Ok(Response::Ok));
    assert_eq!(daemon.exit(&id).how, ExitHow::Signal(9));
    assert_eq!(process_state(&mut daemon, &id), None);
    assert_eq!(pod.cgroups(), Vec::<String>::new());
}
