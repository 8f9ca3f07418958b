// SPDX-License-Identifier: Apache-2.0
//! Masked and read-only paths in volumes.

use crate::Test;
use crate::fixture::{Fixture, bind, device, mount};
use hull_init::plan::{Op, Propagation};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::symlink;

pub(crate) const TESTS: &[Test] = &[
    ("volumes::masks_lie_on_the_volumes_at_their_paths", masks_on_volumes),
    ("volumes::no_mask_reaches_the_host_through_a_shared_volume", masks_on_shared_volumes),
    ("volumes::a_mask_follows_no_link_in_a_volume", mask_behind_a_link),
];

/// The host's own /proc or /sys, and volumes at or above masked paths, as monitoring agents have them.
fn masks_on_volumes(fixture: &Fixture) {
    fs::create_dir_all(fixture.path("outside/firmware")).unwrap();
    fs::write(fixture.path("outside/firmware/table"), "not masked\n").unwrap();
    let end = [
        Op::Mask { path: "/proc/keys".into() },
        Op::Mask { path: "/sys/firmware".into() },
        Op::Readonly { path: "/proc/sys".into() },
    ];
    let kernels = vec![mount("sysfs", "/sys"), device("/dev/null", 1, 3)];
    let outside = fixture.text("outside");
    for volume in [
        bind("/proc", "/proc"),
        bind("/sys", "/sys"),
        bind(&outside, "/sys"),
        bind(&format!("{outside}/firmware"), "/sys/firmware"),
    ] {
        let mut ops = kernels.clone();
        ops.push(volume.clone());
        ops.extend(end.clone());
        let script = "cat /proc/keys; ls -A /sys/firmware; \
            (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo refused";
        assert_eq!(fixture.says(script, ops), "refused", "{volume:?}");
    }
}

/// A mount in a volume with Bidirectional propagation appears on the host, and stays there.
fn masks_on_shared_volumes(fixture: &Fixture) {
    let outside = fixture.text("outside");
    fs::create_dir_all(fixture.path("outside/firmware")).unwrap();
    fs::write(fixture.path("outside/firmware/table"), "the host's").unwrap();
    let shared = |args: &[&str]| {
        let made = std::process::Command::new("mount").args(args).arg(&outside).status();
        assert!(made.unwrap().success(), "{args:?}");
    };
    shared(&["--bind", &outside]);
    shared(&["--make-shared"]);
    for (target, end) in [
        ("/sys", Op::Mask { path: "/sys/firmware".into() }),
        ("/sys", Op::Readonly { path: "/sys/firmware".into() }),
        ("/data", Op::Mask { path: "/data/firmware".into() }),
    ] {
        let mut volume = bind(&outside, target);
        if let Op::Bind { propagation, .. } = &mut volume {
            *propagation = Some(Propagation::Shared);
        }
        let ops = vec![mount("sysfs", "/sys"), device("/dev/null", 1, 3), volume, end];
        let error = fixture.failure(&fixture.plan("true", ops));
        assert_eq!(error.errno, Errno::PERM.raw_os_error(), "{error:?}");
        assert!(error.call.contains("Bidirectional"), "{error:?}");
        let text = fs::read_to_string(fixture.path("outside/firmware/table"));
        assert_eq!(text.unwrap(), "the host's", "{target}");
    }
    let gone = std::process::Command::new("umount").arg(&outside).status();
    assert!(gone.unwrap().success());
}

/// Another container may have put it there.
fn mask_behind_a_link(fixture: &Fixture) {
    symlink("/etc", fixture.path("outside/firmware")).unwrap();
    let ops = vec![
        mount("sysfs", "/sys"),
        bind(&fixture.text("outside"), "/sys"),
        Op::Mask { path: "/sys/firmware".into() },
    ];
    let error = fixture.failure(&fixture.plan("true", ops));
    assert_eq!(error.errno, Errno::LOOP.raw_os_error(), "{error:?}");
}
