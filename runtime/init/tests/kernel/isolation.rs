// SPDX-License-Identifier: Apache-2.0
//! Attempts of a container, its image and its neighbours to reach the host.

use crate::Test;
use crate::fixture::{Fixture, bind, bind_of, device, mapped_root, mount, program, shell};
use crate::pod::{self, in_pid_namespace, with_pid_namespace};
use hull_init::plan::{Capabilities, Namespace, Op, Plan, Seccomp, Source, Step};
use hull_init::{LaunchOptions, Process, StepError};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

pub(crate) const TESTS: &[Test] = &[
    ("isolation::no_program_of_the_host_is_reached_by_a_descriptor", by_descriptor),
    ("isolation::no_directory_of_the_host_is_entered_by_a_descriptor", cwd_by_descriptor),
    ("isolation::the_kernels_file_systems_are_mounted_on_no_link", kernel_mounts_behind_links),
    ("isolation::the_kernels_file_systems_are_mounted_in_no_volume", kernel_mounts_in_volumes),
    ("isolation::no_link_leads_a_mount_into_a_procfs", mounts_led_into_procfs),
    ("isolation::masks_lie_in_the_procfs_that_was_mounted", masks),
    ("isolation::nothing_is_changed_on_a_volume_at_dev", planted_device),
    ("isolation::nothing_is_made_on_a_volume_at_dev", nothing_made),
    ("isolation::masked_files_stay_masked_with_a_volume_at_dev", masked_without_null),
    ("isolation::an_exec_is_never_seen_with_the_hosts_root", exec_seen),
    ("isolation::a_neighbour_is_never_seen_with_the_hosts_root", start_seen),
    ("isolation::a_shared_procfs_is_that_of_the_pods_processes", shared_procfs),
    (
        "isolation::an_exec_is_never_seen_with_the_hosts_root_in_a_user_namespace",
        exec_seen_in_userns,
    ),
    ("isolation::no_standard_stream_is_the_hosts_null_device", null_streams),
    ("isolation::devices_of_an_image_do_not_open_in_a_user_namespace", image_devices),
    ("isolation::a_process_of_another_pod_is_not_joined", foreign_process),
    ("isolation::an_exec_is_never_seen_without_its_filter", filter_seen),
    (
        "isolation::an_exec_under_a_filter_that_forbids_processes_runs_all_the_same",
        filter_without_clone,
    ),
    ("isolation::a_volume_around_the_place_of_the_root_does_not_bring_it_along", root_in_a_volume),
];

const SYS_PTRACE: u64 = 1 << 19;
/// As many as any process here has.
const DESCRIPTORS: u32 = 64;

/// A program of the host that says so, and its path.
fn program_of_the_host(fixture: &Fixture) -> String {
    let path = fixture.path("outside/evil");
    fs::copy("/bin/busybox", &path).unwrap();
    path.display().to_string()
}

fn through(descriptor: u32, path: &str) -> String {
    format!("/proc/self/fd/{descriptor}/../../../../../../../../../../../..{path}")
}

fn not_found(error: &StepError, step: Step) {
    let usual = [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS].map(|errno| errno.raw_os_error());
    assert!(error.step == step && usual.contains(&error.errno), "{error:?}");
}

fn by_descriptor(fixture: &Fixture) {
    let host = program_of_the_host(fixture);
    let running = fixture.start(&fixture.plan("cat", Vec::new()), &[]).unwrap();
    let mut user = fixture.plan("cat", Vec::new());
    user.namespaces.user = Namespace::New;
    user.id_maps = crate::users::maps(100_000);
    for number in 0..DESCRIPTORS {
        let process = program(&[&through(number, &host), "echo", "out"]);
        for base in [&fixture.plan("", Vec::new()), &user] {
            let mut plan = Plan { process: process.clone(), ..base.clone() };
            plan.cgroup = fixture.planned_cgroup();
            plan.ops[0] = fixture.overlay();
            not_found(&fixture.failure(&plan), Step::Exec);
        }
        not_found(&fixture.exec(&running, &process).unwrap_err(), Step::Exec);
    }
    running.wait();
}

fn cwd_by_descriptor(fixture: &Fixture) {
    let running = fixture.start(&fixture.plan("cat", Vec::new()), &[]).unwrap();
    for number in 3..DESCRIPTORS {
        let mut process = shell("pwd");
        process.cwd = format!("/proc/self/fd/{number}");
        let mut plan = fixture.plan("", Vec::new());
        plan.process = process.clone();
        not_found(&fixture.failure(&plan), Step::Cwd);
        not_found(&fixture.exec(&running, &process).unwrap_err(), Step::Cwd);
    }
    running.wait();
}

/// An image's links at the places of procfs, sysfs and cgroup, and at /dev.
fn kernel_mounts_behind_links(fixture: &Fixture) {
    let expect = |ops: Vec<Op>, at: u32| {
        let error = fixture.failure(&fixture.plan("cat /hidden/keys", ops));
        let expected = (Step::Op(at), Errno::LOOP.raw_os_error());
        assert_eq!((error.step, error.errno), expected, "{error:?}");
        assert!(error.call.contains("symbolic link"), "{error:?}");
    };
    let mask = Op::Mask { path: "/proc/keys".into() };
    // What a tmpfs on /dev covers later.
    symlink("/hidden", fixture.path("image/dev/p")).unwrap();
    fs::create_dir(fixture.path("image/hidden")).unwrap();
    fs::remove_dir(fixture.path("image/proc")).unwrap();
    symlink("/dev/p", fixture.path("image/proc")).unwrap();
    expect(vec![mount("tmpfs", "/dev"), mask], 1);
    // By way of a directory of the image.
    fs::remove_file(fixture.path("image/proc")).unwrap();
    fs::create_dir(fixture.path("image/proc")).unwrap();
    for (name, ops) in [
        ("sys", vec![mount("sysfs", "/sys")]),
        ("sys", vec![mount("cgroup2", "/sys/fs/cgroup")]),
        ("sys", vec![Op::Cgroups { target: "/sys/fs/cgroup".into(), attrs: Default::default() }]),
        ("other", vec![mount("proc", "/other/proc")]),
    ] {
        symlink("/hidden", fixture.path("image").join(name)).unwrap();
        expect(ops, 2);
        fs::remove_file(fixture.path("image").join(name)).unwrap();
    }
    fs::remove_dir_all(fixture.path("image/dev")).unwrap();
    symlink("/hidden", fixture.path("image/dev")).unwrap();
    expect(vec![mount("tmpfs", "/dev")], 2);
    expect(vec![bind(&fixture.text("outside"), "/dev/shm")], 2);
}

/// An image's links into the container's own procfs, of the last part of a destination and of one before.
fn mounts_led_into_procfs(fixture: &Fixture) {
    symlink("/proc/sys", fixture.path("image/data")).unwrap();
    symlink("/proc/version", fixture.path("image/version")).unwrap();
    fs::write(fixture.path("outside/file"), "").unwrap();
    fs::create_dir(fixture.path("outside/empty")).unwrap();
    let (dir, file) = (fixture.text("outside/empty"), fixture.text("outside/file"));
    let last = |op: Op| {
        let error = fixture.failure(&fixture.plan("true", vec![op]));
        let expected = (Step::Op(2), Errno::LOOP.raw_os_error());
        assert_eq!((error.step, error.errno), expected, "{error:?}");
        assert!(error.call.ends_with("a symbolic link leads into a procfs"), "{error:?}");
    };
    last(bind(&dir, "/data"));
    last(bind(&dir, "/data/kernel"));
    last(bind(&file, "/version"));
    last(mount("tmpfs", "/data/kernel"));
    // Links of procfs that stand for what a process has are not followed, and none of these is said to be endless.
    for (number, (aim, below, wanted)) in [
        ("/proc/self/root", "", "a symbolic link leads to what a process has"),
        ("/proc/self/cwd/etc", "/deep", "a symbolic link leads to what a process has"),
        ("/proc/self/exe", "", "a symbolic link leads to what a process has"),
        ("/proc/self/fd/0", "", "a symbolic link leads to what a process has"),
        ("/proc/not-there", "/deep", "a symbolic link leads into a procfs"),
        ("not/there", "/deep", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/led{number}");
        symlink(aim, fixture.path("image").join(&target[1..])).unwrap();
        let plan = fixture.plan("true", vec![bind(&dir, &format!("{target}{below}"))]);
        if wanted.is_empty() {
            fixture.run(&plan);
            continue;
        }
        let error = fixture.failure(&plan);
        assert_eq!(error.step, Step::Op(2), "{error:?}");
        assert!(error.call.ends_with(wanted), "{aim}: {error:?}");
    }
    // A procfs that a volume brings, where the destination names it.
    let ops = vec![bind("/proc", "/host"), bind(&file, "/host/version")];
    assert_eq!(fixture.run(&fixture.plan("wc -c < /host/version", ops)).out, "0");
}

fn kernel_mounts_in_volumes(fixture: &Fixture) {
    fs::create_dir_all(fixture.path("outside/proc")).unwrap();
    let volume = bind(&fixture.text("outside"), "/vol");
    for fstype in ["proc", "sysfs"] {
        let ops = vec![volume.clone(), mount(fstype, "/vol/proc")];
        let error = fixture.failure(&fixture.plan("true", ops));
        let expected = (Step::Op(3), Errno::XDEV.raw_os_error());
        assert_eq!((error.step, error.errno), expected, "{error:?}");
    }
    // Nor can a file be its mount point.
    fs::remove_dir(fixture.path("image/proc")).unwrap();
    fs::write(fixture.path("image/proc"), "").unwrap();
    let error = fixture.failure(&fixture.plan("true", Vec::new()));
    assert_eq!((error.step, error.errno), (Step::Op(1), Errno::NOTDIR.raw_os_error()), "{error:?}");
}

fn masks(fixture: &Fixture) {
    let masked = ["/proc/cpuinfo", "/proc/keys", "/proc/irq", "/proc/not-in-this-kernel"];
    let mut ops = vec![mount("sysfs", "/sys"), device("/dev/null", 1, 3)];
    ops.extend(masked.map(|path| Op::Mask { path: path.into() }));
    ops.push(Op::Readonly { path: "/proc/sys".into() });
    ops.push(Op::Mask { path: "/sys/firmware".into() });
    let script = "cat /proc/cpuinfo /proc/keys; ls /proc/irq /sys/firmware; \
                  (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo refused";
    let out = fixture.says(script, ops.clone());
    let out: Vec<_> = out.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(out, ["/proc/irq:", "/sys/firmware:", "refused"]);
    // What the plan mounts over it is what is seen, and nothing fails.
    ops.push(bind(&fixture.text("outside"), "/proc/irq"));
    fixture.says("true", ops);
}

fn planted_device(fixture: &Fixture) {
    let victim = fixture.path("victim");
    fs::write(&victim, "the host's").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
    // A volume in which another container put a link, at /dev of an image that has the node there.
    let volume = fixture.path("outside");
    symlink(&victim, volume.join("null")).unwrap();
    let inside = fixture.path(&format!("image{}", victim.display()));
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    make_node(&inside, "600", "3");
    let ops = vec![bind(&volume.display().to_string(), "/dev"), device("/dev/null", 1, 3)];
    let error = fixture.failure(&fixture.plan("true", ops));
    assert_eq!(error.step, Step::Op(3), "{error:?}");
    let meta = fs::metadata(&victim).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o600, 0));
}

/// A character device of the memory driver.
fn make_node(path: &Path, mode: &str, minor: &str) {
    let made = std::process::Command::new("mknod")
        .args(["-m", mode])
        .arg(path)
        .args(["c", "1", minor])
        .status();
    assert!(made.unwrap().success());
}

fn nothing_made(fixture: &Fixture) {
    let volume = fixture.path("outside");
    let at = || bind(&volume.display().to_string(), "/dev");
    let link = Op::Symlink { content: "/proc/kcore".into(), path: "/dev/core".into() };
    for op in
        [device("/dev/null", 1, 3), link, mount("tmpfs", "/dev/shm"), device("/dev/a/b", 1, 3)]
    {
        let error = fixture.failure(&fixture.plan("true", vec![at(), op]));
        let expected = (Step::Op(3), Errno::XDEV.raw_os_error());
        assert_eq!((error.step, error.errno), expected, "{error:?}");
    }
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
    // What is there and right will do, and stays as it is.
    make_node(&volume.join("null"), "604", "3");
    fixture.says("test -c /dev/null", vec![at(), device("/dev/null", 1, 3)]);
    assert_eq!(fs::metadata(volume.join("null")).unwrap().mode() & 0o777, 0o604);
}

fn masked_without_null(fixture: &Fixture) {
    let volume = bind(&fixture.text("outside"), "/dev");
    let mask = Op::Mask { path: "/proc/keys".into() };
    fixture.says("[ -z \"$(cat /proc/keys)\" ]", vec![volume, mask]);
    assert_eq!(fs::read_dir(fixture.path("outside")).unwrap().count(), 0);
}

/// Looks for a directory that only the host has through every process that can be seen, and for anything
/// that a descriptor of theirs leads to, until told to end.
fn looker(fixture: &Fixture) -> String {
    let host = fixture.text("outside");
    format!(
        "[ -e {host} ] && echo broken test; echo looking; n=0; \
         while [ ! -e /tmp/end ]; do for p in /proc/[0-9]*; do \
           if [ -e $p/root{host} ] || [ -e $p/cwd{host} ]; then echo FOUND $p; fi; \
           for fd in $p/fd/*; do \
             if [ -e $fd/../../../../../../../../../../..{host} ]; then echo FOUND $fd; fi; done; \
         done; done; echo ended"
    )
}

fn with_ptrace(plan: &mut Plan) {
    let Capabilities { bounding, effective, permitted, .. } = &mut plan.process.capabilities;
    for set in [bounding, effective, permitted] {
        *set |= SYS_PTRACE;
    }
}

fn exec_seen(fixture: &Fixture) {
    let mut plan = fixture.plan(&looker(fixture), vec![mount("tmpfs", "/tmp")]);
    with_ptrace(&mut plan);
    seen_by_execs(fixture, &plan);
}

fn exec_seen_in_userns(fixture: &Fixture) {
    let mut plan = fixture.plan(&looker(fixture), vec![mount("tmpfs", "/tmp")]);
    with_ptrace(&mut plan);
    mapped_root(&mut plan);
    seen_by_execs(fixture, &plan);
}

fn seen_by_execs(fixture: &Fixture, plan: &Plan) {
    let mut running = fixture.start(plan, &[]).unwrap();
    assert_eq!(running.line(), "looking");
    let process = program(&["/bin/true"]);
    for _ in 0..100 {
        assert_eq!(fixture.exec(&running, &process).unwrap().code, 0);
    }
    assert_eq!(fixture.exec(&running, &program(&["/bin/touch", "/tmp/end"])).unwrap().code, 0);
    assert_eq!(running.wait().out, "ended");
}

fn start_seen(fixture: &Fixture) {
    let pause = with_pid_namespace(fixture);
    let mut plan = in_pid_namespace(fixture, &pause, &looker(fixture));
    plan.ops.insert(2, mount("tmpfs", "/tmp"));
    with_ptrace(&mut plan);
    let mut running = fixture.start(&plan, &[]).unwrap();
    assert_eq!(running.line(), "looking");
    for _ in 0..40 {
        let plan = in_pid_namespace(fixture, &pause, "true");
        // As the monitor does, and as `hull oci` does.
        let of_pod = LaunchOptions { procfs: pause.procfs.as_ref(), ..LaunchOptions::default() };
        assert_eq!(fixture.start_as(&plan, &[], &of_pod).unwrap().wait().code, 0);
        assert_eq!(fixture.run(&plan_again(fixture, plan)).code, 0);
    }
    assert_eq!(fixture.exec(&running, &program(&["/bin/touch", "/tmp/end"])).unwrap().code, 0);
    assert_eq!(running.wait().out, "ended");
    pod::stop(&pause);
}

fn plan_again(fixture: &Fixture, plan: Plan) -> Plan {
    let mut plan = Plan { cgroup: fixture.planned_cgroup(), ..plan };
    plan.ops[0] = fixture.overlay();
    plan
}

fn shared_procfs(fixture: &Fixture) {
    let pause = with_pid_namespace(fixture);
    let script = "cat /proc/1/comm; [ -e /proc/$$/status ] && readlink /proc/self/exe; \
                  grep -c ' /proc ' /proc/self/mountinfo; grep ' /proc ' /proc/mounts";
    let plan = in_pid_namespace(fixture, &pause, script);
    let expected = "pause\n/bin/busybox\n1\nproc /proc proc rw,relatime 0 0";
    let of_pod = LaunchOptions { procfs: pause.procfs.as_ref(), ..LaunchOptions::default() };
    let of_pod = fixture.start_as(&plan, &[], &of_pod).unwrap().wait();
    assert_eq!(of_pod.out, expected);
    assert_eq!(fixture.run(&plan_again(fixture, plan)).out, expected);
    // Who joins pause's own mount namespace sees the shared memory and no procfs.
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pause.pid)).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    pod::stop(&pause);
}

fn null_streams(fixture: &Fixture) {
    let null = || -> OwnedFd {
        fs::File::options().read(true).write(true).open("/dev/null").unwrap().into()
    };
    let of_host = fs::metadata("/dev/null").unwrap();
    let of_host = format!("{} {}", of_host.dev(), of_host.ino());
    let script = "for n in 0 1 2; do stat -L -c '%d %i' /proc/self/fd/$n >> /tmp/seen; done; \
                  read line || echo end >> /tmp/seen; echo gone";
    let seen = |ops: Vec<Op>| {
        let volume = fixture.path("outside");
        let mut all = vec![bind(&volume.display().to_string(), "/tmp")];
        all.extend(ops);
        let plan = fixture.plan(script, all);
        let code = fixture.run_on(&plan, [null(), null(), null()]);
        let seen = fs::read_to_string(volume.join("seen")).unwrap_or_default();
        let _gone = fs::remove_file(volume.join("seen"));
        (code, seen)
    };
    let (code, own) = seen(vec![mount("tmpfs", "/dev"), device("/dev/null", 1, 3)]);
    assert_eq!(code, Ok(0));
    assert!(!own.contains(&of_host) && own.lines().count() == 4 && own.ends_with("end\n"), "{own}");
    // Without one there is nowhere for output to go; input ends at once.
    let (code, _) = seen(Vec::new());
    assert_eq!(code.unwrap_err().step, Step::Stdio);
    let out = fixture.run_with_stdin(&fixture.plan("read line || echo end", Vec::new()), null());
    assert_eq!(out, "end");
}

fn image_devices(fixture: &Fixture) {
    let node = fixture.path("image/full");
    make_node(&node, "666", "7");
    let mut plan = fixture.plan("cat /full > /dev/null 2>&1 || echo refused", Vec::new());
    plan.ops.insert(2, device("/dev/null", 1, 3));
    mapped_root(&mut plan);
    let ended = fixture.run(&plan);
    assert_eq!(ended.out, "refused");
    let of_image = Source::Image {
        lower: vec![fixture.text("image"), fixture.text("outside")],
        path: String::new(),
        at: fixture.text("root"),
    };
    let script = "head -c 1 /vol/full > /dev/null 2>&1 || echo refused";
    let ops = vec![bind_of(of_image, "/vol"), device("/dev/null", 1, 3)];
    assert_eq!(fixture.says(script, ops), "refused");
}

/// A filter that answers EPERM to one call.
fn refusing(call: u32) -> Seccomp {
    let item = |code: u16, yes: u8, no: u8, k: u32| {
        [&code.to_ne_bytes()[..], &[yes, no], &k.to_ne_bytes()].concat()
    };
    let bpf = [
        item(0x20, 0, 0, 0),
        item(0x15, 0, 1, call),
        item(0x06, 0, 0, 0x0005_0001),
        item(0x06, 0, 0, 0x7fff_0000),
    ];
    Seccomp { bpf: bpf.concat(), flags: 0 }
}

fn filter_seen(fixture: &Fixture) {
    // Who has the name of this program is on the way to its own.
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let script = format!(
        "echo looking; while [ ! -e /tmp/end ]; do for s in /proc/[0-9]*/status; do \
           read -r _ name 2>&- < $s; [ \"$name\" = \"{}\" ] || continue; \
           grep -q 'Seccomp:.2' $s 2>&- || [ ! -e $s ] || echo FOUND $s; done; done; echo ended",
        name.trim()
    );
    for no_new_privs in [true, false] {
        let plan = fixture.plan(&script, vec![mount("tmpfs", "/tmp")]);
        let mut running = fixture.start(&plan, &[]).unwrap();
        assert_eq!(running.line(), "looking");
        // acct(2): nobody needs it.
        let filtered =
            Process { seccomp: Some(refusing(163)), no_new_privs, ..program(&["/bin/true"]) };
        for _ in 0..60 {
            assert_eq!(fixture.exec(&running, &filtered).unwrap().code, 0);
        }
        let end = Process { args: program(&["/bin/touch", "/tmp/end"]).args, ..filtered };
        assert_eq!(fixture.exec(&running, &end).unwrap().code, 0);
        assert_eq!(running.wait().out, "ended");
    }
}

fn filter_without_clone(fixture: &Fixture) {
    let running = fixture.start(&fixture.plan("cat", Vec::new()), &[]).unwrap();
    let no_clone = hull_sys::filtered_calls::BIRTH[0].number;
    for no_new_privs in [true, false] {
        let process = Process {
            seccomp: Some(refusing(no_clone)),
            no_new_privs,
            ..program(&["/bin/grep", "Seccomp:", "/proc/self/status"])
        };
        let ended = fixture.exec(&running, &process).unwrap();
        assert_eq!((ended.code, ended.out.as_str()), (0, "Seccomp:\t2"));
    }
    running.wait();
}

fn root_in_a_volume(fixture: &Fixture) {
    let around = bind(&fixture.text(""), "/mnt");
    let script = "ls /mnt/root | wc -l; ls /mnt | grep -c '^image$'";
    assert_eq!(fixture.says(script, vec![around]), "0\n1");
}

fn foreign_process(fixture: &Fixture) {
    let pause = with_pid_namespace(fixture);
    let running = fixture.start(&fixture.plan("cat", Vec::new()), &[]).unwrap();
    let known = [(pause.pid, std::os::fd::AsFd::as_fd(&pause.pidfd))];
    let how = LaunchOptions { processes: Some(&known), ..LaunchOptions::default() };
    for kind in ["pid", "net", "ipc", "uts", "user"] {
        for (pid, is_known) in [(pause.pid, true), (running.pid, false), (1, false)] {
            let mut plan = fixture.plan("true", Vec::new());
            let path = Namespace::Join(format!("/proc/{pid}/ns/{kind}"));
            match kind {
                "pid" => plan.namespaces.pid = path,
                "net" => plan.namespaces.net = path,
                "ipc" => plan.namespaces.ipc = path,
                "uts" => plan.namespaces.uts = path,
                _ => plan.namespaces.user = path,
            }
            match fixture.start_as(&plan, &[], &how) {
                Ok(running) => assert!(is_known && running.wait().code == 0, "{kind} {pid}"),
                Err(error) => {
                    // The host's own user namespace maps nothing.
                    let own = kind == "user" && is_known && error.step == Step::Op(0);
                    let refused = !is_known && error.errno == Errno::SRCH.raw_os_error();
                    assert!(own || refused, "{kind} {pid}: {error:?}");
                }
            }
        }
    }
    running.wait();
    pod::stop(&pause);
}
