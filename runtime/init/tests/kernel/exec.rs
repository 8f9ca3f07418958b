// SPDX-License-Identifier: Apache-2.0
//! Further processes in a container.

use crate::Test;
use crate::fixture::{Fixture, Running, has_ended, program, shell};
use hull_init::plan::{Namespace, Step};
use hull_sys::{ForkResult, clone3};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::os::fd::AsFd as _;

pub(crate) const TESTS: &[Test] = &[
    ("exec::it_joins_everything", joins),
    ("exec::it_has_its_own_rights_and_code", own),
    ("exec::its_failures_say_why", failures),
    ("exec::the_caller_stays_where_it_was", caller_stays),
    ("exec::a_container_ends_with_its_parent", ends_with_parent),
];

const SHOW: &str = "for n in mnt pid net ipc uts cgroup time; do readlink /proc/self/ns/$n; done; \
                    cat /proc/self/cgroup; ls /mark; hostname; readlink /proc/self/root";

fn started(fixture: &Fixture, change: impl FnOnce(&mut hull_init::Plan)) -> Running {
    fs::write(fixture.path("image/mark"), "").unwrap();
    let mut plan =
        fixture.plan(&format!("{{ {SHOW}; }} > /tmp/own; echo up; read -r _; true"), Vec::new());
    change(&mut plan);
    let mut running = fixture.start(&plan, &[]).unwrap();
    assert_eq!(running.line(), "up");
    running
}

fn joins(fixture: &Fixture) {
    let changes: [fn(&mut hull_init::Plan); 3] = [
        |_| {},
        |plan| {
            plan.namespaces.time = Namespace::New;
            plan.namespaces.time_offsets = vec![(1, 5000, 0)];
        },
        |plan| {
            plan.namespaces.net = Namespace::Inherit;
            plan.namespaces.uts = Namespace::Inherit;
            plan.namespaces.cgroup = Namespace::Inherit;
        },
    ];
    for change in changes {
        let running = started(fixture, change);
        let script = format!("cat /tmp/own; echo; {SHOW}");
        let ended = fixture.exec(&running, &shell(&script)).unwrap();
        let (first, second) = ended.out.split_once("\n\n").unwrap();
        assert_eq!(first, second, "what the first process sees, and a further one");
        assert!(first.contains("mnt:[") && first.contains("/mark"), "{first}");
        assert_eq!(running.wait().code, 0);
    }
}

fn own(fixture: &Fixture) {
    let running = started(fixture, |_| {});
    let mut process =
        shell("id -u; pwd; echo $A; cat /proc/self/oom_score_adj; echo > /proc/self/fd/1; exit 3");
    process.uid = 1000;
    process.cwd = "/tmp".into();
    process.env.push(b"A=b".to_vec());
    process.oom_score_adj = Some(500);
    let ended = fixture.exec(&running, &process).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (3, "1000\n/tmp\nb\n500"));
    let killed = fixture.exec(&running, &shell("kill -KILL $$")).unwrap();
    assert_eq!(killed.code, 128 + 9);
    assert_eq!(running.wait().code, 0);
}

fn failures(fixture: &Fixture) {
    let running = started(fixture, |_| {});
    for (args, errno) in [
        (&["no-such"][..], Errno::NOENT),
        (&["/etc"], Errno::ACCESS),
        (&["/mark"], Errno::ACCESS),
        (&[], Errno::NOENT),
    ] {
        let error = fixture.exec(&running, &program(args)).unwrap_err();
        assert_eq!(
            (error.step, error.errno),
            (Step::Exec, errno.raw_os_error()),
            "{args:?}: {}",
            error.call
        );
    }
    let mut process = shell("true");
    process.cwd = "/no/such".into();
    let error = fixture.exec(&running, &process).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Cwd, Errno::NOENT.raw_os_error()));
    // One that has ended and is not reaped yet.
    rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL).unwrap();
    has_ended(running.pidfd.as_fd());
    fixture.exec(&running, &shell("true")).unwrap_err();
    assert_eq!(running.wait().code, 128 + 9);
}

fn caller_stays(fixture: &Fixture) {
    let kinds = [
        "mnt",
        "pid",
        "pid_for_children",
        "net",
        "ipc",
        "uts",
        "cgroup",
        "user",
        "time_for_children",
    ];
    let here = || {
        let links = kinds.map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
        (links, std::env::current_dir().unwrap(), fs::read_link("/proc/self/root").unwrap())
    };
    let before = here();
    let running = started(fixture, |_| {});
    fixture.exec(&running, &shell("true")).unwrap();
    fixture.exec(&running, &program(&["no-such"])).unwrap_err();
    assert_eq!(running.wait().code, 0);
    assert_eq!(here(), before);
}

/// The parent is a process of its own here, killed once the container runs.
fn ends_with_parent(fixture: &Fixture) {
    let (news, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let plan = fixture.plan("sleep 1000", Vec::new());
    let ForkResult::Parent { pidfd, .. } = clone3(0, None).unwrap() else {
        let mut text = String::from("0");
        if let Ok(running) = fixture.start(&plan, &[]) {
            text = running.pid.to_string();
            let _told = rustix::io::write(&tell, text.as_bytes());
            // Until it is killed.
            loop {
                let _signal = rustix::event::poll(&mut [], None);
            }
        }
        let _told = rustix::io::write(&tell, text.as_bytes());
        hull_sys::exit_now(1)
    };
    let mut text = [0; 20];
    let got = rustix::io::read(&news, &mut text).unwrap();
    let pid: i32 = std::str::from_utf8(&text[..got]).unwrap().parse().unwrap();
    let container = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    assert_eq!(crate::fixture::wait(pidfd.as_fd()), 128 + 9);
    has_ended(container.as_fd());
}
