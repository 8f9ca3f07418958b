// SPDX-License-Identifier: Apache-2.0
//! Images whose /proc, /sys, /dev … are not plain directories, and volumes below those: either the
//! start is refused with the place named, or everything is masked as ever.

use crate::auditor::{self, image_with};
use crate::host_view::HostView;
use crate::shapes::{default_seccomp, mapped};
use hull_proto::cri::ContainerConfig;
use hull_tests::cri::mount;
use hull_tests::layer::Layer;
use hull_tests::{Cri, ExpectExt as _, Node};
use std::fs;
use std::path::Path;
use tonic::{Code, Status};

/// An image: its name, and what is in it beside the auditor.
type Odd = (&'static str, fn(Layer) -> Layer);

/// `proc -> dev/p`, `dev/p -> hidden`: what the link leads to is covered once /dev is mounted.
const IMAGES: &[Odd] = &[
    ("proc-hidden", |l| {
        l.dirs(&["dev", "sys", "hidden"]).symlink("proc", "/dev/p").symlink("dev/p", "/hidden")
    }),
    ("proc-volume", |l| l.dirs(&["dev", "sys", "hidden"]).symlink("proc", "/vol/p")),
    // What the link leads to is covered by the volume, once that is mounted.
    ("proc-volume-hidden", |l| {
        l.dirs(&["dev", "sys", "hidden", "vol"])
            .symlink("proc", "/vol/p")
            .symlink("vol/p", "/hidden")
    }),
    ("proc-volume-link", |l| l.dirs(&["dev", "sys", "hidden"]).symlink("proc", "/vol/link")),
    ("proc-link", |l| l.dirs(&["dev", "sys", "hidden"]).symlink("proc", "/hidden")),
    ("proc-relative", |l| l.dirs(&["dev", "sys", "hidden"]).symlink("proc", "../../hidden")),
    ("proc-dangling", |l| l.dirs(&["dev", "sys"]).symlink("proc", "/nowhere/p")),
    ("proc-loop", |l| l.dirs(&["dev", "sys"]).symlink("proc", "proc")),
    ("proc-to-sys", |l| l.dirs(&["dev", "sys"]).symlink("proc", "/sys")),
    ("proc-to-dev-shm", |l| l.dirs(&["dev", "sys", "dev/shm"]).symlink("proc", "/dev/shm")),
    ("proc-file", |l| l.dirs(&["dev", "sys"]).file("proc", 0o644, "x")),
    ("proc-full", |l| {
        let l = l.dirs(&["dev", "sys", "proc", "hidden"]).symlink("proc/sys", "/hidden");
        l.symlink("proc/keys", "/hidden/keys").file("proc/kcore", 0o644, "x")
    }),
    ("sys-hidden", |l| {
        l.dirs(&["dev", "proc", "hidden"]).symlink("sys", "/dev/s").symlink("dev/s", "/hidden")
    }),
    ("sys-volume", |l| l.dirs(&["dev", "proc", "hidden"]).symlink("sys", "/vol/s")),
    ("sys-volume-hidden", |l| {
        l.dirs(&["dev", "proc", "hidden", "vol"])
            .symlink("sys", "/vol/s")
            .symlink("vol/s", "/hidden")
    }),
    ("dev-volume-hidden", |l| {
        l.dirs(&["proc", "sys", "hidden", "vol"])
            .symlink("dev", "/vol/d")
            .symlink("vol/d", "/hidden")
    }),
    ("sys-link", |l| l.dirs(&["dev", "proc", "hidden"]).symlink("sys", "/hidden")),
    ("sys-file", |l| l.dirs(&["dev", "proc"]).file("sys", 0o644, "x")),
    ("sys-firmware", |l| {
        l.dirs(&["dev", "proc", "sys", "hidden"]).symlink("sys/firmware", "/hidden")
    }),
    ("cgroup-link", |l| {
        l.dirs(&["dev", "proc", "sys", "sys/fs", "hidden"]).symlink("sys/fs/cgroup", "/hidden")
    }),
    ("dev-link", |l| l.dirs(&["proc", "sys", "hidden"]).symlink("dev", "/hidden")),
    ("dev-volume", |l| l.dirs(&["proc", "sys", "hidden"]).symlink("dev", "/vol/d")),
    ("dev-to-proc", |l| l.dirs(&["proc", "sys"]).symlink("dev", "/proc")),
    ("dev-file", |l| l.dirs(&["proc", "sys"]).file("dev", 0o644, "x")),
    ("dev-shm-link", |l| l.dirs(&["proc", "sys", "dev", "hidden"]).symlink("dev/shm", "/hidden")),
    ("dev-pts-link", |l| l.dirs(&["proc", "sys", "dev", "hidden"]).symlink("dev/pts", "/hidden")),
    ("dev-mqueue-link", |l| {
        l.dirs(&["proc", "sys", "dev", "hidden"]).symlink("dev/mqueue", "/proc")
    }),
];

/// A volume with places for what an image's links lead to.
fn volume(node: &Node) -> std::path::PathBuf {
    let dir = node.host_dir().join("vol");
    for name in ["p", "s", "d"] {
        fs::create_dir_all(dir.join(name)).or_fail("make a volume");
    }
    std::os::unix::fs::symlink("/hidden", dir.join("link")).or_fail("make a link in a volume");
    dir
}

/// The refusal when it was refused; what is wrong when it runs with holes.
async fn tried(cri: &Cri, pod: &str, config: ContainerConfig) -> Result<Vec<String>, Status> {
    let made = cri.create(pod, config).await?;
    if let Err(refused) = cri.start(&made).await {
        cri.remove(&made).await.or_fail("remove what did not start");
        return Err(refused);
    }
    let process = HostView(cri.pid(&made).await);
    process.stands_inside();
    let holes = process.holes();
    cri.stop(&made, 0).await.or_fail("stop a container");
    cri.remove(&made).await.or_fail("remove a container");
    Ok(holes)
}

/// A refusal says which place it is about, and is not called a fault of ours.
fn complaint(name: &str, refused: &Status) -> Option<String> {
    let place = format!(
        "/{}",
        name.split('-').next().unwrap_or_default().replace("cgroup", "sys/fs/cgroup")
    );
    let is_named = refused.message().contains(&place) && refused.code() != Code::Internal;
    (!is_named)
        .then(|| format!("{name}: the refusal does not name {place}, or is internal: {refused}"))
}

#[tokio::test]
async fn an_image_with_odd_places_to_mount_at_is_refused_or_as_confined_as_others() {
    let node = Node::start().await;
    let (cri, mut wrong) = (node.cri(), Vec::new());
    let volume = volume(&node);
    let plain = cri.run_pod("plain").await.unwrap();
    let mapped = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    for (name, add) in IMAGES {
        let image = image_with(name, add);
        cri.pull(&image).await.unwrap();
        for (pod, of) in [(&plain, "plain"), (&mapped, "mapped")] {
            let mut config = auditor::container("main", &image, &["wait"]);
            default_seccomp(&mut config);
            config.mounts = vec![mount(&volume, "/vol")];
            match tried(&cri, pod, config).await {
                Ok(holes) => {
                    wrong.extend(holes.into_iter().map(|hole| format!("{name}, {of}: {hole}")))
                }
                Err(refused) => wrong.extend(complaint(name, &refused)),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let made = |dir: &Path| hull_tests::shell::names(dir);
    for name in ["p", "s", "d"] {
        assert_eq!(made(&volume.join(name)), [""; 0], "something was made in the volume's {name}");
    }
}

#[tokio::test]
async fn a_volume_in_the_way_of_a_mask_is_refused_or_leaves_no_hole() {
    let node = Node::start().await;
    let (cri, mut wrong) = (node.cri(), Vec::new());
    let image = image_with("plain-places", |layer| layer.dirs(&["dev", "proc", "sys", "tmp"]));
    cri.pull(&image).await.unwrap();
    let volume = volume(&node);
    let pod = cri.run_pod("plain").await.unwrap();
    let places = [
        "/proc",
        "/proc/",
        "/./proc",
        "/tmp/../proc",
        "/proc/sys",
        "/proc/sys/kernel",
        "/proc/keys",
        "/proc/self",
        "/proc/1",
        "/proc/self/attr",
        "/proc/thread-self",
        "/sys",
        "/sys/firmware",
        "/sys/fs/cgroup",
        "/sys/kernel",
    ];
    for place in places {
        let mut config = auditor::container("main", &image, &["wait"]);
        default_seccomp(&mut config);
        config.mounts = vec![mount(&volume, place)];
        match tried(&cri, &pod, config).await {
            Ok(holes) => wrong.extend(holes.into_iter().map(|hole| format!("{place}: {hole}"))),
            Err(refused) if refused.code() == Code::Internal => {
                wrong.push(format!("{place}: {refused}"))
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
