// SPDX-License-Identifier: Apache-2.0
//! Files, volumes, mounts and devices.

use crate::case::{Case, Set};
use hull_proto::cri as api;
use hull_tests::layer::Layer;
use hull_tests::shell::run;
use hull_tests::{ExpectExt as _, fixture};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// An image whose only file is `data/f`.
fn volume_image() -> String {
    fixture::pushed("zoo-volume", || {
        let layer = Layer::new().dir("data", 0o755).file("data/f", 0o644, "f\n");
        hull_tests::image::Image::new(vec![layer.tar()], json!({}))
    })
}

fn image_volume(sub_path: &str) -> api::Mount {
    api::Mount {
        container_path: "/data".into(),
        image: Some(hull_tests::cri::image(&volume_image())),
        image_sub_path: sub_path.into(),
        readonly: true,
        ..Default::default()
    }
}

fn propagating(setup: &mut crate::case::Setup, propagation: api::MountPropagation) {
    let dir = setup.host_dir("volume");
    let path = dir.display().to_string();
    // Private, also where the machine shares its mounts.
    assert_eq!(run("mount", ["--bind", path.as_str(), path.as_str()]).code, 0);
    setup.undo.by(&["umount", "-l", &path]);
    assert_eq!(run("mount", ["--make-private", path.as_str()]).code, 0);
    setup.mount(&dir, "/data", false);
    setup.container().mounts[0].propagation = propagation.into();
}

pub(crate) static CASES: [Case; 14] = [
    Case {
        name: "a file is mounted over a directory",
        set: Set::Configs(|setup| {
            let file = setup.host_file("f", "x");
            setup.mount(&file, "/var", false);
        }),
        place: &["at `/var`"],
        cause: &["it is a file, and `/var` is a directory"],
        fix: &["add the file's name to the `mountPath`"],
        never: &["check `/var` in the image"],
    },
    Case {
        name: "a directory is mounted over a file",
        set: Set::Configs(|setup| {
            let dir = setup.host_dir("d");
            setup.mount(&dir, "/etc/passwd", false);
        }),
        place: &["at `/etc/passwd`"],
        cause: &["it is a directory, and `/etc/passwd` is a file"],
        fix: &["as `subPath`"],
        never: &[],
    },
    Case {
        name: "a mount point is missing below a read-only volume",
        set: Set::Configs(|setup| {
            let (outer, inner) = (setup.host_dir("outer"), setup.host_dir("inner"));
            setup.mount(&outer, "/data", true);
            setup.mount(&inner, "/data/inner", false);
        }),
        place: &["at `/data/inner`"],
        cause: &["the read-only volume `"],
        fix: &["create the mount point in that volume"],
        never: &["in the image"],
    },
    Case {
        name: "a mount point lies below a file of a volume",
        set: Set::Configs(|setup| {
            let (outer, inner) = (setup.host_dir("outer"), setup.host_dir("inner"));
            fs::write(outer.join("file"), "x").or_fail("write a file of the volume");
            setup.mount(&outer, "/data", false);
            setup.mount(&inner, "/data/file/below", false);
        }),
        place: &["/data/file/below"],
        cause: &["is a file in the volume"],
        fix: &["choose another `mountPath`"],
        never: &["in the image"],
    },
    Case {
        name: "a file on the node is in the way of a volume's source",
        set: Set::Configs(|setup| {
            let below = setup.host_file("file", "x").join("below");
            setup.mount(&below, "/data", false);
        }),
        place: &["/file/below`"],
        cause: &["not a directory"],
        fix: &["remove what is in its way on the node"],
        never: &[],
    },
    Case {
        name: "a volume lies at /proc",
        set: Set::Configs(|setup| {
            let dir = setup.host_dir("proc");
            setup.mount(&dir, "/proc", false);
        }),
        place: &["at `/proc`"],
        cause: &["the volume there is not a procfs"],
        fix: &["mount the volume elsewhere"],
        never: &[],
    },
    Case {
        name: "Bidirectional propagation on a private mount",
        set: Set::Configs(|setup| {
            setup.security().privileged = true;
            hull_tests::cri::pod_security(&mut setup.pod).privileged = true;
            propagating(setup, api::MountPropagation::PropagationBidirectional);
        }),
        place: &["the volume of `"],
        cause: &["is a private mount"],
        fix: &["mount --make-rshared"],
        never: &[],
    },
    Case {
        name: "HostToContainer propagation on a private mount",
        set: Set::Configs(|setup| {
            propagating(setup, api::MountPropagation::PropagationHostToContainer);
        }),
        place: &["the volume of `"],
        cause: &["is a private mount"],
        fix: &["mount --make-rshared"],
        never: &[],
    },
    Case {
        name: "the sub-path of an image volume leads outside",
        set: Set::Configs(|setup| {
            setup.container().mounts.push(image_volume("../../etc"));
        }),
        place: &["an image at `/data`"],
        cause: &["leads outside"],
        fix: &["a `subPath` inside the image"],
        never: &[],
    },
    Case {
        name: "the sub-path of an image volume is missing",
        set: Set::Configs(|setup| {
            setup.container().mounts.push(image_volume("nothere"));
        }),
        place: &["`nothere`"],
        cause: &["no such file or directory"],
        fix: &["correct the `subPath`"],
        never: &[],
    },
    Case {
        name: "a device is missing on the node",
        set: Set::Configs(|setup| {
            setup.container().devices.push(api::Device {
                container_path: "/dev/absent0".into(),
                host_path: "/dev/absent0".into(),
                permissions: "rwm".into(),
            });
        }),
        place: &["/dev/absent0"],
        cause: &["it is not on this node"],
        fix: &["the device plugin that named it"],
        never: &[],
    },
    Case {
        name: "the working directory is a file",
        set: Set::Configs(|setup| setup.container().working_dir = "/etc/passwd".into()),
        place: &["working directory `/etc/passwd`"],
        cause: &["not a directory"],
        fix: &["choose another `workingDir`"],
        never: &[],
    },
    Case {
        name: "a volume that the user may not write to",
        set: Set::Configs(|setup| {
            let dir = setup.host_dir("d");
            setup.mount(&dir, "/data", false);
            setup.user(1000);
            setup.script("echo x > /data/f");
        }),
        place: &["`/data`"],
        cause: &["uid 1000 may not write"],
        fix: &["fsGroup"],
        never: &[],
    },
    Case {
        name: "a program on a volume that is mounted noexec",
        set: Set::Configs(|setup| {
            let dir = setup.host_dir("noexec");
            let path = dir.display().to_string();
            let options = "size=1m,noexec";
            assert_eq!(run("mount", ["-t", "tmpfs", "-o", options, "zoo", path.as_str()]).code, 0);
            setup.undo.by(&["umount", "-l", &path]);
            let file = dir.join("run");
            let written = fs::write(&file, "#!/bin/sh\nexit 0\n");
            written
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
                .or_fail("write a program");
            setup.mount(&dir, "/data", false);
            setup.command(&["/data/run"]);
        }),
        place: &["`/data/run`"],
        cause: &["mounted noexec"],
        fix: &["copy the program into the image"],
        never: &["chmod"],
    },
];
