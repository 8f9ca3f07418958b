// SPDX-License-Identifier: Apache-2.0
//! The systemd cgroup driver: one scope per pod, and what happens when D-Bus does not answer.

use super::{cgroup_of, said, unit_is};
use hull_proto::cri as api;
use hull_tests::cri::{idle, resources};
use hull_tests::node::Driver;
use hull_tests::{Node, fixture};
use std::fs;

#[tokio::test]
async fn a_pod_has_one_scope_in_its_slice_and_the_scope_goes_with_it() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (cri, pod, image) = node.pod("web").await;
    let first = cri.run_idle(&pod, "first", &image).await;
    let second = cri.run_idle(&pod, "second", &image).await;
    let scope = format!("hull-{pod}.scope");
    for container in [&first, &second] {
        let at = cgroup_of(cri.pid(container).await);
        assert_eq!(at, format!("{}/{scope}/{container}", node.names().cgroup));
    }
    let shown = said("systemctl", &["show", &scope, "-p", "Slice,Delegate,TasksMax", "--value"]);
    let slice = node.names().cgroup.trim_start_matches('/');
    assert!(shown.contains(slice) && shown.contains("yes"), "{shown}");
    assert!(shown.contains("infinity"), "no limit that nobody asked for: {shown}");
    let config = cri.runtime.clone().runtime_config(api::RuntimeConfigRequest {}).await.unwrap();
    let driver = config.into_inner().linux.unwrap().cgroup_driver();
    assert_eq!(driver, api::CgroupDriver::Systemd);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    unit_is(&scope, "inactive").await;
}

#[tokio::test]
async fn the_monitor_is_not_charged_to_its_pod() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (_cri, pod, _image) = node.pod("web").await;
    let scope = format!("/sys/fs/cgroup{}/hull-{pod}.scope", node.names().cgroup);
    let inside = fs::read_to_string(format!("{scope}/{pod}/cgroup.procs")).unwrap();
    assert_eq!(inside.lines().count(), 1, "pause alone: {inside}");
    assert_eq!(fs::read_to_string(format!("{scope}/cgroup.procs")).unwrap(), "");
}

#[tokio::test]
async fn the_kubelets_slice_is_where_its_pod_goes() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let cri = node.cri();
    let image = fixture::busybox();
    cri.pull(&image).await.unwrap();
    let mut config = cri.pod_config("web");
    let slice = format!(
        "{}-burstable-pod1_2.slice",
        node.names().cgroup.trim_matches('/').trim_end_matches(".slice")
    );
    config.linux.get_or_insert_default().cgroup_parent = slice.clone();
    let pod = cri.run_pod_with(config).await.unwrap();
    let made = cri.run_idle(&pod, "main", &image).await;
    let at = cgroup_of(cri.pid(&made).await);
    assert!(at.ends_with(&format!("/{slice}/hull-{pod}.scope/{made}")), "{at}");

    let mut config = cri.pod_config("other");
    config.linux.get_or_insert_default().cgroup_parent = "/kubepods/burstable/pod1".into();
    let refused = cri.run_pod_with(config).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("cgroup.driver = \"cgroupfs\""), "{refused}");
    cri.remove_all_pods().await.unwrap();
    // The slice above it too, which takes it along: systemd has made both on the way.
    said("systemctl", &["stop", &slice.replace("-pod1_2", "")]);
}

/// systemd sets again what it knows of a unit whenever it reads its files again, so nothing that a
/// container was promised may be something that systemd knows otherwise.
#[tokio::test]
async fn limits_outlive_whatever_systemd_is_told() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    *resources(&mut config) = api::LinuxContainerResources {
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "1".into(),
        memory_limit_in_bytes: 64 << 20,
        unified: [("pids.max".to_owned(), "20".to_owned())].into(),
        ..Default::default()
    };
    let made = cri.run(&pod, config).await;
    let linux = api::LinuxContainerResources {
        cpu_shares: 2048,
        cpu_quota: 70_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 80 << 20,
        ..Default::default()
    };
    let request = api::UpdateContainerResourcesRequest {
        container_id: made.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    cri.runtime.clone().update_container_resources(request).await.unwrap();
    let request = api::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        resources: Some(api::LinuxContainerResources {
            memory_limit_in_bytes: 80 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    cri.runtime.clone().update_pod_sandbox_resources(request).await.unwrap();

    let dir = format!("/sys/fs/cgroup{}", cgroup_of(cri.pid(&made).await));
    let limits = || {
        ["memory.max", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"]
            .map(|name| fs::read_to_string(format!("{dir}/{name}")).unwrap().trim().to_owned())
    };
    let set = limits();
    assert_eq!((&*set[0], &*set[1], &*set[4]), ("83886080", "70000 100000", "20"));
    let slice = node.names().cgroup.trim_start_matches('/').to_owned();
    let scope = format!("hull-{pod}.scope");
    for told in [
        vec!["daemon-reload"],
        // As a kubelet does, and again for the scope itself, as nobody should.
        vec!["set-property", "--runtime", &slice, "MemoryMax=512M", "CPUWeight=50", "TasksMax=200"],
        vec!["set-property", "--runtime", &scope, "CPUWeight=70"],
        vec!["daemon-reload"],
        vec!["daemon-reexec"],
    ] {
        said("systemctl", &told);
        assert_eq!(limits(), set, "after systemctl {told:?}");
    }
    // Another unit in the slice: systemd works out again which controllers it has.
    said("systemd-run", &["--slice", &slice, "--scope", "-p", "IOWeight=50", "true"]);
    assert_eq!(limits(), set);
    let denied = "mknod /tmp/disk b 254 0; head -c1 /tmp/disk > /dev/null || echo denied";
    assert_eq!(cri.exec(&made, &["sh", "-c", denied]).await.unwrap().stdout, "denied\n");
    // And the scope can still be divided.
    let mut config = idle("second", &image);
    resources(&mut config).memory_limit_in_bytes = 32 << 20;
    let second = cri.run(&pod, config).await;
    let dir = format!("/sys/fs/cgroup{}", cgroup_of(cri.pid(&second).await));
    assert_eq!(fs::read_to_string(format!("{dir}/memory.max")).unwrap().trim(), "33554432");
    said("systemctl", &["revert", &slice, &scope]);
}

/// D-Bus, back when this goes.
struct Bus;

impl Bus {
    fn stop() -> Self {
        said("systemctl", &["stop", "dbus.socket", "dbus.service"]);
        Self
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(hull_tests::shell::run("pkill", ["-CONT", "dbus-daemon"]));
        drop(hull_tests::shell::run("systemctl", ["start", "dbus.socket", "dbus.service"]));
    }
}

#[tokio::test]
async fn without_d_bus_containers_start_and_pods_say_what_is_missing() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (cri, pod, image) = node.pod("web").await;
    let bus = Bus::stop();
    // The scope is ours: nothing of a container asks systemd.
    let made = cri.run_idle(&pod, "main", &image).await;
    let said = cri.exec(&made, &["echo", "works"]).await.unwrap();
    assert_eq!(said.stdout, "works\n");
    let refused = cri.run_pod("second").await.unwrap_err();
    assert!(refused.message().contains("D-Bus"), "{refused}");
    assert!(refused.message().contains("systemctl status dbus"), "{refused}");
    drop(bus);
    // A new connection, without a restart of hull.
    cri.run_pod("third").await.unwrap();
}

#[tokio::test]
async fn a_d_bus_that_does_not_answer_is_not_waited_for_forever() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (cri, _pod, _image) = node.pod("web").await;
    let bus = Bus;
    said("pkill", &["-STOP", "dbus-daemon"]);
    let refused = cri.run_pod("second").await.unwrap_err();
    assert!(refused.message().contains("no answer in 30 s"), "{refused}");
    drop(bus);
    cri.run_pod("third").await.unwrap();
    let listed = cri.pods().await;
    assert_eq!(listed.len(), 2, "the one that was not made is not listed: {listed:?}");
}

#[tokio::test]
async fn a_d_bus_that_ends_meanwhile_is_told_at_once() {
    let node = Node::start_under(Driver::Systemd, "").await;
    let (cri, _pod, _image) = node.pod("web").await;
    let bus = Bus;
    said("pkill", &["-STOP", "dbus-daemon"]);
    let second = tokio::spawn({
        let cri = cri.clone();
        async move { cri.run_pod("second").await }
    });
    // It has made everything else, and asks systemd now.
    hull_tests::eventually("the pod's monitor is there", || async {
        let monitors = hull_tests::shell::run("pgrep", ["-xc", "hull-monitor"]).stdout;
        if monitors.trim() == "2" { Ok(()) } else { Err(monitors) }
    })
    .await;
    said("pkill", &["-KILL", "dbus-daemon"]);
    let refused = second.await.unwrap().unwrap_err();
    assert!(refused.message().contains("D-Bus"), "{refused}");
    assert!(!refused.message().contains("no answer in"), "{refused}");
    assert!(refused.message().contains("systemctl status dbus"), "{refused}");
    drop(bus);
    cri.run_pod("third").await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_was_killed_finds_its_scopes_again() {
    let mut node = Node::start_under(Driver::Systemd, "").await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run_idle(&pod, "main", &image).await;
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    assert_eq!(cri.status(&made).await.state(), api::ContainerState::ContainerRunning);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    unit_is(&format!("hull-{pod}.scope"), "inactive").await;
}
