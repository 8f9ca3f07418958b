// SPDX-License-Identifier: Apache-2.0
//! Time to start a container and a further process in it, without a monitor around it: from the call
//! until the exec went through. Run as root: `cargo run --release -p hull-init --example times`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, run by hand")]

use hull_cgroup::{Cgroup, CgroupFs};
use hull_init::plan::{Attrs, Cgroup as PlannedCgroup, IdMaps, Namespace, Namespaces, Op};
use hull_init::{ExecTarget, Io, PendingProcess, Plan, Process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

const RUNS: u32 = 200;

fn main() {
    let host = CgroupFs::detect().unwrap();
    let dir = std::env::temp_dir().join(format!("hull-init-times-{}", std::process::id()));
    for name in ["image/bin", "image/proc", "image/sys", "image/dev", "root"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("image/bin/busybox")).unwrap();
    let parent = format!("/hull-times-{}", std::process::id());
    let (mut spawns, mut execs) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let path = format!("{parent}/{run}");
        // A `volatile` upper layer can be mounted once only.
        for name in ["upper", "work"] {
            fs::create_dir(dir.join(format!("{name}-{run}"))).unwrap();
        }
        let plan = plan(&dir, run, &path);
        let begin = Instant::now();
        let starting = hull_init::spawn(&host, &plan, null(), &[]).unwrap();
        let running = outcome(starting);
        spawns.push(begin.elapsed());
        let target = ExecTarget { pidfd: running.pidfd.as_fd(), id_maps: None, cgroup: &path };
        let begin = Instant::now();
        let starting =
            hull_init::exec(&host, &target, &process(&["/bin/busybox", "true"]), &null()).unwrap();
        let further = outcome(starting);
        execs.push(begin.elapsed());
        waitid(WaitId::PidFd(further.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        hull_sys::pidfd_send_signal(running.pidfd.as_fd(), 9).unwrap();
        waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        Cgroup::at(&host, &path).unwrap().kill_and_remove(Duration::from_secs(5)).unwrap();
    }
    Cgroup::at(&host, &parent).unwrap().kill_and_remove(Duration::from_secs(5)).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    show("spawn", spawns);
    show("exec", execs);
}

fn show(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{name}: p50 {:?}, p95 {:?}, {} runs", at(50), at(95), times.len());
}

fn outcome(mut starting: PendingProcess) -> PendingProcess {
    loop {
        poll(&mut [PollFd::new(&starting.status, PollFlags::IN)], None).unwrap();
        if let Some(done) = starting.poll() {
            done.unwrap();
            return starting;
        }
    }
}

fn null() -> Io {
    let open =
        || -> OwnedFd { File::options().read(true).write(true).open("/dev/null").unwrap().into() };
    Io::Streams { stdin: open(), stdout: open(), stderr: open() }
}

fn mount(fstype: &str, target: &str) -> Op {
    Op::Mount {
        fstype: fstype.into(),
        source: fstype.into(),
        target: target.into(),
        attrs: Attrs { nosuid: true, ..Attrs::default() },
        options: Vec::new(),
        copy_up: false,
    }
}

/// The usual plan of a pod's container, with the pod's network: overlay, the usual mounts, six devices, masked
/// and read-only paths, no seccomp filter.
fn plan(dir: &Path, run: u32, cgroup: &str) -> Plan {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut ops = vec![
        Op::RootOverlay {
            lower: vec![at("image")],
            upper: Some((at(&format!("upper-{run}")), at(&format!("work-{run}")))),
            options: vec![("volatile".into(), None)],
            at: at("root"),
        },
        mount("proc", "/proc"),
        mount("tmpfs", "/dev"),
        mount("devpts", "/dev/pts"),
        mount("mqueue", "/dev/mqueue"),
        mount("tmpfs", "/dev/shm"),
        Op::Cgroups {
            target: "/sys/fs/cgroup".into(),
            attrs: Attrs { rdonly: true, ..Attrs::default() },
        },
    ];
    for (path, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        ops.push(Op::Device {
            path: format!("/dev/{path}"),
            block: false,
            fifo: false,
            major: 1,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
    }
    let readonly = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
    ops.extend(readonly.map(|name| Op::Readonly { path: format!("/proc/{name}") }));
    let masked =
        ["asound", "acpi", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "scsi"];
    ops.extend(masked.map(|name| Op::Mask { path: format!("/proc/{name}") }));
    ops.push(Op::Pivot);
    let new = Namespace::New;
    Plan {
        namespaces: Namespaces {
            mount: new.clone(),
            pid: new.clone(),
            ipc: new.clone(),
            uts: new.clone(),
            cgroup: new,
            ..Namespaces::default()
        },
        id_maps: IdMaps::default(),
        cgroup: PlannedCgroup { path: cgroup.into(), ..PlannedCgroup::default() },
        ops,
        process: process(&["/bin/busybox", "sleep", "1000"]),
    }
}

fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        umask: None,
        capabilities: hull_init::plan::Capabilities::default(),
        no_new_privs: true,
        seccomp: None,
        apparmor: None,
        selinux: None,
        rlimits: Vec::new(),
        oom_score_adj: None,
        terminal: None,
        io_priority: None,
        scheduler: None,
        personality: None,
    }
}
