// SPDX-License-Identifier: Apache-2.0
//! Every step that can fail says which it was, and leaves nothing but an empty cgroup.

use crate::Test;
use crate::fixture::{Fixture, bind, mount};
use hull_init::plan::{IdMap, IdMaps, Namespace, NamespaceKind, Op, Rlimit, Seccomp, Step};
use hull_init::{Plan, StepError};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

pub(crate) const TESTS: &[Test] = &[
    ("failures::of_operations_have_their_index", operations),
    ("failures::of_namespaces_name_their_kind", joins),
    ("failures::of_the_process_name_their_step", process),
    ("failures::of_programs_keep_the_errno", programs),
    ("failures::of_cgroups_name_the_limit", cgroups),
];

#[track_caller]
fn expect(error: &StepError, step: Step, errno: Errno) {
    assert_eq!((error.step, error.errno), (step, errno.raw_os_error()), "{}", error.call);
    assert!(!error.call.is_empty());
}

fn operations(fixture: &Fixture) {
    let cases = [
        (bind("/no/such/source", "/v"), Errno::NOENT),
        (bind("/etc", "/bin/sh"), Errno::NOTDIR),
        (bind("/etc/hostname", "/bin"), Errno::ISDIR),
        (mount("no-such-fs", "/v"), Errno::NODEV),
        (Op::Mkdir { path: "/bin/sh".into(), mode: 0o755 }, Errno::NOTDIR),
        (Op::Hostname("x".repeat(65)), Errno::INVAL),
    ];
    for (op, errno) in cases {
        expect(&fixture.failure(&fixture.plan("true", vec![op])), Step::Op(2), errno);
    }
    let mut plan = fixture.plan("true", Vec::new());
    let Op::RootOverlay { lower, .. } = &mut plan.ops[0] else { unreachable!() };
    lower.push("/no/such/layer".into());
    expect(&fixture.failure(&plan), Step::Op(0), Errno::NOENT);
    let mut plan = fixture.plan("true", Vec::new());
    plan.ops.remove(0);
    expect(&fixture.failure(&plan), Step::Op(0), Errno::INVAL);
}

fn joins(fixture: &Fixture) {
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.net = Namespace::Join("/no/such".into());
    expect(&fixture.failure(&plan), Step::Join(NamespaceKind::Net), Errno::NOENT);
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.ipc = Namespace::Join("/proc/self/ns/net".into());
    expect(&fixture.failure(&plan), Step::Join(NamespaceKind::Ipc), Errno::INVAL);
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.pid = Namespace::Join("/etc/hostname".into());
    expect(&fixture.failure(&plan), Step::Join(NamespaceKind::Pid), Errno::INVAL);
    let mut plan = fixture.plan("true", Vec::new());
    plan.namespaces.user = Namespace::New;
    let twice = IdMap { container_id: 0, host_id: 100_000, length: 10 };
    plan.id_maps = IdMaps { uids: vec![twice, twice], gids: vec![twice] };
    let error = fixture.failure(&plan);
    // Its layers are mapped by the same maps, so that comes first.
    assert!(matches!(error.step, Step::Op(0) | Step::IdMaps), "{error:?}");
    assert_eq!(error.errno, Errno::INVAL.raw_os_error());
}

fn changed(fixture: &Fixture, change: impl FnOnce(&mut Plan)) -> StepError {
    let mut plan = fixture.plan("true", Vec::new());
    change(&mut plan);
    fixture.failure(&plan)
}

fn process(fixture: &Fixture) {
    let error = changed(fixture, |plan| {
        plan.process.rlimits = vec![
            Rlimit { resource: 7, soft: 10, hard: 20 },
            Rlimit { resource: 7, soft: 20, hard: 10 },
        ];
    });
    expect(&error, Step::Rlimit(1), Errno::INVAL);
    let error = changed(fixture, |plan| plan.process.oom_score_adj = Some(5000));
    expect(&error, Step::OomScore, Errno::INVAL);
    for no_new_privs in [true, false] {
        let error = changed(fixture, |plan| {
            plan.process.no_new_privs = no_new_privs;
            // A jump past the end.
            plan.process.seccomp = Some(Seccomp { bpf: vec![5, 0, 0, 0, 9, 0, 0, 0], flags: 0 });
        });
        expect(&error, Step::Seccomp, Errno::INVAL);
    }
    // To the kernel this one means "stay what you are": root.
    let no_ids: [fn(&mut Plan); 3] = [
        |plan| plan.process.uid = u32::MAX,
        |plan| plan.process.gid = u32::MAX,
        |plan| plan.process.groups = vec![u32::MAX],
    ];
    for change in no_ids {
        expect(&changed(fixture, change), Step::Identity, Errno::INVAL);
    }
    let error = changed(fixture, |plan| plan.process.scheduler = Some((99, 0, 0)));
    expect(&error, Step::Scheduling, Errno::INVAL);
    let error = changed(fixture, |plan| plan.process.cwd = "/bin/sh".into());
    expect(&error, Step::Cwd, Errno::NOTDIR);
    if !std::path::Path::new("/sys/kernel/security/apparmor").is_dir() {
        let error = changed(fixture, |plan| plan.process.apparmor = Some("no-such".into()));
        assert_eq!(error.step, Step::SecurityModule, "{error:?}");
    }
}

fn programs(fixture: &Fixture) {
    let file = |name: &str, content: &str, mode: u32| {
        let path = fixture.path(&format!("image/{name}"));
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", "x", 0o644);
    file("windows", "#!/bin/sh\r\necho\r\n", 0o755);
    file("empty", "", 0o755);
    file("bin/hidden", "x", 0o644);
    for (args, errno) in [
        (&["/no/such"][..], Errno::NOENT),
        (&["no-such"], Errno::NOENT),
        (&["/plain"], Errno::ACCESS),
        (&["hidden"], Errno::ACCESS),
        (&["/windows"], Errno::NOENT),
        (&["/empty"], Errno::NOEXEC),
        (&["/plain/x"], Errno::NOTDIR),
        (&[""], Errno::NOENT),
        (&[], Errno::NOENT),
        (&["/bin/sh\0x"], Errno::INVAL),
    ] {
        let error = changed(fixture, |plan| plan.process = crate::fixture::program(args));
        expect(&error, Step::Exec, errno);
    }
}

fn cgroups(fixture: &Fixture) {
    let error = changed(fixture, |plan| plan.cgroup.path = "/../outside".into());
    assert_eq!(error.step, Step::Cgroup);
    let error = changed(fixture, |plan| plan.cgroup.limits.cpuset_cpus = Some("9999".into()));
    assert_eq!(error.step, Step::Cgroup, "{error:?}");
}
