// SPDX-License-Identifier: Apache-2.0
//! cgroup v2 alone: every limit in its file, what a container sees, devices, and whose memory ran out.

use hull_proto::cri as api;
use hull_tests::cri::{idle, pod_namespaces, resources, security, shell};
use hull_tests::node::Driver;
use hull_tests::{Node, fixture};
use std::fs;
use std::path::PathBuf;

/// The directory of a container's cgroup.
async fn dir_of(cri: &hull_tests::Cri, container: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/cgroup{}", super::cgroup_of(cri.pid(container).await)))
}

#[tokio::test]
async fn every_limit_is_in_its_file_and_changes_there() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    let unified = [("memory.high", "50331648"), ("memory.min", "1048576"), ("io.weight", "300")];
    *resources(&mut config) = api::LinuxContainerResources {
        cpu_shares: 2048,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "1".into(),
        cpuset_mems: "0".into(),
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 96 << 20,
        hugepage_limits: vec![api::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
        unified: unified.map(|(key, value)| (key.into(), value.into())).into(),
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    let dir = dir_of(&cri, &made).await;
    let file = |name: &str| fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
    for (name, value) in [
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "1"),
        ("cpuset.mems", "0"),
        ("memory.max", "67108864"),
        ("memory.high", "50331648"),
        ("memory.min", "1048576"),
        ("hugetlb.2MB.max", "4194304"),
        ("io.weight", "default 300"),
    ] {
        assert_eq!(file(name), value, "{name}");
    }
    let swap = dir.join("memory.swap.max");
    if swap.is_file() {
        assert_eq!(file("memory.swap.max"), (32 << 20).to_string(), "swap alone, without memory");
    }
    let weight: u64 = file("cpu.weight").parse().unwrap();
    assert!((101..10_000).contains(&weight), "more than the default: {weight}");

    let linux = api::LinuxContainerResources {
        cpu_shares: 1024,
        cpu_quota: -1,
        memory_limit_in_bytes: 80 << 20,
        unified: [("memory.high".to_owned(), "max".to_owned())].into(),
        ..Default::default()
    };
    let request = api::UpdateContainerResourcesRequest {
        container_id: made.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.unwrap();
    assert_eq!(file("cpu.weight"), "100", "the default stays a default");
    assert!(file("cpu.max").starts_with("max "), "{}", file("cpu.max"));
    assert_eq!((file("memory.max"), file("memory.high")), ((80 << 20).to_string(), "max".into()));
}

#[tokio::test]
async fn a_container_sees_its_own_cgroup_as_the_root_and_cannot_write_it() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let look = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; \
                echo max > /sys/fs/cgroup/memory.max || echo refused";
    let mut config = shell("main", &image, look);
    resources(&mut config).memory_limit_in_bytes = 32 << 20;
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, format!("0::/\n{}\nrefused\n", 32 << 20), "{said:?}");
}

#[tokio::test]
async fn devices_are_those_of_the_rules() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let tries = "echo x > /dev/null && echo null; mknod /tmp/disk b 254 0 && echo made; \
                 head -c1 /tmp/disk > /dev/null || echo denied";
    let mut config = shell("main", &image, tries);
    security(&mut config).apparmor = None;
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "null\nmade\ndenied\n", "{said:?}");
    let mut config = shell("all", &image, "head -c1 /dev/vda > /dev/null && echo read");
    security(&mut config).privileged = true;
    assert_eq!(cri.output(&pod, config).await.stdout, "read\n");
    let mut config = shell(
        "one",
        &image,
        "head -c1 /dev/disk > /dev/null && echo read; echo x > /dev/disk || echo denied",
    );
    config.devices.push(api::Device {
        container_path: "/dev/disk".into(),
        host_path: "/dev/vda".into(),
        permissions: "r".into(),
    });
    assert_eq!(cri.output(&pod, config).await.stdout, "read\ndenied\n");
}

#[tokio::test]
async fn a_container_with_a_user_namespace_has_its_cgroup_to_itself_but_not_its_limits() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("web");
    let ids = vec![api::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
    pod_namespaces(&mut config).userns_options = Some(api::UserNamespace {
        mode: api::NamespaceMode::Pod.into(),
        uids: ids.clone(),
        gids: ids,
    });
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "cd /sys/fs/cgroup; mkdir own && echo $$ > own/cgroup.procs && \
                  echo +memory > cgroup.subtree_control && echo 1000000 > own/memory.max && cat /proc/self/cgroup; \
                  echo max > memory.max || echo refused; exec sleep 600";
    let mut config = shell("main", &image, script);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let made = cri.run(&pod, config).await;
    hull_tests::eventually("it has divided its cgroup", || async {
        let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
        if said == "0::/own\nrefused\n" { Ok(()) } else { Err(said) }
    })
    .await;
    let said = cri.exec(&made, &["cat", "/proc/self/cgroup"]).await.unwrap();
    assert_eq!(said.stdout, "0::/own\n", "an exec goes where the first process is: {said:?}");
}

const HUNGRY: &str = "x=a; while true; do x=$x$x$x$x; done";

/// With both drivers: the cgroup that the kubelet limits is the pod's own in one, above it in the other.
#[tokio::test]
async fn whose_memory_ran_out_is_told() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let node = Node::start_under(driver, "").await;
        let cri = node.cri();
        let image = fixture::busybox();
        cri.pull(&image).await.unwrap();
        let top = node.names().cgroup.clone();
        let (parent, dir) = match driver {
            Driver::Cgroupfs => (format!("{top}/kubepods-pod1"), format!("{top}/kubepods-pod1")),
            Driver::Systemd => {
                let slice =
                    format!("{}-pod1.slice", top.trim_matches('/').trim_end_matches(".slice"));
                (slice.clone(), format!("{top}/{slice}"))
            }
        };
        let mut config = cri.pod_config("web");
        config.linux.get_or_insert_default().cgroup_parent = parent;
        let pod = cri.run_pod_with(config).await.unwrap();

        let mut config = shell("own", &image, HUNGRY);
        resources(&mut config).memory_limit_in_bytes = 8 << 20;
        let made = cri.run(&pod, config).await;
        let status = cri.ended(&made).await;
        assert_eq!(status.reason, "OOMKilled", "{driver:?}: {status:?}");
        assert!(status.message.contains("container limit 8 MiB"), "{driver:?}: {}", status.message);

        // As the kubelet limits a pod.
        let limit = format!("/sys/fs/cgroup{dir}/memory.max");
        fs::write(&limit, (24 << 20).to_string()).unwrap();
        let made = cri.run(&pod, shell("others", &image, HUNGRY)).await;
        let status = cri.ended(&made).await;
        assert_eq!(status.reason, "OOMKilled", "{driver:?}: {status:?}");
        assert!(
            status.message.contains("the pod reached its limit"),
            "{driver:?}: {}",
            status.message
        );
        fs::write(&limit, "max").unwrap();
        cri.remove_all_pods().await.unwrap();
        if driver == Driver::Cgroupfs {
            fs::remove_dir(format!("/sys/fs/cgroup{dir}")).unwrap();
        } else {
            let slice = dir.rsplit('/').next().unwrap().to_owned();
            super::said("systemctl", &["stop", &slice]);
        }
    }
}

#[tokio::test]
async fn memory_that_ran_out_while_no_daemon_was_there_is_told() {
    for driver in [Driver::Cgroupfs, Driver::Systemd] {
        let mut node = Node::start_under(driver, "").await;
        let (cri, pod, image) = node.pod("web").await;
        let script = format!("until [ -e /gate/open ]; do sleep 0.2; done; {HUNGRY}");
        let mut config = shell("main", &image, &script);
        resources(&mut config).memory_limit_in_bytes = 8 << 20;
        config.mounts = vec![hull_tests::cri::mount(&node.host_dir(), "/gate")];
        let made = cri.run(&pod, config).await;
        let process = format!("/proc/{}", cri.pid(&made).await);
        node.kill();
        let _gate = hull_tests::node::write(&node.host_dir(), "open", "");
        hull_tests::eventually("the container has ended", || async {
            let there = std::path::Path::new(&process).is_dir();
            if there { Err("it runs".into()) } else { Ok(()) }
        })
        .await;
        node.start_again().await;
        let status = node.cri().ended(&made).await;
        assert_eq!(status.reason, "OOMKilled", "{driver:?}: {status:?}");
        assert!(status.message.contains("container limit 8 MiB"), "{driver:?}: {}", status.message);
    }
}

#[tokio::test]
async fn a_fork_that_the_limit_refuses_is_told() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done; exit 3";
    let mut config = shell("main", &image, script);
    let unified = [("pids.max".to_owned(), "4".to_owned())];
    resources(&mut config).unified = unified.into();
    let made = cri.run(&pod, config).await;
    let status = cri.ended(&made).await;
    assert!(status.message.contains("pids limit refused"), "{status:?}");
}

#[tokio::test]
async fn pressure_is_in_the_stats() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let request = api::ContainerStatsRequest { container_id: made };
    let stats = cri.runtime.clone().container_stats(request).await.unwrap().into_inner();
    let stats = stats.stats.unwrap();
    assert!(stats.cpu.unwrap().psi.is_some() && stats.memory.unwrap().psi.is_some());
}
