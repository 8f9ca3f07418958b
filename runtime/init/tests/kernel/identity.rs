// SPDX-License-Identifier: Apache-2.0
//! Attributes of a process when its program starts: ids, rights, limits, signals, descriptors.

use crate::Test;
use crate::fixture::{Fixture, program, shell};
use hull_init::Plan;
use hull_init::plan::{Capabilities, Namespace, Op, Process, Rlimit, Seccomp};
use std::fs;

pub(crate) const TESTS: &[Test] = &[
    ("identity::the_first_process_has_namespaces_of_its_own", namespaces),
    ("identity::ids_groups_and_mask_are_set", ids),
    ("identity::capabilities_are_exactly_those_asked_for", capabilities),
    ("identity::a_user_keeps_ambient_capabilities_only", ambient),
    ("identity::a_filter_denies_with_and_without_new_privileges", seccomp),
    ("identity::limits_and_scores_are_set", limits),
    ("identity::no_signal_is_blocked_or_ignored", signals),
    ("identity::no_descriptor_of_ours_comes_along", descriptors),
    ("identity::a_user_can_open_its_streams_anew", streams),
    ("identity::programs_are_found_as_execvp_finds_them", search),
    ("identity::time_starts_where_it_was_asked_to", time),
    ("identity::the_working_directory_is_the_users", cwd),
];

fn namespaces(fixture: &Fixture) {
    let script = "echo $$; for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let out = fixture.says(script, Vec::new());
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("1"));
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let ours = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let theirs = lines.next().unwrap();
        assert!(theirs.starts_with(name), "{theirs}");
        assert_ne!(theirs, ours.to_str().unwrap());
    }
    let mut plan =
        fixture.plan("readlink /proc/self/ns/uts; readlink /proc/self/ns/net", Vec::new());
    plan.namespaces.uts = Namespace::Inherit;
    plan.namespaces.net = Namespace::Join("/proc/self/ns/net".into());
    let host = ["uts", "net"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
    assert_eq!(fixture.run(&plan).out, format!("{}\n{}", host[0].display(), host[1].display()));
}

fn with(fixture: &Fixture, script: &str, change: impl FnOnce(&mut Process)) -> Plan {
    let mut plan = fixture.plan(script, Vec::new());
    change(&mut plan.process);
    plan
}

fn ids(fixture: &Fixture) {
    let script = "id -u; id -g; id -G; umask; pwd; echo $NAME";
    let plan = with(fixture, script, |process| {
        (process.uid, process.gid) = (1000, 1001);
        process.groups = vec![1001, 5, 4_000_000_000];
        process.umask = Some(0o027);
        process.cwd = "/tmp".into();
        process.env.push(b"NAME=value".to_vec());
    });
    let ended = fixture.run(&plan);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "1000\n1001\n1001 5 4000000000\n0027\n/tmp\nvalue")
    );
    assert_eq!(fixture.says("umask", Vec::new()), "0022");
}

/// The capability sets in the order of /proc/pid/status: inheritable, permitted, effective, bounding,
/// ambient; then no-new-privs.
fn sets(fixture: &Fixture, plan: &Plan) -> Vec<u64> {
    let ended = fixture.run(plan);
    assert_eq!(ended.code, 0, "{}", ended.out);
    ended.out.lines().map(|line| u64::from_str_radix(line, 16).unwrap()).collect()
}

const SHOW_SETS: &str =
    "while read -r k v _; do case $k in Cap*|NoNew*) echo $v;; esac; done < /proc/self/status";

fn capabilities(fixture: &Fixture) {
    let (few, more) = (0b1011, 0b1111);
    let plan = with(fixture, SHOW_SETS, |process| {
        process.capabilities = Capabilities {
            bounding: more,
            effective: few,
            permitted: few,
            inheritable: 0,
            ambient: 0,
        };
    });
    assert_eq!(sets(fixture, &plan), [0, few, few, more, 0, 1]);
    // Without no-new-privs the exec of root raises to the bounding set: that is why it is dropped.
    let mut plan = plan;
    (plan.ops[0], plan.process.no_new_privs) = (fixture.overlay(), false);
    assert_eq!(sets(fixture, &plan), [0, more, more, more, 0, 0]);
    let plan = with(fixture, SHOW_SETS, |process| {
        process.capabilities = Capabilities::default();
        process.no_new_privs = false;
    });
    assert_eq!(sets(fixture, &plan), [0, 0, 0, 0, 0, 0]);
}

fn ambient(fixture: &Fixture) {
    let (usual, net_bind) = (0xa804_25fb, 1 << 10);
    let user = |process: &mut Process| {
        (process.uid, process.gid) = (1000, 1000);
        process.capabilities.bounding = usual;
    };
    let plan = with(fixture, SHOW_SETS, user);
    assert_eq!(sets(fixture, &plan), [0, 0, 0, usual, 0, 1]);
    let plan = with(fixture, SHOW_SETS, |process| {
        user(process);
        process.capabilities.inheritable = net_bind;
        process.capabilities.ambient = net_bind;
    });
    assert_eq!(sets(fixture, &plan), [net_bind, net_bind, net_bind, usual, net_bind, 1]);
}

/// Allows all but one call of x86-64, which fails with EPERM.
fn deny(call: u32) -> Seccomp {
    let (load, jump_equal, give) = (0x20_u16, 0x15_u16, 0x06_u16);
    let (allow, eperm) = (0x7fff_0000_u32, 0x0005_0001_u32);
    let items = [
        (load, 0_u8, 0_u8, 0_u32),
        (jump_equal, 0, 1, call),
        (give, 0, 0, eperm),
        (give, 0, 0, allow),
    ];
    let bpf = items.iter().flat_map(|(code, yes, no, value)| {
        [&code.to_ne_bytes()[..], &[*yes, *no], &value.to_ne_bytes()].concat()
    });
    Seccomp { bpf: bpf.collect(), flags: 0 }
}

fn seccomp(fixture: &Fixture) {
    let mkdir = 83;
    let script = "mkdir /tmp/x 2>&1; touch /tmp/y && while read -r k v; do [ $k = Seccomp: ] && echo $v; done < /proc/self/status; true";
    for no_new_privs in [true, false] {
        for uid in [0, 1000] {
            let plan = with(fixture, script, |process| {
                process.no_new_privs = no_new_privs;
                process.uid = uid;
                process.seccomp = Some(deny(mkdir));
            });
            fs::set_permissions(
                fixture.path("image/tmp"),
                std::os::unix::fs::PermissionsExt::from_mode(0o1777),
            )
            .unwrap();
            let ended = fixture.run(&plan);
            let expected = "mkdir: can't create directory '/tmp/x': Operation not permitted\n2";
            assert_eq!(ended.out, expected, "no_new_privs {no_new_privs}, uid {uid}");
        }
    }
}

fn limits(fixture: &Fixture) {
    let script =
        "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat";
    let plan = with(fixture, script, |process| {
        process.rlimits = vec![
            Rlimit { resource: 7, soft: 123, hard: 456 },
            // More than we have: cut to what we have, where we may not raise it.
            Rlimit { resource: 6, soft: u64::MAX, hard: u64::MAX },
        ];
        process.oom_score_adj = Some(900);
        process.scheduler = Some((0, 5, 0));
        process.io_priority = Some((2, 7));
    });
    let ended = fixture.run(&plan);
    assert_eq!((ended.code, ended.out.as_str()), (0, "123\n456\n900\n5"));
    let plan = with(fixture, "uname -m", |process| process.personality = Some(8));
    assert_eq!(fixture.run(&plan).out, "i686", "PER_LINUX32");
}

fn signals(fixture: &Fixture) {
    // As the monitor is: SIGPIPE and SIGHUP ignored, SIGCHLD blocked.
    drop(hull_sys::block_signals().unwrap());
    let mut plan = fixture.plan("", Vec::new());
    plan.process = program(&["/bin/cat", "/proc/self/status"]);
    let out = fixture.run(&plan).out;
    hull_sys::reset_signals().unwrap();
    let of = |name: &str| {
        out.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    assert_eq!([of("SigBlk:"), of("SigIgn:"), of("SigCgt:")], ["0000000000000000"; 3]);
}

fn descriptors(fixture: &Fixture) {
    // Not close-on-exec, as one of a careless library.
    let leak = fs::File::open(fixture.path("outside")).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let mut plan = fixture.plan("", Vec::new());
    plan.process = program(&["/bin/ls", "/proc/self/fd"]);
    // 3 is the directory that ls reads.
    assert_eq!(fixture.run(&plan).out, "0\n1\n2\n3");
    drop(leak);
}

fn streams(fixture: &Fixture) {
    let plan = with(
        fixture,
        "echo to stdout > /proc/self/fd/1; echo to stderr > /proc/self/fd/2",
        |process| {
            (process.uid, process.gid) = (1000, 1000);
        },
    );
    assert_eq!(fixture.run(&plan).out, "to stdout\nto stderr");
}

fn search(fixture: &Fixture) {
    use std::os::unix::fs::PermissionsExt as _;
    for (dir, mode) in [("first", 0o644), ("second", 0o755)] {
        let file = fixture.path(&format!("image/{dir}/tool"));
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("#!/bin/sh\necho {dir}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut plan = fixture.plan("", Vec::new());
    plan.process = program(&["tool"]);
    for (path, says) in [("/none:/first:/second", "second"), ("/etc:/second:/bin", "second")] {
        plan.process.env = vec![format!("PATH={path}").into_bytes()];
        plan.ops[0] = fixture.overlay();
        assert_eq!(fixture.run(&plan).out, says);
    }
    plan.process = program(&["second/tool"]);
    plan.ops[0] = fixture.overlay();
    assert_eq!(fixture.run(&plan).out, "second", "beneath the working directory");
    plan.process = shell("exit 7");
    plan.ops[0] = fixture.overlay();
    assert_eq!(fixture.run(&plan).code, 7);
}

fn time(fixture: &Fixture) {
    let mut plan = fixture.plan("cat /proc/uptime; readlink /proc/self/ns/time", Vec::new());
    plan.namespaces.time = Namespace::New;
    plan.namespaces.time_offsets = vec![(7, 1_000_000_000, 0)];
    let ours = fs::read_link("/proc/self/ns/time").unwrap();
    let ended = fixture.run(&plan);
    let (uptime, theirs) = ended.out.split_once('\n').unwrap();
    assert!(uptime.split('.').next().unwrap().parse::<u64>().unwrap() > 1_000_000_000, "{uptime}");
    assert_ne!(theirs, ours.to_str().unwrap());
    // What comes after is in ours again.
    let after = fixture.says("readlink /proc/self/ns/time", Vec::new());
    assert_eq!(after, ours.to_str().unwrap());
}

fn cwd(fixture: &Fixture) {
    use std::os::unix::fs::PermissionsExt as _;
    let own = fixture.path("image/own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).unwrap();
    let made = Op::Mkdir { path: "/made/for/it".into(), mode: 0o755 };
    for at in ["/own", "/made/for/it"] {
        let mut plan = fixture.plan("pwd", vec![made.clone()]);
        plan.process.uid = 1000;
        plan.process.capabilities = Capabilities::default();
        plan.process.cwd = at.into();
        assert_eq!(fixture.run(&plan).out, at);
    }
}
