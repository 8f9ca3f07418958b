// SPDX-License-Identifier: Apache-2.0
//! The real monitor over its socket, with real containers on this machine's kernel.
//!
//! What a test leaves behind (cgroups, processes) fails it; see [`support::Pod`].

#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    reason = "a test wants one case and fails on the rest"
)]
#![allow(clippy::unwrap_used, reason = "also helpers of tests fail by panicking")]

mod support;

use hull_init::plan::{Namespace, Op};
use hull_init::{Step, StepError};
use hull_proto::id::ContainerId;
use hull_proto::monitor::{
    Command, Event, ExitHow, Failure, ProcessState, Request, Response, Stdio, Target, VERSION,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use support::{Client, PIPES, Pod, bind_shm, container_id, eventually, program, shell, start};

fn pod() -> Option<Pod> {
    Pod::start(Path::new(env!("CARGO_BIN_EXE_hull-monitor")))
}

/// Puts a container's program on hold until [`go`]: it reads a line from a FIFO first.
fn on_hold(pod: &Pod, name: &str) -> String {
    let fifo = pod.shared().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    format!("read go < /shared/{name};")
}

fn go(pod: &Pod, name: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let fifo = pod.shared().join(name);
    // Without blocking: a container that has ended must fail the test, not hang it.
    let mut fifo = eventually("the container reads", || {
        File::options().write(true).custom_flags(nonblock).open(&fifo).ok()
    });
    fifo.write_all(b"go\n").unwrap();
}

fn fact(client: &mut Client, id: &ContainerId) -> Option<ProcessState> {
    client.hello().containers.into_iter().find(|(of, _)| of == id).map(|(_, fact)| fact)
}

fn step_of(failure: Failure) -> StepError {
    match failure {
        Failure::Step(bytes) => borsh::from_slice(&bytes).unwrap(),
        other => panic!("no step failed, but {other:?}"),
    }
}

fn seq(last: u32) -> Vec<u8> {
    (1..=last).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

#[test]
fn an_exit_is_told_with_its_code_and_all_output() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "echo to stdout; echo to stderr >&2; printf unfinished; exit 7");
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(7));
    assert_eq!(pod.output(&id, "stdout"), b"to stdout\nunfinished");
    assert_eq!(pod.output(&id, "stderr"), b"to stderr\n");
}

#[test]
fn a_signal_ends_a_container_and_is_told_as_such() {
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
fn a_process_that_escaped_does_not_hold_up_the_end() {
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
fn reopening_the_log_under_a_writer_loses_and_splits_nothing() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let hold = on_hold(&pod, "go");
    pod.run(&mut daemon, &id, &format!("{hold} seq 1 300000; echo done >&2"));
    go(&pod, "go");
    let mut rotated = Vec::new();
    for number in 0.. {
        let old = pod.dir.path().join(format!("rotated.{number}"));
        fs::rename(pod.log_path(&id), &old).unwrap();
        rotated.push(old);
        let file = pod.log_file(&id);
        let reopen = Command::ReopenLog { container: id.clone() };
        assert_eq!(daemon.ask(reopen, &[file.as_fd()]), Ok(Response::Ok));
        if pod.raw_log(&id).ends_with(b"stderr F done\n") || number == 400 {
            break;
        }
    }
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(0));
    rotated.push(pod.log_path(&id));
    let parts: Vec<Vec<u8>> = rotated.iter().map(|path| fs::read(path).unwrap()).collect();
    let filled = parts.iter().filter(|part| !part.is_empty()).count();
    assert!(filled > 1, "the log was never reopened while there was output");
    // Every file for itself: a line that was split between two fails to parse.
    let all: Vec<u8> = parts.iter().flat_map(|part| support::output(part, "stdout")).collect();
    assert_eq!(all, seq(300_000));
}

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
        eventually("the exit", || match fact(&mut daemon, &id) {
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
        assert_eq!(fact(&mut daemon, &id), None);
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
fn an_answer_goes_to_the_daemon_that_asked_or_to_nobody() {
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
        (fact(&mut new, &id) == Some(ProcessState::Starting)).then_some(())
    });
    fs::write(&freeze, "0").unwrap();
    assert_eq!(new.exit(&id).how, ExitHow::Code(4));
    assert_eq!(new.strays, [], "answers to requests of another daemon");
}

/// The kubelet asks its new daemon again for a start that the old one did not live to answer.
#[test]
fn a_start_asked_for_again_after_a_restart_is_the_same_start() {
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
        (fact(&mut new, &hanging) == Some(ProcessState::Starting)).then_some(())
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
    assert_eq!(fact(&mut daemon, &id), Some(ProcessState::Running(started)));
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

fn empty_plan(pod: &Pod) -> hull_init::Plan {
    let mut plan = pod.plan(&container_id(), "exit 0");
    plan.ops = vec![Op::Pivot];
    plan
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
        assert_eq!(fact(&mut daemon, &id), None);
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
fn the_shm_of_a_pause_process_on_its_way_is_not_handed_out() {
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
fn a_full_disk_does_not_block_a_container() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let plan = pod.plan(&id, "seq 1 300000; exit 6");
    let full = File::options().append(true).open("/dev/full").unwrap();
    daemon.ask(start(&id, &plan, PIPES), &[full.as_fd()]).unwrap();
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(6));
}

#[test]
fn a_terminal_is_one_stream() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    let plan = pod.plan(&id, "test -t 0 && test -t 1 && echo terminal; echo error >&2; exit 8");
    pod.run_plan(&mut daemon, &id, &plan, Stdio { tty: true, ..PIPES });
    assert_eq!(daemon.exit(&id).how, ExitHow::Code(8));
    assert_eq!(pod.output(&id, "stdout"), b"terminal\r\nerror\r\n");
}

#[test]
fn limits_are_set_anew_and_bad_ones_refused() {
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
fn forgetting_a_running_container_ends_it() {
    let Some(pod) = pod() else { return };
    let (mut daemon, id) = (pod.connect(), container_id());
    pod.run(&mut daemon, &id, "while :; do sleep 100; done");
    assert_eq!(daemon.ask(Command::Delete { container: id.clone() }, &[]), Ok(Response::Ok));
    assert_eq!(daemon.exit(&id).how, ExitHow::Signal(9));
    assert_eq!(fact(&mut daemon, &id), None);
    assert_eq!(pod.cgroups(), Vec::<String>::new());
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

#[test]
fn the_monitor_shows_under_its_own_name() {
    let Some(pod) = pod() else { return };
    pod.connect().hello();
    let name = fs::read_to_string(format!("/proc/{}/comm", pod.pid.as_raw_nonzero())).unwrap();
    assert_eq!(name, "hull-monitor\n");
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
