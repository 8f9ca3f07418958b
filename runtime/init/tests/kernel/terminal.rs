// SPDX-License-Identifier: Apache-2.0
//! Terminals of the container's own devpts, for its first process and for further ones.

use crate::Test;
use crate::fixture::{Fixture, Running, device, mapped_root, mount_with, outcome, shell, wait};
use hull_init::plan::{Capabilities, Namespace, Op, Process, Step};
use hull_init::{Io, NewTerminal, PendingProcess, Plan, StepError};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("terminal::it_is_of_the_containers_own_devpts", own),
    ("terminal::a_further_process_gets_another_one", further),
    ("terminal::its_size_is_set_before_the_program_runs", size),
    ("terminal::without_a_devpts_nothing_starts", missing),
    ("terminal::nothing_that_a_container_puts_there_is_opened", hostile),
    ("terminal::a_slave_that_was_opened_elsewhere_still_works", given),
];

fn devices() -> Vec<Op> {
    vec![
        mount_with("tmpfs", "/dev", &[("mode", "755")]),
        mount_with("devpts", "/dev/pts", &[("gid", "5"), ("mode", "620"), ("ptmxmode", "0666")]),
        device("/dev/tty", 5, 0),
        device("/dev/null", 1, 3),
    ]
}

/// A container with a terminal of its own user.
fn plan(fixture: &Fixture, script: &str) -> Plan {
    let mut plan = fixture.plan(script, devices());
    plan.process.uid = 1000;
    plan
}

fn pair() -> (Io, OwnedFd) {
    let (new, socket) = NewTerminal::pair().unwrap();
    (Io::NewTerminal(new), socket)
}

/// Waits for the start, and returns all that was printed on the terminal, and the exit code.
fn printed(mut starting: PendingProcess, socket: &OwnedFd) -> Result<(i32, String), StepError> {
    outcome(&mut starting)?;
    let master = hull_sys::receive_master(socket.as_fd()).unwrap();
    let code = wait(starting.pidfd.as_fd());
    let mut out = Vec::new();
    // The end of a terminal is EIO.
    let _end = File::from(master).read_to_end(&mut out);
    Ok((code, String::from_utf8(out).unwrap().replace('\r', "")))
}

fn run(fixture: &Fixture, plan: &Plan) -> Result<(i32, String), StepError> {
    let (io, socket) = pair();
    printed(hull_init::spawn(&fixture.host, plan, io, &[])?, &socket)
}

fn exec(fixture: &Fixture, of: &Running, process: &Process) -> Result<(i32, String), StepError> {
    let (io, socket) = pair();
    let starting = hull_init::exec(&fixture.host, &of.target(), process, &io)?;
    drop(io);
    printed(starting, &socket)
}

fn own(fixture: &Fixture) {
    let script = "tty; stat -c '%F %u:%g' /dev/console /dev/pts/0; echo to-the-console > /dev/console; \
                  ls -1 /dev/pts; test -t 0 && test -t 1 && test -t 2 && echo three; echo x > /dev/tty";
    let shown = "/dev/pts/0\ncharacter special file 1000:5\ncharacter special file 1000:5\nto-the-console\n\
                 0\nptmx\nthree\nx\n";
    assert_eq!(run(fixture, &plan(fixture, script)), Ok((0, shown.into())));
    let mut plan = plan(fixture, script);
    mapped_root(&mut plan);
    assert_eq!(run(fixture, &plan), Ok((0, shown.into())), "in a user namespace");
}

fn further(fixture: &Fixture) {
    for in_user_namespace in [false, true] {
        let mut plan = fixture.plan("echo up; read -r _", devices());
        if in_user_namespace {
            mapped_root(&mut plan);
        }
        let mut running = fixture.start(&plan, &[]).unwrap();
        assert_eq!(running.line(), "up");
        let mut process = shell(
            "tty; stat -c '%u:%g' $(tty); echo x > /dev/tty; id -u; test -e /dev/console || echo none",
        );
        process.uid = 1000;
        let shown = "/dev/pts/0\n1000:5\nx\n1000\nnone\n";
        for _ in 0..2 {
            let ran = exec(fixture, &running, &process);
            assert_eq!(ran, Ok((0, shown.into())), "user namespace: {in_user_namespace}");
        }
        process.capabilities = Capabilities::default();
        process.uid = 0;
        let (code, _) = exec(fixture, &running, &process).unwrap();
        assert_eq!(code, 0, "as root without capabilities");
        let _code = running.wait();
    }
}

fn size(fixture: &Fixture) {
    let mut plan = plan(fixture, "stty size");
    plan.process.terminal = Some((33, 99));
    assert_eq!(run(fixture, &plan), Ok((0, "33 99\n".into())));
}

fn missing(fixture: &Fixture) {
    let mut ops = devices();
    ops.remove(1);
    let error = run(fixture, &fixture.plan("true", ops)).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Stdio, Errno::NOENT.raw_os_error()), "{error:?}");
    // A process without a root of its own is not a container.
    let mut plan = fixture.plan("true", Vec::new());
    plan.ops = Vec::new();
    plan.namespaces.mount = Namespace::Inherit;
    let error = run(fixture, &plan).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Stdio, Errno::NOTTY.raw_os_error()), "{error:?}");
}

fn hostile(fixture: &Fixture) {
    let attacks = [
        ("umount /dev/pts", Errno::NODEV),
        ("mount -t tmpfs none /dev/pts && mknod /dev/pts/ptmx c 5 2", Errno::NODEV),
        ("umount /dev/pts && mkfifo /dev/pts/ptmx", Errno::NODEV),
        ("umount /dev/pts && rmdir /dev/pts", Errno::NOENT),
        ("umount /dev/pts && rmdir /dev/pts && ln -s /proc/1/root/dev/pts /dev/pts", Errno::LOOP),
        ("umount /dev/pts && rmdir /dev/pts && mkfifo /dev/pts", Errno::NOTDIR),
        (
            "mkdir /d && mount -t devpts d /d && umount /dev/pts && rmdir /dev/pts && ln -s /d /dev/pts",
            Errno::LOOP,
        ),
        ("echo > /file && mount -o bind /file /dev/pts/ptmx", Errno::XDEV),
        ("mount -o bind /dev/null /dev/pts/ptmx", Errno::XDEV),
    ];
    for (attack, errno) in attacks {
        let mut plan = fixture.plan(&format!("{attack} && echo done; read -r _"), devices());
        let all = (1 << 40) - 1;
        (plan.process.capabilities.bounding, plan.process.capabilities.permitted) = (all, all);
        plan.process.capabilities.effective = all;
        let mut running = fixture.start(&plan, &[]).unwrap();
        assert_eq!(running.line(), "done", "{attack}");
        let error = exec(fixture, &running, &shell("tty")).unwrap_err();
        assert_eq!(
            (error.step, error.errno),
            (Step::Stdio, errno.raw_os_error()),
            "{attack}: {error:?}"
        );
        let _code = running.wait();
    }
}

/// As daemons of earlier releases request it.
fn given(fixture: &Fixture) {
    let mut running = fixture.start(&fixture.plan("echo up; read -r _", devices()), &[]).unwrap();
    assert_eq!(running.line(), "up");
    let hull_sys::Pty { master, slave } = hull_sys::open_pty().unwrap();
    let process = shell("test -t 0 && echo a-terminal");
    let io = Io::Terminal(slave);
    let mut starting = hull_init::exec(&fixture.host, &running.target(), &process, &io).unwrap();
    drop(io);
    outcome(&mut starting).unwrap();
    assert_eq!(wait(starting.pidfd.as_fd()), 0);
    let mut out = Vec::new();
    let _end = File::from(master).read_to_end(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), "a-terminal\r\n");
    let _code = running.wait();
}
