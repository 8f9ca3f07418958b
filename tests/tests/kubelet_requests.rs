// SPDX-License-Identifier: Apache-2.0
//! Containers as kubelets request them, where that is more than the interface describes: sources of volumes that are
//! missing, termination messages, SELinux options of nodes without SELinux, sub-paths beside image volumes.
//!
//! `tests/kubelet` has the same through a real kubelet.

use hull_proto::cri::{self as api, ContainerConfig};
use hull_tests::cri::{idle, mount, pod_security, resources, security, shell};
use hull_tests::{Cri, ExpectExt as _, Node, fixture};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use tonic::Code;

const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Uses all the memory that it may.
const HUNGRY: &str = "x=a; while true; do x=$x$x$x$x; done";

#[tokio::test]
async fn a_volumes_missing_source_is_made_as_a_directory() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let missing = node.host_dir().join("missing/deep");
    let mut config = shell("main", &image, "stat -c %a:%u:%g /data; touch /data/file");
    config.mounts = vec![mount(&missing, "/data")];
    let said = cri.output(&pod, config).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "755:0:0\n"), "{said:?}");
    for made in [missing.as_path(), missing.parent().or_fail("find the parent")] {
        let made = fs::metadata(made).or_fail("look at a directory that was made");
        assert_eq!((made.permissions().mode() & 0o7777, made.uid()), (0o755, 0));
    }
    assert!(missing.join("file").is_file(), "the container wrote elsewhere");
}

#[tokio::test]
async fn what_cannot_be_a_volumes_source_is_named() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let host = node.host_dir();
    fs::write(host.join("file"), "").or_fail("write a file");
    symlink(host.join("nowhere"), host.join("dangling")).or_fail("make a link");
    for (source, named) in [
        (host.join("file/below"), "/file)"),
        (host.join("dangling"), "symbolic link"),
        (host.join("dangling/below"), "symbolic link"),
    ] {
        let mut config = idle("main", &image);
        config.mounts = vec![mount(&source, "/data")];
        let refused = cri.create(&pod, config).await.err().or_fail("be refused");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(named), "{named} in: {refused}");
        assert!(refused.message().contains("hint: "), "{refused}");
    }
    assert!(fs::symlink_metadata(host.join("nowhere")).is_err(), "a link's target was made");
    assert_eq!(fs::read_link(host.join("dangling")).or_fail("read the link"), host.join("nowhere"));
}

#[tokio::test]
async fn a_config_that_is_refused_makes_nothing_on_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let missing = node.host_dir().join("not-made");
    let mut config = idle("main", &image);
    config.mounts = vec![mount(&missing, "/data")];
    config.mounts[0].mount_options = vec!["rw".into()];
    let refused = cri.create(&pod, config).await.err().or_fail("be refused");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(fs::symlink_metadata(&missing).is_err(), "it was made all the same");
}

#[tokio::test]
async fn containers_that_start_at_once_share_the_directory_that_is_made() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let missing = node.host_dir().join("shared/by/all");
    let all = (0..8).map(|number| {
        let mut config = shell(&format!("one-{number}"), &image, &format!("touch /data/{number}"));
        config.mounts = vec![mount(&missing, "/data")];
        cri.output(&pod, config)
    });
    for said in futures_util::future::join_all(all).await {
        assert_eq!(said.code, 0, "{said:?}");
    }
    assert_eq!(fs::read_dir(&missing).or_fail("list the directory").count(), 8);
}

/// A container whose kubelet mounts `file` for the termination message.
fn with_message(name: &str, image: &str, script: &str, file: &Path) -> ContainerConfig {
    let mut config = shell(name, image, script);
    fs::write(file, "").or_fail("make the file for the message");
    config.mounts.push(mount(file, "/dev/termination-log"));
    config.annotations.insert(MESSAGE_PATH.into(), "/dev/termination-log".into());
    config.annotations.insert(MESSAGE_POLICY.into(), "File".into());
    config
}

async fn ended(cri: &Cri, pod: &str, config: ContainerConfig) -> api::ContainerStatus {
    let made = cri.run(pod, config).await;
    cri.ended(&made).await
}

/// The status of a container that somebody on the host kills once it has printed `up`.
async fn killed(cri: &Cri, pod: &str, config: ContainerConfig) -> api::ContainerStatus {
    let made = cri.run(pod, config).await;
    cri.prints(&made, "up").await;
    let pid = Pid::from_raw(cri.pid(&made).await);
    kill(pid, Signal::SIGKILL).or_fail("kill a container's process");
    cri.ended(&made).await
}

#[tokio::test]
async fn an_ordinary_exit_has_no_message() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for (code, reason) in [(0, "Completed"), (1, "Error"), (143, "Error")] {
        let status = ended(&cri, &pod, shell(&format!("e{code}"), &image, &format!("exit {code}")));
        let status = status.await;
        assert_eq!((&*status.reason, status.exit_code, &*status.message), (reason, code, ""));
    }
    // Killed after its grace period: asked for, so there is nothing to explain.
    let deaf =
        cri.run(&pod, shell("deaf", &image, "trap '' TERM; while :; do sleep 1; done")).await;
    cri.stop(&deaf, 0).await.or_fail("stop a container");
    let status = cri.ended(&deaf).await;
    assert_eq!((&*status.reason, status.exit_code, &*status.message), ("Error", 137, ""));
}

#[tokio::test]
async fn what_the_exit_code_does_not_say_is_the_message_unless_the_program_wrote_one() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let file = |name: &str| node.host_dir().join(format!("message-{name}"));
    let with_limit = |mut config: ContainerConfig| {
        resources(&mut config).memory_limit_in_bytes = 8 << 20;
        config
    };
    let silent = with_limit(with_message("silent", &image, HUNGRY, &file("silent")));
    let status = ended(&cri, &pod, silent).await;
    assert_eq!(status.reason, "OOMKilled");
    assert!(status.message.starts_with("out of memory"), "{}", status.message);

    let script = format!("printf DONE > /dev/termination-log; {HUNGRY}");
    let wrote = with_limit(with_message("wrote", &image, &script, &file("wrote")));
    let made = cri.run(&pod, wrote).await;
    let status = cri.ended(&made).await;
    assert_eq!((&*status.reason, &*status.message), ("OOMKilled", ""));
    // The explanation is not lost.
    let info = cri.inspect(&made).await.or_fail("get the verbose status").info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).or_fail("read the info");
    let text = info["exitMessage"].as_str().or_fail("find the explanation");
    assert!(text.starts_with("out of memory"), "{text}");

    let stopped = with_message("killed", &image, "echo up; exec sleep 600", &file("killed"));
    let message = killed(&cri, &pod, stopped).await.message;
    assert!(message.starts_with("killed by signal 9 (SIGKILL)"), "{message}");
}

#[tokio::test]
async fn a_log_that_stands_for_the_message_leaves_no_other() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let file = |name: &str| node.host_dir().join(format!("message-{name}"));
    let config = |name: &str, script: &str| {
        let mut config = with_message(name, &image, script, &file(name));
        config.annotations.insert(MESSAGE_POLICY.into(), "FallbackToLogsOnError".into());
        config
    };
    let status = killed(&cri, &pod, config("said", "echo up; exec sleep 600")).await;
    assert_eq!((status.exit_code, &*status.message), (137, ""));
    // Nothing is in this log.
    let mut silent = config("silent", HUNGRY);
    resources(&mut silent).memory_limit_in_bytes = 8 << 20;
    let status = ended(&cri, &pod, silent).await;
    assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"));
    assert!(status.message.starts_with("out of memory"), "{}", status.message);
    // With a file for the message alone, the log does not count.
    let by_file = with_message("by-file", &image, "echo up; exec sleep 600", &file("by-file"));
    let message = killed(&cri, &pod, by_file).await.message;
    assert!(message.starts_with("killed by signal 9 (SIGKILL)"), "{message}");
}

#[tokio::test]
async fn selinux_options_are_ignored_without_selinux() {
    if fs::metadata("/sys/fs/selinux/enforce").is_ok() {
        println!("this host has SELinux: the labels are tested as values");
        return;
    }
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let options =
        api::SeLinuxOption { r#type: "spc_t".into(), level: "s0".into(), ..Default::default() };
    let mut of_pod = cri.pod_config("labelled");
    pod_security(&mut of_pod).selinux_options = Some(options.clone());
    let pod = cri.run_pod_with(of_pod).await.or_fail("run a pod with SELinux options");
    for (name, given) in [("of-pod", None), ("own", Some(options))] {
        let mut config = shell(name, &image, "echo runs");
        security(&mut config).selinux_options = given;
        let said = cri.output(&pod, config).await;
        assert_eq!((said.code, said.stdout.as_str()), (0, "runs\n"), "{name}: {said:?}");
    }
}

#[tokio::test]
async fn an_image_sub_path_without_an_image_is_ignored() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let source = node.host_dir().join("volume");
    fs::create_dir_all(&source).or_fail("make a volume");
    fs::write(source.join("file"), "here").or_fail("fill a volume");
    let mut config = shell("main", &image, "cat /data/file; ls -d /image/etc");
    let plain = api::Mount { image_sub_path: "a/b".into(), ..mount(&source, "/data") };
    let of_image = api::Mount {
        container_path: "/image".into(),
        readonly: true,
        image: Some(hull_tests::cri::image(&image)),
        ..Default::default()
    };
    config.mounts = vec![plain, of_image];
    let said = cri.output(&pod, config).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "here/image/etc\n"), "{said:?}");
}

/// Programs look for a mount of cgroup2, or for `/sys/fs/cgroup/cgroup.controllers`.
#[tokio::test]
async fn a_container_sees_one_version_of_cgroups() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "awk '$3 ~ /^cgroup/ {print $3}' /proc/mounts | sort -u; ls -d /sys/fs/cgroup/cgroup.controllers \
                  /sys/fs/cgroup/unified 2>/dev/null; echo end";
    for privileged in [false, true] {
        let mut config = shell(&format!("cgroups-{privileged}"), &image, script);
        security(&mut config).privileged = privileged;
        let said = cri.output(&pod, config).await.stdout;
        let whole = if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok() {
            "cgroup2\n/sys/fs/cgroup/cgroup.controllers\nend\n"
        } else {
            "cgroup\nend\n"
        };
        assert_eq!(said, whole, "privileged: {privileged}");
    }
}

#[tokio::test]
async fn the_status_of_a_pod_leaves_its_containers_to_their_own_calls() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let _made = cri.run(&pod, shell("main", &image, "sleep 600")).await;
    let status = cri.pod_status(&pod).await.or_fail("get the pod's status");
    assert!(status.status.is_some());
    // With a timestamp, a kubelet that watches events starts init containers again that run already.
    assert_eq!((status.timestamp, status.containers_statuses.len()), (0, 0));
}
