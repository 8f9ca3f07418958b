// SPDX-License-Identifier: Apache-2.0
//! Classes of resources, which a pod chooses by the annotations that containerd and CRI-O read; and cgroups that a
//! container may divide.

use hull_tests::cri::{Cri, idle};
use hull_tests::{ExpectExt as _, Node, fixture, host, node, shell};
use std::fs;
use std::path::{Path, PathBuf};

const POD: &str = "blockio.resources.beta.kubernetes.io/pod";
const OF_WEB: &str = "blockio.resources.beta.kubernetes.io/container.web";
const RDT_POD: &str = "rdt.resources.beta.kubernetes.io/pod";

/// A disk of this machine, by its path and its number.
fn disk() -> (String, String) {
    let names = shell::names(Path::new("/sys/block"));
    let found = names.into_iter().find_map(|name| {
        let number = fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
        let path = format!("/dev/{name}");
        fs::metadata(&path).is_ok().then(|| (path, number.trim().to_owned()))
    });
    found.or_fail("find a disk")
}

/// The content of one of these files in a container's own cgroup; empty where the host has none of them.
fn limit(node: &Node, container: &str, files: [&str; 2]) -> String {
    let tops = host::hierarchies().into_iter();
    let tops = tops.map(|of| of.join(node.names().cgroup.trim_start_matches('/')));
    let mut texts = tops.filter_map(|top| find(&top, container)).flat_map(|dir| {
        files.into_iter().filter_map(move |file| fs::read_to_string(dir.join(file)).ok())
    });
    texts.next().unwrap_or_default()
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries = shell::names(dir).into_iter().map(|entry| dir.join(entry));
    let mut dirs = entries.filter(|path| path.is_dir());
    dirs.find_map(|path| if path.ends_with(name) { Some(path) } else { find(&path, name) })
}

/// The verbose status of a container: its spec, and remarks on its config.
async fn info(cri: &Cri, container: &str) -> String {
    let status = cri.inspect(container).await.or_fail("get a container's status");
    status.info.get("info").cloned().or_fail("find `info` in the verbose status")
}

/// Runs a pod whose name is that of the class, as a second request for a name gets the first one's pod.
async fn pod(cri: &Cri, annotations: &[(&str, &str)]) -> String {
    let class = annotations.first().map_or("", |(_, class)| class);
    let mut config = cri.pod_config(&format!("web{class}"));
    let pairs = annotations.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    config.annotations.extend(pairs);
    cri.run_pod_with(config).await.or_fail("run a pod")
}

/// Whether this machine has the controller for limits of disks.
fn has_io() -> bool {
    host::hierarchies().iter().any(|root| {
        fs::metadata(root.join("blkio.throttle.read_bps_device")).is_ok()
            || fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|of| of.split_whitespace().any(|name| name == "io"))
    })
}

#[tokio::test]
async fn a_class_of_block_io_limits_the_disks_of_its_file_from_the_create_on() {
    if !has_io() {
        println!("this host has no controller for limits of disks");
        return;
    }
    let dir = tempfile::tempdir().or_fail("make a directory");
    let (path, number) = disk();
    let text = format!(
        "Classes:\n  slow:\n    - Devices: [{path}, /dev/no-such-disk*]\n      ThrottleReadBps: 7340032\n  \
         fast:\n    - Devices: [{path}]\n      ThrottleReadBps: 70M\n  odd:\n    - Devices: [/dev/no-such-disk*]\n      \
         ThrottleReadBps: 1M\n"
    );
    let file = node::write(dir.path(), "blockio.yaml", &text);
    let mut node = Node::start_with(&format!("[runtime]\nblockio_config_file = {file:?}\n")).await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.or_fail("pull");
    let of = pod(&cri, &[(POD, "slow"), (OF_WEB, "fast")]).await;
    let files = ["io.max", "blkio.throttle.read_bps_device"];
    let (slow, fast) = (idle("db", &image), idle("web", &image));
    let (slow, fast) = (cri.run(&of, slow).await, cri.create(&of, fast).await.or_fail("create"));
    let line = limit(&node, &slow, files);
    assert!(line.contains(&number) && line.contains("7340032"), "{line:?}");
    let spec = info(&cri, &slow).await;
    assert!(spec.contains("throttleReadBpsDevice"), "{spec}");

    // A class is what it was when the container was created.
    fs::remove_file(&file).or_fail("remove the file");
    node.restart().await;
    let cri = node.cri();
    cri.start(&fast).await.or_fail("start");
    let line = limit(&node, &fast, files);
    assert!(line.contains(&number) && line.contains("70000000"), "{line:?}");
    let refused = cri.create(&of, idle("late", &image)).await.unwrap_err();
    assert!(refused.message().contains("blockio.yaml"), "{refused}");

    let _written = node::write(dir.path(), "blockio.yaml", &text);
    let of = pod(&cri, &[(POD, "odd")]).await;
    let odd = cri.run(&of, idle("main", &image)).await;
    let text = info(&cri, &odd).await;
    assert!(text.contains("its class of block I/O") && text.contains("no-such-disk"), "{text}");
}

#[tokio::test]
async fn a_class_that_a_node_does_not_have_is_refused_with_those_that_there_are() {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let file = node::write(dir.path(), "b.yaml", "Classes: {slow: [{Weight: 20}]}");
    let node = Node::start_with(&format!("[runtime]\nblockio_config_file = {file:?}\n")).await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.or_fail("pull");
    let create = async |annotations: &[(&str, &str)]| {
        let of = pod(&cri, annotations).await;
        cri.create(&of, idle("main", &image)).await
    };
    let refused = create(&[(POD, "fast")]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let text = refused.message();
    assert!(text.contains("`fast`") && text.contains("only `slow`"), "{text}");
    assert!(text.contains(POD) && text.contains("hint:"), "{text}");
    create(&[(POD, "")]).await.or_fail("create without a class");
    if fs::metadata("/sys/fs/resctrl").is_err() {
        let refused = create(&[(RDT_POD, "gold")]).await.unwrap_err();
        let text = refused.message();
        assert!(text.contains("RDT class `gold`") && text.contains("no resctrl"), "{text}");
        assert!(text.contains("hint:"), "{text}");
    }
}

#[tokio::test]
async fn without_a_file_a_class_of_block_io_is_refused_and_other_pods_start() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.or_fail("pull");
    let of = pod(&cri, &[(OF_WEB, "slow")]).await;
    let refused = cri.create(&of, idle("web", &image)).await.unwrap_err();
    assert!(refused.message().contains("runtime.blockio_config_file"), "{refused}");
    cri.run(&of, idle("db", &image)).await;
}

#[tokio::test]
async fn cgroups_are_not_writable_where_limits_would_be_in_reach() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    cri.pull(&image).await.or_fail("pull");
    let of = pod(&cri, &[("hull.run/cgroup-writable", "true")]).await;
    let refused = cri.create(&of, idle("main", &image)).await.unwrap_err();
    let text = refused.message();
    assert!(text.contains("no user namespace") && text.contains("hint:"), "{text}");
    let of = pod(&cri, &[("hull.run/cgroup-writable", "false")]).await;
    let group =
        if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok() { "x" } else { "pids/x" };
    let script = format!("mkdir /sys/fs/cgroup/{group} 2> /dev/null || echo refused");
    let said = cri.output(&of, hull_tests::cri::shell("main", &image, &script)).await;
    assert_eq!(said.stdout, "refused\n", "{said:?}");
}
