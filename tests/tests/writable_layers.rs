// SPDX-License-Identifier: Apache-2.0
//! Limits of writable layers, on a filesystem with project quotas: an image file in a loop device.

use hull_proto::cri as api;
use hull_tests::cri::shell;
use hull_tests::shell::{run, say};
use hull_tests::{ExpectExt as _, Node, paths};
use std::fs;
use std::path::{Path, PathBuf};

/// A mounted filesystem with project quotas; taken away again when dropped.
struct Quotas {
    /// Has the directory that the daemon uses.
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl Quotas {
    /// `None` where the kernel has no project quotas for this filesystem.
    fn mounted(test: &str, kind: &str) -> Option<Self> {
        let make = format!("mkfs.{kind}");
        if fs::metadata("/dev/loop-control").is_err() && run("modprobe", ["loop"]).code != 0 {
            paths::cannot_run(test, "loop devices");
            return None;
        }
        let there = ["/sbin", "/usr/sbin"].iter().any(|dir| Path::new(dir).join(&make).is_file());
        if !there {
            paths::cannot_run(test, &format!("{make} (scripts/setup)"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("hlq").tempdir_in("/var/tmp").or_fail("make it");
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        fs::create_dir(&mount).or_fail("make a mount point");
        let new = fs::File::options().write(true).create_new(true).open(&image);
        let file = new.or_fail("make an image file");
        file.set_len(400 << 20).or_fail("give it a size");
        let (image, at) = (image.display().to_string(), mount.display().to_string());
        let options: &[&str] = match kind {
            "ext4" => &["-q", "-O", "project,quota", "-E", "quotatype=prjquota"],
            _ => &["-q"],
        };
        let _made = run(&make, options.iter().copied().chain([image.as_str()])).good();
        let mounted = run("mount", ["-t", kind, "-o", "loop,prjquota", &image, &at]);
        if mounted.code != 0 {
            // No program on this machine can change that: another kernel is needed (scripts/vm).
            say(&format!("NOT RUN: {test}: this kernel has no project quotas for {kind}"));
            return None;
        }
        Some(Self { mount, _dir: dir })
    }

    fn settings(&self, more: &str) -> String {
        format!("data_dir = '{}/data'\n{more}", self.mount.display())
    }

    /// The number of projects that have a limit.
    fn limits(&self) -> usize {
        let directory = fs::File::open(&self.mount).or_fail("open the filesystem");
        let mut from = 1;
        let mut found = 0;
        while let Some((project, usage)) =
            hull_sys::quota::next_project(std::os::fd::AsFd::as_fd(&directory), from)
                .or_fail("read the quotas")
        {
            found += usize::from(usage.limit_bytes > 0);
            from = project + 1;
        }
        found
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        let _ran = run("umount", ["-l", &self.mount.display().to_string()]);
    }
}

/// The output of `hull check` with the configuration of a node.
fn checked(node: &Node) -> hull_tests::shell::Ran {
    let config = node.names().root.join("hull.toml").display().to_string();
    run(paths::hull(), ["--config", config.as_str(), "check"])
}

async fn of_filesystem(kind: &str) {
    let test = format!("a_writable_layer_has_no_more_than_its_limit_on_{kind}");
    let Some(quotas) = Quotas::mounted(&test, kind) else { return };
    {
        let settings = quotas.settings("[runtime]\nwritable_layer_size = '20m'\n");
        let mut node = Node::start_with(&settings).await;
        let check = checked(&node);
        assert!(check.stdout.contains("writable layers can have a limit"), "{check:?}");
        let cri = node.cri();
        let image = hull_tests::fixture::busybox();
        let _id = cri.pull(&image).await.or_fail("pull");
        let mut config = cri.pod_config("web");
        config.annotations.insert("hull.run/writable-layer-size.small".into(), "5m".into());
        let pod = cri.run_pod_with(config).await.or_fail("run a pod");
        // Directory by directory, renamed files, and removed ones count for the same limit.
        let write =
            "mkdir -p /a/b; head -c 8000000 /dev/zero > /a/b/x && mv /a/b/x /y && echo fits";
        let fits = cri.run(&pod, shell("fits", &image, write)).await;
        assert_eq!(cri.ended(&fits).await.exit_code, 0);
        let small = cri.run(&pod, shell("small", &image, write)).await;
        let status = cri.ended(&small).await;
        assert_ne!(status.exit_code, 0);
        for part in ["writable layer is full", "its limit of 5 MiB", "writable_layer_size"] {
            assert!(status.message.contains(part), "{part}: {}", status.message);
        }
        assert_eq!(quotas.limits(), 2);
        // While it runs, its status says so, also to the next daemon; and one of them does not take from another.
        let script = "head -c 30000000 /dev/zero > /x; exec sleep 100000";
        let runs = cri.run(&pod, shell("runs", &image, script)).await;
        node.kill();
        node.start_again().await;
        let cri = node.cri();
        hull_tests::eventually("its status says that it is full", || async {
            let message = cri.status(&runs).await.message;
            if message.contains("its limit of 20 MiB") { Ok(()) } else { Err(message) }
        })
        .await;
        let again = cri.run(&pod, shell("again", &image, write)).await;
        assert_eq!(cri.ended(&again).await.exit_code, 0);
        let mut config = cri.pod_config("greedy");
        config.annotations.insert("hull.run/writable-layer-size".into(), "30m".into());
        let greedy = cri.run_pod_with(config).await.or_fail("run a pod");
        let refused =
            cri.create(&greedy, shell("main", &image, "true")).await.err().or_fail("be refused");
        assert!(refused.message().contains("more than this node allows, 20m"), "{refused}");
        cri.remove_all_pods().await.or_fail("remove the pods");
        assert_eq!(quotas.limits(), 0, "limits are left");
        // Of a removal that was interrupted.
        let directory = fs::File::open(&quotas.mount).or_fail("open the filesystem");
        let fd = std::os::fd::AsFd::as_fd(&directory);
        hull_sys::quota::limit_project(fd, 0x4860_0000, 1 << 20).or_fail("leave a limit");
        let found = node.hull(&["doctor"]);
        assert!(found.stdout.contains("project 1214251008"), "{found:?}");
        let _fixed = node.hull(&["doctor", "--fix"]);
        assert_eq!(quotas.limits(), 0, "the leak is left");
    }
}

#[tokio::test]
async fn a_writable_layer_has_no_more_than_its_limit_on_ext4() {
    of_filesystem("ext4").await;
}

#[tokio::test]
async fn a_writable_layer_has_no_more_than_its_limit_on_xfs() {
    of_filesystem("xfs").await;
}

#[tokio::test]
async fn where_there_are_no_quotas_a_limit_is_refused_and_a_setting_is_a_remark() {
    let node = Node::start_with("[runtime]\nwritable_layer_size = '20m'\n").await;
    let check = checked(&node);
    if check.stdout.contains("writable layers can have a limit") {
        say("NOT RUN: this machine's own filesystem has project quotas");
        return;
    }
    assert!(check.stdout.contains("has no effect"), "{check:?}");
    let cri = node.cri();
    let image = hull_tests::fixture::busybox();
    let _id = cri.pull(&image).await.or_fail("pull");
    let mut config = cri.pod_config("web");
    config.annotations.insert("hull.run/writable-layer-size.asks".into(), "5m".into());
    let pod = cri.run_pod_with(config).await.or_fail("run a pod");
    let refused = cri.create(&pod, shell("asks", &image, "true")).await.unwrap_err();
    for part in ["limit the writable layer", "filesystem", "hint: ", "prjquota"] {
        assert!(refused.message().contains(part), "{part}: {refused}");
    }
    let plain = cri.run(&pod, shell("plain", &image, "true")).await;
    assert_eq!(cri.ended(&plain).await.exit_code, 0);
    let request = api::ContainerStatusRequest { container_id: plain, verbose: true };
    let answer = cri.runtime.clone().container_status(request).await.unwrap().into_inner();
    assert!(answer.info["info"].contains("its writable layer has no limit"), "{:?}", answer.info);
    cri.remove_all_pods().await.or_fail("remove the pods");
}
