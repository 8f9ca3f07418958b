// SPDX-License-Identifier: Apache-2.0
//! Limits: they hold, they can be changed, and a container that ran into one reports that.

use hull_proto::cri::{self as api, ContainerState};
use hull_tests::cri::{idle, resources, shell};
use hull_tests::{Cri, Node, host};
use std::fs;
use std::path::Path;

/// The value of the first of `files` (v2's name, v1's name) that the container's cgroup has.
fn limit(node: &Node, container: &str, files: [&str; 2]) -> String {
    for hierarchy in host::hierarchies() {
        let top = hierarchy.join(node.names().cgroup.trim_start_matches('/'));
        if let Some(dir) = find(&top, container) {
            for file in files {
                if let Ok(text) = fs::read_to_string(dir.join(file)) {
                    return text.trim().to_owned();
                }
            }
        }
    }
    panic!("no {files:?} for {container} below {}", node.names().cgroup)
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in hull_tests::shell::names(dir) {
        let path = dir.join(&entry);
        if entry == name {
            return Some(path);
        }
        if let Some(found) = path.is_dir().then(|| find(&path, name)).flatten() {
            return Some(found);
        }
    }
    None
}

async fn update(
    cri: &Cri,
    container: &str,
    linux: api::LinuxContainerResources,
) -> Result<(), tonic::Status> {
    let request = api::UpdateContainerResourcesRequest {
        container_id: container.into(),
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.map(drop)
}

#[tokio::test]
async fn limits_are_in_the_containers_cgroup() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    *resources(&mut config) = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0".into(),
        oom_score_adj: 900,
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    assert_eq!(
        limit(&node, &made, ["memory.max", "memory.limit_in_bytes"]),
        (64 << 20).to_string()
    );
    assert_eq!(limit(&node, &made, ["cpuset.cpus", "cpuset.cpus"]), "0");
    let quota = limit(&node, &made, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(quota.starts_with("50000"), "{quota}");
    let pid = cri.pid(&made).await;
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "900");
    let linux = cri.status(&made).await.resources.unwrap().linux.unwrap();
    assert_eq!((linux.memory_limit_in_bytes, linux.cpu_quota), (64 << 20, 50_000));
}

#[tokio::test]
async fn limits_change_while_it_runs_and_before_it_starts() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let made = cri.create(&pod, config).await.unwrap();
    let to =
        |bytes| api::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
    update(&cri, &made, to(96 << 20)).await.unwrap();
    cri.start(&made).await.unwrap();
    assert_eq!(
        limit(&node, &made, ["memory.max", "memory.limit_in_bytes"]),
        (96 << 20).to_string()
    );
    update(&cri, &made, to(128 << 20)).await.unwrap();
    assert_eq!(
        limit(&node, &made, ["memory.max", "memory.limit_in_bytes"]),
        (128 << 20).to_string()
    );
    let linux = cri.status(&made).await.resources.unwrap().linux.unwrap();
    assert_eq!(linux.memory_limit_in_bytes, 128 << 20);
}

/// Fifty times, because a process may end before the kernel's count of kills is read.
#[tokio::test]
async fn running_out_of_memory_is_told_every_time() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for round in 0..50 {
        let name = format!("hungry-{round}");
        let mut config = shell(&name, &image, "x=a; while true; do x=$x$x$x$x; done");
        resources(&mut config).memory_limit_in_bytes = 8 << 20;
        let made = cri.run(&pod, config).await;
        let status = cri.ended(&made).await;
        let (reason, code) = (status.reason.as_str(), status.exit_code);
        assert_eq!((reason, code), ("OOMKilled", 137), "round {round}: {status:?}");
        assert!(status.message.contains("8 MiB"), "the limit is in it: {}", status.message);
        cri.remove(&made).await.unwrap();
    }
}

#[tokio::test]
async fn a_container_starts_with_very_little_memory() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = shell("small", &image, "echo runs");
    resources(&mut config).memory_limit_in_bytes = 1 << 20;
    let said = cri.output(&pod, config).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "runs\n"), "{said:?}");
}

#[tokio::test]
async fn a_limit_that_no_process_can_start_with_is_the_reason() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    for bytes in [1, 4096] {
        let mut config = shell(&format!("tiny-{bytes}"), &image, "echo runs");
        resources(&mut config).memory_limit_in_bytes = bytes;
        let made = cri.make(&pod, config).await;
        // The kernel kills it before its exec, or in it, which looks as an end of the program.
        let said = match cri.start(&made).await {
            Err(err) => err.message().to_owned(),
            Ok(()) => {
                let status = cri.ended(&made).await;
                assert_eq!(status.reason, "OOMKilled", "{status:?}");
                status.message
            }
        };
        assert!(said.contains("out of memory") && said.contains("limit"), "{said}");
        assert!(said.contains("raise the"), "{said}");
    }
}

#[tokio::test]
async fn an_own_cgroup_view_shows_no_path_of_the_host() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = shell(
        "main",
        &image,
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max",
    );
    resources(&mut config).memory_limit_in_bytes = 32 << 20;
    let said = cri.output(&pod, config).await;
    assert_eq!(
        said.stdout.trim(),
        (32 << 20).to_string(),
        "a process finds its own limit: {said:?}"
    );
}

#[tokio::test]
async fn a_limit_that_cannot_be_set_is_refused_by_name() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    resources(&mut config).cpuset_cpus = "4096".into();
    let refused = match cri.create(&pod, config).await {
        Ok(made) => cri.start(&made).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(refused.message().contains("cpuset"), "{refused}");
    assert!(refused.message().contains("4096"), "{refused}");
}

#[tokio::test]
async fn a_tree_of_processes_ends_with_its_container() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script =
        "trap '' TERM; (trap '' TERM; setsid sleep 983 &) ; echo up; while true; do sleep 1; done";
    let made = cri.run(&pod, shell("tree", &image, script)).await;
    cri.prints(&made, "up").await;
    cri.stop(&made, 1).await.unwrap();
    let status = cri.status(&made).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
    cri.remove(&made).await.unwrap();
    let left = node.on_host();
    assert!(!left.0.iter().any(|line| line.contains("sleep 983")), "{left}");
}

#[tokio::test]
async fn an_update_that_is_refused_changes_nothing_and_says_why() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    *resources(&mut config) = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    let files = [
        ["memory.max", "memory.limit_in_bytes"],
        ["cpu.max", "cpu.cfs_quota_us"],
        ["cpu.weight", "cpu.shares"],
        ["cpuset.cpus", "cpuset.cpus"],
    ];
    let all = || files.map(|files| limit(&node, &made, files));
    let (before, told) = (all(), cri.status(&made).await.resources);
    let limits = api::LinuxContainerResources::default;
    for (refused, file) in [
        (api::LinuxContainerResources { cpuset_cpus: "0-99".into(), ..limits() }, "cpuset.cpus"),
        (api::LinuxContainerResources { cpu_quota: 500, ..limits() }, "cpu."),
        (
            api::LinuxContainerResources {
                cpu_shares: 700,
                cpu_quota: 70_000,
                cpu_period: 90_000,
                memory_limit_in_bytes: 96 << 20,
                memory_swap_limit_in_bytes: 96 << 20,
                unified: [("no.such".to_owned(), "1".to_owned())].into(),
                ..limits()
            },
            "no.such",
        ),
    ] {
        let err = update(&cri, &made, refused.clone()).await.unwrap_err();
        assert!(err.message().contains(file), "{file}: {err}");
        assert_eq!(all(), before, "{refused:?}");
        assert_eq!(cri.status(&made).await.resources, told, "{refused:?}");
    }
    let wanted = api::LinuxContainerResources { cpu_quota: 60_000, ..limits() };
    update(&cri, &made, wanted).await.unwrap();
    let linux = cri.status(&made).await.resources.unwrap().linux.unwrap();
    assert_eq!((linux.cpu_quota, linux.memory_limit_in_bytes), (60_000, 64 << 20));
}

#[tokio::test]
async fn status_reports_the_limits_that_are_in_force_after_an_update() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    *resources(&mut config) = api::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    let limits = api::LinuxContainerResources::default;
    let reported = || async { cri.status(&made).await.resources.unwrap().linux.unwrap() };
    for nothing in [
        api::LinuxContainerResources { cpu_shares: -1, ..limits() },
        api::LinuxContainerResources { cpu_period: -1, ..limits() },
    ] {
        update(&cri, &made, nothing).await.unwrap();
        let linux = reported().await;
        assert_eq!((linux.cpu_shares, linux.cpu_period), (512, 100_000), "{linux:?}");
    }
    for (shares, holds) in [(1, 2), (1_000_000_000, 262_144)] {
        let to = api::LinuxContainerResources { cpu_shares: shares, ..limits() };
        update(&cri, &made, to).await.unwrap();
        assert_eq!(reported().await.cpu_shares, holds);
    }
    update(&cri, &made, api::LinuxContainerResources { cpu_quota: -5, ..limits() }).await.unwrap();
    assert_eq!(reported().await.cpu_quota, -1);
    let list = api::LinuxContainerResources { cpuset_cpus: "0\n1".into(), ..limits() };
    let refused = update(&cri, &made, list).await.unwrap_err();
    assert!(refused.message().contains("cpuset_cpus"), "{refused}");
    // A score is that of every process at once, and of those that come.
    let score = "for at in /proc/[0-9]*; do cat $at/oom_score_adj; done | sort -u";
    update(&cri, &made, api::LinuxContainerResources { oom_score_adj: 700, ..limits() })
        .await
        .unwrap();
    assert_eq!(cri.exec(&made, &["sh", "-c", score]).await.unwrap().stdout, "700\n");
    assert_eq!(reported().await.oom_score_adj, 700);
    // Down again, where that is allowed: what holds is reported.
    update(&cri, &made, api::LinuxContainerResources { oom_score_adj: 300, ..limits() })
        .await
        .unwrap();
    let held = cri.exec(&made, &["cat", "/proc/1/oom_score_adj"]).await.unwrap().stdout;
    assert_eq!(held.trim(), reported().await.oom_score_adj.to_string());
}

#[tokio::test]
async fn scores_ids_and_groups_out_of_range_are_refused_at_once() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    for score in [-1001, 1001, i64::MAX, i64::MIN] {
        let to = api::LinuxContainerResources { oom_score_adj: score, ..Default::default() };
        let err = update(&cri, &made, to).await.unwrap_err();
        assert_eq!(err.code(), tonic::Code::InvalidArgument, "{err}");
        let mut config = idle("other", &image);
        resources(&mut config).oom_score_adj = score;
        let err = cri.create(&pod, config).await.unwrap_err();
        assert_eq!(err.code(), tonic::Code::InvalidArgument, "{err}");
        assert!(err.message().contains("oom_score_adj"), "{err}");
    }
    for id in [-1, 1 << 32, (1 << 32) + 7, i64::MIN] {
        let mut config = cri.pod_config("ids");
        hull_tests::cri::pod_security(&mut config).supplemental_groups = vec![id];
        let err = cri.run_pod_with(config).await.unwrap_err();
        assert_eq!(err.code(), tonic::Code::InvalidArgument, "{err}");
        let mut config = cri.pod_config("ids");
        hull_tests::cri::pod_security(&mut config).run_as_user =
            Some(api::Int64Value { value: id });
        let err = cri.run_pod_with(config).await.unwrap_err();
        assert_eq!(err.code(), tonic::Code::InvalidArgument, "{err}");
    }
    let mut config = idle("many", &image);
    hull_tests::cri::security(&mut config).supplemental_groups = (1..70_000).collect();
    let err = cri.create(&pod, config).await.unwrap_err();
    assert!(err.message().contains("groups"), "{err}");
}

type Change = fn(&mut api::ContainerConfig, &str);

#[tokio::test]
async fn a_path_of_five_thousand_bytes_hides_neither_what_failed_nor_why() {
    // Where the path is followed name by name, the first of them is missing.
    const TOO_LONG: [&str; 5] =
        ["ENAMETOOLONG", "too long", "bytes", "not absolute", "No such file"];
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let path = "/x".repeat(2500);
    let fields: [(&str, &str, Change); 8] = [
        ("working_dir", "working directory", |config, path| config.working_dir = path.into()),
        ("command", "exec", |config, path| config.command = vec![path.into()]),
        ("mount target", "mount", |config, path| {
            config.mounts = vec![hull_tests::cri::mount(Path::new("/tmp"), path)];
        }),
        ("mount source", "volume", |config, path| {
            config.mounts = vec![hull_tests::cri::mount(Path::new(path), "/x")];
        }),
        ("log", "log", |config, path| config.log_path = path[1..].into()),
        ("device", "device", |config, path| {
            config.devices = vec![api::Device {
                container_path: "/dev/x".into(),
                host_path: path.into(),
                permissions: "rw".into(),
            }];
        }),
        ("device's place", "device", |config, path| {
            config.devices = vec![api::Device {
                container_path: path.into(),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            }];
        }),
        ("seccomp profile", "seccomp", |config, path| {
            hull_tests::cri::security(config).seccomp = Some(api::SecurityProfile {
                profile_type: api::security_profile::ProfileType::Localhost.into(),
                localhost_ref: path.into(),
            });
        }),
    ];
    for (number, (field, operation, change)) in fields.into_iter().enumerate() {
        let mut config = idle(&format!("main-{number}"), &image);
        change(&mut config, &path);
        let refused = match cri.create(&pod, config).await {
            Ok(made) => cri.start(&made).await.unwrap_err(),
            Err(refused) => refused,
        };
        let said = refused.message();
        assert!(said.to_lowercase().contains(operation), "{field}: {said}");
        assert!(TOO_LONG.iter().any(|why| said.contains(why)), "{field}: {said}");
        assert!(said.len() < 3000 && !said.contains("read(status)"), "{field}: {said}");
    }
    let made = cri.run_idle(&pod, "main", &image).await;
    let exec = cri.exec(&made, &[&path]).await.unwrap_err();
    assert!(TOO_LONG.iter().any(|why| exec.message().contains(why)), "{exec}");
}

#[tokio::test]
async fn a_path_of_five_thousand_bytes_does_not_hide_what_it_is_the_path_of() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    config.working_dir = "/x".repeat(2500);
    let refused = match cri.create(&pod, config).await {
        Ok(made) => cri.start(&made).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(!refused.message().contains("read(status)"), "{refused}");
    assert!(refused.message().contains("working directory"), "{refused}");
    assert!(refused.message().contains("workingDir"), "{refused}");
}
