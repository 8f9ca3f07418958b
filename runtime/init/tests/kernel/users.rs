// SPDX-License-Identifier: Apache-2.0
//! User namespaces and mapped ids.

use crate::Test;
use crate::fixture::{Fixture, bind, bind_of, device, mount, mount_with, shell};
use crate::pod::{self, Pod};
use hull_init::plan::{Attrs, IdMap, IdMaps, Namespace, Op, Source, Step};
use hull_init::{LaunchOptions, Plan};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, chown};

pub(crate) const TESTS: &[Test] = &[
    ("users::root_inside_is_nobody_outside", root_inside),
    ("users::a_bind_with_mapped_ids_shows_them_mapped", mapped_bind),
    ("users::containers_are_born_into_their_pods_user_namespace", born),
    ("users::a_shared_pid_namespace_is_the_pods_too", born_with_pids),
    ("users::every_process_enters_its_group_of_resctrl_once", in_group),
    ("users::a_start_that_fails_in_there_names_its_step", failing),
    ("users::ids_without_a_map_are_refused", unmapped),
];

pub(crate) fn maps(host_id: u32) -> IdMaps {
    let range = vec![IdMap { container_id: 0, host_id, length: 65_536 }];
    IdMaps { uids: range.clone(), gids: range }
}

fn root_inside(fixture: &Fixture) {
    chown(fixture.path("image/etc"), Some(7), Some(8)).unwrap();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u:%g / /bin/busybox /etc /dev; \
                  touch /made; chown 5:6 /made; echo x > /dev/null && test -c /dev/null && echo device";
    let ops = vec![mount_with("tmpfs", "/dev", &[("mode", "755")]), device("/dev/null", 1, 3)];
    let mut plan = fixture.plan(script, ops);
    plan.namespaces.user = Namespace::New;
    plan.id_maps = maps(100_000);
    let ended = fixture.run(&plan);
    assert_eq!(ended.out, "0\n 0 100000 65536\n0:0\n0:0\n7:8\n0:0\ndevice");
    let Op::RootOverlay { upper: Some((upper, _)), .. } = &plan.ops[0] else { unreachable!() };
    let made = fs::metadata(format!("{upper}/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_005, 100_006), "on the host");
}

fn mapped_bind(fixture: &Fixture) {
    let volume = fixture.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    chown(volume.join("file"), Some(3), Some(4)).unwrap();
    let mut op = bind(&fixture.text("volume"), "/v");
    let Op::Bind { id_maps, .. } = &mut op else { unreachable!() };
    *id_maps = Some(maps(200_000));
    assert_eq!(fixture.says("stat -c %u:%g /v/file", vec![op.clone()]), "200003:200004");
    // With the maps of the container's own user namespace, ids inside are those on disk.
    let Op::Bind { id_maps, .. } = &mut op else { unreachable!() };
    *id_maps = Some(maps(100_000));
    let mut plan = fixture.plan("stat -c %u:%g /v/file; touch /v/new", vec![op]);
    plan.namespaces.user = Namespace::New;
    plan.id_maps = maps(100_000);
    assert_eq!(fixture.run(&plan).out, "3:4");
    assert_eq!(fs::metadata(volume.join("new")).unwrap().uid(), 0);
}

fn unmapped(fixture: &Fixture) {
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.user = Namespace::New;
    plan.id_maps = maps(100_000);
    plan.process.uid = 70_000;
    let error = fixture.failure(&plan);
    assert_eq!((error.step, error.errno), (Step::Identity, Errno::INVAL.raw_os_error()));
}

/// A pause process with a user namespace, and a network that belongs to it.
fn pod(fixture: &Fixture, pid: Namespace) -> Pod {
    let mut plan = pod::plan(fixture);
    (plan.namespaces.user, plan.namespaces.net, plan.namespaces.pid) =
        (Namespace::New, Namespace::New, pid);
    plan.id_maps = maps(100_000);
    plan.sysctls = vec![("net.ipv4.ip_unprivileged_port_start".into(), "7".into())];
    let exe = pod::program(fixture);
    Pod::start(&fixture.host, &plan, None, exe.as_fd()).unwrap()
}

/// A container of it, with all that a container has mounted.
fn member(fixture: &Fixture, pause: &Pod, script: &str) -> Plan {
    let read_only = Attrs { rdonly: true, ..Attrs::default() };
    let ops = vec![
        mount_with("tmpfs", "/dev", &[("mode", "755")]),
        mount_with("devpts", "/dev/pts", &[("gid", "5"), ("ptmxmode", "0666")]),
        mount("mqueue", "/dev/mqueue"),
        mount("sysfs", "/sys"),
        Op::Cgroups { target: "/sys/fs/cgroup".into(), attrs: read_only },
        bind_of(Source::Slot(0), "/dev/shm"),
        device("/dev/null", 1, 3),
        device("/dev/net/tun", 10, 200),
        Op::Readonly { path: "/proc/sys".into() },
        Op::Mask { path: "/proc/kcore".into() },
        Op::Mask { path: "/sys/firmware".into() },
    ];
    let mut plan = fixture.plan(script, ops);
    let path = |kind: &str| Namespace::Join(format!("/proc/{}/ns/{kind}", pause.pid));
    plan.namespaces.user = path("user");
    plan.namespaces.net = path("net");
    plan.namespaces.ipc = path("ipc");
    plan.namespaces.uts = path("uts");
    plan.id_maps = maps(100_000);
    plan.process.oom_score_adj = Some(123);
    plan
}

fn born(fixture: &Fixture) {
    let pause = pod(fixture, Namespace::Inherit);
    chown(fixture.path("image/etc"), Some(7), Some(8)).unwrap();
    let script = "id -u; hostname; echo $$; cat /proc/self/oom_score_adj; stat -c '%u:%g %n' / /etc /dev/null /dev/net/tun /proc/1; \
                  cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo device; \
                  ls /sys/class/net; echo 5 > /proc/sys/kernel/shmmax || echo read-only; \
                  touch /made; chown 5:6 /made; echo in > /dev/shm/file; echo up; read line";
    let plan = member(fixture, &pause, script);
    let shm = hull_init::pod_shm(pause.pidfd.as_fd()).unwrap();
    let mut running = fixture.start(&plan, &[shm]).unwrap();
    let mut said = Vec::new();
    loop {
        match running.line() {
            line if line == "up" || line.is_empty() => break,
            line => said.push(line),
        }
    }
    assert_eq!(
        said.join("\n"),
        "0\nthe-pod\n1\n123\n0:0 /\n7:8 /etc\n0:0 /dev/null\n0:0 /dev/net/tun\n0:0 /proc/1\n 0 100000 65536\ndevice\nlo\n\
         /bin/sh: can't create /proc/sys/kernel/shmmax: Read-only file system\nread-only"
    );
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid)).unwrap();
    assert!(status.contains("Uid:\t100000\t100000\t100000\t100000"), "{status}");
    // Who was in between is gone, and the container is our child.
    assert!(status.contains(&format!("PPid:\t{}\n", std::process::id())), "{status}");
    for kind in ["user", "net", "ipc", "uts"] {
        let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(link(pause.pid), link(running.pid), "{kind}");
    }
    let mut joins = shell(
        "id -u; cat /proc/self/uid_map | tr -s ' '; cat /dev/shm/file; echo x > /proc/self/fd/1",
    );
    joins.uid = 9;
    let ended = fixture.exec(&running, &joins).unwrap();
    assert_eq!((ended.code, ended.out.as_str()), (0, "9\n 0 100000 65536\nin\nx"));
    assert_eq!(running.wait().code, 1);
    let Op::RootOverlay { upper: Some((upper, _)), .. } = &plan.ops[0] else { unreachable!() };
    let made = fs::metadata(format!("{upper}/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_005, 100_006), "on the host");
    pod::stop(&pause);
}

/// Whichever process is the program's parent. A file stands in for that of a group.
fn in_group(fixture: &Fixture) {
    let pause = pod(fixture, Namespace::New);
    for pid in [Namespace::New, Namespace::Join(format!("/proc/{}/ns/pid", pause.pid))] {
        let path = fixture.path("tasks");
        let tasks = fs::File::create_new(&path).unwrap();
        let mut plan = member(fixture, &pause, "exit 4");
        plan.namespaces.pid = pid.clone();
        let shm = hull_init::pod_shm(pause.pidfd.as_fd()).unwrap();
        let how = LaunchOptions { resctrl: Some(tasks.as_fd()), ..LaunchOptions::default() };
        let ended = fixture.start_as(&plan, &[shm], &how).unwrap().wait();
        assert_eq!(ended.code, 4);
        assert_eq!(fs::read_to_string(&path).unwrap(), "0\n", "{pid:?}");
        fs::remove_file(&path).unwrap();
    }
    pod::stop(&pause);
}

fn born_with_pids(fixture: &Fixture) {
    let pause = pod(fixture, Namespace::New);
    let mut plan = member(fixture, &pause, "cat /proc/1/comm; [ $$ = 1 ] || echo not first");
    plan.namespaces.pid = Namespace::Join(format!("/proc/{}/ns/pid", pause.pid));
    let shm = hull_init::pod_shm(pause.pidfd.as_fd()).unwrap();
    let ended = fixture.start(&plan, &[shm]).unwrap().wait();
    assert_eq!(ended.out, "pause\nnot first");
    pod::stop(&pause);
}

fn failing(fixture: &Fixture) {
    let pause = pod(fixture, Namespace::Inherit);
    let shm = || vec![hull_init::pod_shm(pause.pidfd.as_fd()).unwrap()];
    let mut plan = member(fixture, &pause, "true");
    plan.process.args = vec![b"/no/such".to_vec()];
    assert_eq!(fixture.start(&plan, &shm()).unwrap_err().step, Step::Exec);
    // Before there is a container: the one in between says so.
    let mut plan = member(fixture, &pause, "true");
    plan.namespaces.pid = Namespace::Join("/proc/self/ns/uts".into());
    let error = fixture.start(&plan, &shm()).unwrap_err();
    assert_eq!(error.step, Step::Join(hull_init::plan::NamespaceKind::Pid), "{error:?}");
    pod::stop(&pause);
}
