// SPDX-License-Identifier: Apache-2.0
//! User namespaces and mapped ids.

use crate::Test;
use crate::fixture::{Fixture, bind, device, mount_with};
use hull_init::plan::{IdMap, IdMaps, Namespace, Op, Step};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

pub(crate) const TESTS: &[Test] = &[
    ("users::root_inside_is_nobody_outside", root_inside),
    ("users::a_bind_with_mapped_ids_shows_them_mapped", mapped_bind),
    ("users::ids_without_a_map_are_refused", unmapped),
];

fn maps(outside: u32) -> IdMaps {
    let range = vec![IdMap { inside: 0, outside, length: 65_536 }];
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
