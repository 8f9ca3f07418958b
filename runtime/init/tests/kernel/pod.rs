// SPDX-License-Identifier: Apache-2.0
//! The pause process and the shared memory of a pod.

use crate::Test;
use crate::fixture::{Fixture, bind_of, device, outcome, wait};
use hull_cgroup::CgroupFs;
use hull_init::plan::{IdMaps, Namespace, Namespaces, PausePlan, Source, Step};
use hull_init::{PendingProcess, PodProcfs, StartedPause, StepError};
use hull_sys::pidfd_send_signal;
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("pod::pause_holds_namespaces_and_nothing_else", holds),
    ("pod::the_shm_is_shared_by_containers_and_ends_with_the_pod", shm),
    ("pod::pause_reaps_what_is_orphaned", reaps),
    ("pod::the_host_cannot_be_reached_through_pause", no_way_out),
    ("pod::failures_of_pause_name_their_step", failures),
];

/// The real pause program: the one that $PAUSE_PROGRAM names, on a machine without a compiler; else
/// built here. It needs no crate, so the compiler alone will do.
pub(crate) fn program(fixture: &Fixture) -> OwnedFd {
    if let Some(path) = std::env::var_os("PAUSE_PROGRAM") {
        return hull_sys::sealed_memfd("pause", &fs::read(path).unwrap()).unwrap();
    }
    let out = fixture.path("pause");
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
    hull_sys::sealed_memfd("pause", &fs::read(out).unwrap()).unwrap()
}

pub(crate) fn plan(fixture: &Fixture) -> PausePlan {
    PausePlan {
        namespaces: Namespaces {
            ipc: Namespace::New,
            uts: Namespace::New,
            mount: Namespace::New,
            ..Namespaces::default()
        },
        id_maps: IdMaps::default(),
        cgroup: fixture.planned_cgroup(),
        hostname: Some("the-pod".into()),
        sysctls: vec![
            ("net.ipv4.ip_unprivileged_port_start".into(), "7".into()),
            ("kernel.sem".into(), "9 9 9 9".into()),
        ],
        shm_bytes: 1 << 20,
        uid: 65_535,
        gid: 65_535,
        oom_score_adj: Some(100),
    }
}

fn start(fixture: &Fixture, plan: &PausePlan) -> Result<Pod, StepError> {
    let netns = hull_sys::netns::create().unwrap();
    let exe = program(fixture);
    Pod::start(&fixture.host, plan, Some(netns), exe.as_fd())
}

/// A pause process that runs.
#[derive(Debug)]
pub(crate) struct Pod {
    starting: PendingProcess,
    pub(crate) procfs: Option<PodProcfs>,
}

impl Pod {
    pub(crate) fn start(
        host: &CgroupFs,
        plan: &PausePlan,
        netns: Option<OwnedFd>,
        exe: BorrowedFd<'_>,
    ) -> Result<Self, StepError> {
        let StartedPause { pending: mut starting, procfs } =
            hull_init::pause(host, plan, netns, exe)?;
        outcome(&mut starting)?;
        Ok(Self { starting, procfs })
    }
}

impl std::ops::Deref for Pod {
    type Target = PendingProcess;
    fn deref(&self) -> &PendingProcess {
        &self.starting
    }
}

pub(crate) fn stop(pause: &Pod) {
    pidfd_send_signal(pause.pidfd.as_fd(), 15).unwrap();
    assert_eq!(wait(pause.pidfd.as_fd()), 0);
}

fn holds(fixture: &Fixture) {
    let pause = start(fixture, &plan(fixture)).unwrap();
    let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", pause.pid)).unwrap();
    let mounts = of("mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / rw,nosuid,nodev,noexec") && mounts.contains("tmpfs"), "{mounts}");
    let status = of("status");
    for line in [
        "Uid:\t65535\t65535\t65535\t65535",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Threads:\t1",
        "Groups:\t ",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", pause.pid)).unwrap().count(), 3);
    for kind in ["mnt", "ipc", "uts", "net"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(link(&pause.pid.to_string()), link("self"), "{kind}");
    }
    // Containers that join find the pod's settings.
    let script = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/sem";
    let mut joined = fixture.plan(script, Vec::new());
    let path = |kind: &str| Namespace::Join(format!("/proc/{}/ns/{kind}", pause.pid));
    (joined.namespaces.uts, joined.namespaces.ipc, joined.namespaces.net) =
        (path("uts"), path("ipc"), path("net"));
    assert_eq!(fixture.run(&joined).out, "the-pod\n7\n9\t9\t9\t9");
    stop(&pause);
}

fn shm(fixture: &Fixture) {
    let pause = start(fixture, &plan(fixture)).unwrap();
    let here = || {
        (fs::read_link("/proc/self/ns/mnt").unwrap(), fs::metadata("/proc/self/exe").unwrap().len())
    };
    let before = here();
    let run = |script: &str| {
        let op = bind_of(Source::Slot(0), "/dev/shm");
        let slot = hull_init::pod_shm(pause.pidfd.as_fd()).unwrap();
        let plan = fixture.plan(script, vec![op, device("/dev/zero", 1, 5)]);
        let ended = fixture.start(&plan, &[slot]).unwrap().wait();
        assert_eq!(ended.code, 0, "{}", ended.out);
        ended.out
    };
    assert_eq!(run("echo shared > /dev/shm/file; stat -c %a /dev/shm"), "1777");
    assert_eq!(
        run(
            "cat /dev/shm/file; head -c 2000000 /dev/zero 2>&- > /dev/shm/big; stat -c %s /dev/shm/big"
        ),
        "shared\n1044480"
    );
    assert_eq!(here(), before);
    stop(&pause);
    assert_eq!(hull_init::pod_shm(pause.pidfd.as_fd()).unwrap_err().errno(), Errno::SRCH);
}

pub(crate) fn with_pid_namespace(fixture: &Fixture) -> Pod {
    let mut plan = plan(fixture);
    plan.namespaces.pid = Namespace::New;
    start(fixture, &plan).unwrap()
}

pub(crate) fn in_pid_namespace(fixture: &Fixture, pause: &Pod, script: &str) -> hull_init::Plan {
    let mut plan = fixture.plan(script, Vec::new());
    plan.namespaces.pid = Namespace::Join(format!("/proc/{}/ns/pid", pause.pid));
    plan
}

fn reaps(fixture: &Fixture) {
    let pause = with_pid_namespace(fixture);
    // A grandchild that outlives its parent becomes a child of pause; once it has ended it must be
    // gone from /proc, not stay as a zombie.
    let script = "[ $$ != 1 ] || echo first; \
                  pid=$(sh -c 'sleep 1000 > /dev/null 2>&1 & echo $!'); kill -9 $pid; \
                  while [ -e /proc/$pid ]; do :; done; echo reaped; \
                  cat /proc/1/comm";
    fs::create_dir_all(fixture.path("image/dev")).unwrap();
    let mut plan = in_pid_namespace(fixture, &pause, script);
    plan.ops.insert(2, device("/dev/null", 1, 3));
    assert_eq!(fixture.run(&plan).out, "reaped\npause");
    stop(&pause);
}

fn no_way_out(fixture: &Fixture) {
    let pause = with_pid_namespace(fixture);
    let mut plan = in_pid_namespace(
        fixture,
        &pause,
        "ls /proc/1/root/ /proc/1/cwd/ 2>&1; ls /proc/1/root/../etc 2>&1; cat /proc/1/exe > /dev/null 2>&1; true",
    );
    // Even with all rights.
    let all = u64::MAX;
    plan.process.capabilities.bounding = all;
    plan.process.capabilities.effective = all;
    plan.process.capabilities.permitted = all;
    plan.ops.insert(2, device("/dev/null", 1, 3));
    let out = fixture.run(&plan).out;
    assert_eq!(
        out,
        "/proc/1/cwd/:\n\n/proc/1/root/:\nls: /proc/1/root/../etc: No such file or directory"
    );
    stop(&pause);
}

fn failures(fixture: &Fixture) {
    let mut bad = plan(fixture);
    bad.sysctls.push(("net.no_such".into(), "1".into()));
    let error = start(fixture, &bad).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Op(2), Errno::NOENT.raw_os_error()));
    let mut bad = plan(fixture);
    bad.hostname = Some("x".repeat(65));
    assert_eq!(start(fixture, &bad).unwrap_err().step, Step::Hostname);
    let text = hull_sys::sealed_memfd("pause", b"no program").unwrap();
    let mut pause = hull_init::pause(&fixture.host, &plan(fixture), None, text.as_fd()).unwrap();
    assert_eq!(outcome(&mut pause.pending).unwrap_err().step, Step::Exec);
}
