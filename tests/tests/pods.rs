// SPDX-License-Identifier: Apache-2.0
//! Namespaces that containers of a pod share, and settings that a pod takes from its config.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{container, idle, pod_namespaces, security, shell};
use hull_tests::{Node, eventually, fixture};
use std::fs;

/// Sets the pid mode in a container's own namespace options, as a kubelet does.
fn pid_mode(config: &mut api::ContainerConfig, mode: NamespaceMode) {
    security(config).namespace_options.get_or_insert_default().pid = mode.into();
}

#[tokio::test]
async fn containers_share_the_network_and_ipc_but_not_processes() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let one = cri.run_idle(&pod, "one", &image).await;
    let two = cri.run_idle(&pod, "two", &image).await;
    let namespaces = |container: String| {
        let cri = cri.clone();
        async move {
            let script = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done";
            let said = cri.exec(&container, &["sh", "-c", script]).await.unwrap().stdout;
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        }
    };
    let (of_one, of_two) = (namespaces(one.clone()).await, namespaces(two).await);
    assert_eq!(of_one[..3], of_two[..3], "net, ipc, uts are the pod's");
    assert_ne!(of_one[3], of_two[3], "pid is each container's");
    assert_ne!(of_one[4], of_two[4], "mnt is each container's");
    let own = |name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    for (at, name) in ["net", "ipc", "uts", "pid", "mnt"].into_iter().enumerate() {
        assert_ne!(of_one[at], own(name), "{name} is not the host's");
    }
    let first = cri.exec(&one, &["cat", "/proc/1/comm"]).await.unwrap().stdout;
    assert_eq!(first, "sh\n");
}

#[tokio::test]
async fn shared_memory_is_the_pods() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let one = cri.run_idle(&pod, "one", &image).await;
    let two = cri.run_idle(&pod, "two", &image).await;
    assert_eq!(cri.exec(&one, &["sh", "-c", "echo hello > /dev/shm/note"]).await.unwrap().code, 0);
    assert_eq!(cri.exec(&two, &["cat", "/dev/shm/note"]).await.unwrap().stdout, "hello\n");
    let size = cri.exec(&two, &["df", "-k", "/dev/shm"]).await.unwrap().stdout;
    assert!(size.contains("65536"), "64 MiB: {size}");
}

#[tokio::test]
async fn with_a_shared_pid_namespace_pause_is_first_and_reaps() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let mut one = idle("one", &image);
    pid_mode(&mut one, NamespaceMode::Pod);
    let mut two = idle("two", &image);
    pid_mode(&mut two, NamespaceMode::Pod);
    let one = cri.run(&pod, one).await;
    let two = cri.run(&pod, two).await;
    assert_eq!(cri.exec(&one, &["cat", "/proc/1/comm"]).await.unwrap().stdout, "pause\n");
    let processes = cri.exec(&two, &["ps"]).await.unwrap().stdout;
    assert!(processes.matches("trap").count() >= 2, "both containers are seen: {processes}");
    // The orphan ends while nobody but pause can be its parent.
    let orphan = cri.exec(&one, &["sh", "-c", "(sleep 0.05 & ) ; exit 0"]).await.unwrap();
    assert_eq!(orphan.code, 0);
    eventually("no zombie is left", || async {
        let script = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; grep -l sleep /proc/[0-9]*/comm; true";
        let zombies = cri.exec(&one, &["sh", "-c", script]).await.unwrap().stdout;
        let short: Vec<&str> = zombies.lines().filter(|line| line.contains("status")).collect();
        if short.is_empty() { Ok(()) } else { Err(zombies) }
    })
    .await;
}

/// Only numbers from 1 to 31 have names. In a shared pid namespace no process is the kernel's protected first one.
#[tokio::test]
async fn an_end_by_a_real_time_signal_is_reported_and_stops_nothing_else() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let run = async |name: &str, script: &str, stop: api::Signal| {
        let mut config = shell(name, &image, script);
        pid_mode(&mut config, NamespaceMode::Pod);
        config.stop_signal = stop.into();
        cri.run(&pod, config).await
    };
    let usual = api::Signal::RuntimeDefault;
    let other = run("other", "exec sleep 1000", usual).await;
    for signal in [34, 50, 64] {
        let name = format!("by-{signal}");
        let ended = run(&name, &format!("kill -{signal} $$"), usual).await;
        assert_eq!(cri.ended(&ended).await.exit_code, 128 + signal, "{signal}");
    }
    // 32 and 33 are the C library's own.
    for signal in [32, 36] {
        let script = format!("kill -{signal} $$");
        assert_eq!(cri.exec(&other, &["sh", "-c", &script]).await.unwrap().code, 128 + signal);
    }
    let after = run("after", "exit 7", usual).await;
    assert_eq!(cri.ended(&after).await.exit_code, 7);
    // As images with systemd have it.
    let stopped = run("stopped", "exec sleep 1000", api::Signal::Sigrtminplus3).await;
    cri.stop(&stopped, 20).await.unwrap();
    assert_eq!(cri.status(&stopped).await.exit_code, 128 + 37);
    assert_eq!(cri.status(&other).await.state(), api::ContainerState::ContainerRunning);
}

#[tokio::test]
async fn a_container_may_look_into_anothers_processes() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let target = cri.run(&pod, shell("target", &image, "exec sleep 985")).await;
    let mut debug = shell("debug", &image, "ps");
    let options = security(&mut debug).namespace_options.get_or_insert_default();
    options.pid = NamespaceMode::Target.into();
    options.target_id = target;
    let said = cri.output(&pod, debug).await;
    assert!(said.stdout.contains("sleep 985"), "{said:?}");
}

#[tokio::test]
async fn a_target_that_cannot_be_looked_into_is_refused() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let other = cri.run_pod("other").await.unwrap();
    let elsewhere = cri.run(&other, shell("target", &image, "exec sleep 986")).await;
    let ended = cri.run(&pod, shell("ended", &image, "true")).await;
    let _status = cri.ended(&ended).await;
    let created = cri.make(&pod, shell("created", &image, "true")).await;
    let debug = |target: &str| {
        let mut debug = shell("debug", &image, "ps");
        let options = security(&mut debug).namespace_options.get_or_insert_default();
        options.pid = NamespaceMode::Target.into();
        options.target_id = target.to_owned();
        debug
    };
    for (target, says) in [
        ("", "needs an id"),
        (elsewhere.as_str(), "this pod has no such container"),
        ("nobody\x1b[2J", "\\u{1b}[2J"),
        (&ended, "not running"),
        (&created, "not running"),
    ] {
        let refused = cri.create(&pod, debug(target)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(says), "{says:?} in {refused}");
    }
    // It was running when the container was made, and is not when that is started.
    let target = cri.run_idle(&pod, "target", &image).await;
    let made = cri.make(&pod, debug(&target)).await;
    cri.stop(&target, 0).await.unwrap();
    let refused = cri.start(&made).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("not running"), "{refused}");
    let mut config = cri.pod_config("bad");
    pod_namespaces(&mut config).pid = NamespaceMode::Target.into();
    let refused = cri.run_pod_with(config).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("namespace_options.pid"), "{refused}");
}

#[tokio::test]
async fn on_the_hosts_network_a_pod_has_the_hosts_links() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    config.hostname = String::new();
    pod_namespaces(&mut config).network = NamespaceMode::Node.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let mut probe = shell("probe", &image, "readlink /proc/self/ns/net; hostname; cat /etc/hosts");
    security(&mut probe).namespace_options.get_or_insert_default().network =
        NamespaceMode::Node.into();
    let said = cri.output(&pod, probe).await.stdout;
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert!(said.starts_with(&own), "{said}");
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(said.lines().nth(1), Some(hostname.trim()));
    let status = cri.pod_status(&pod).await.unwrap().status.unwrap();
    let ip = status.network.unwrap_or_default().ip;
    assert_eq!(ip, "", "the kubelet knows the node's address itself");
}

#[tokio::test]
async fn host_pid_and_ipc_are_the_hosts() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    let namespaces = pod_namespaces(&mut config);
    namespaces.pid = NamespaceMode::Node.into();
    namespaces.ipc = NamespaceMode::Node.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let mut probe =
        shell("probe", &image, "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc");
    let namespaces = security(&mut probe).namespace_options.get_or_insert_default();
    namespaces.pid = NamespaceMode::Node.into();
    namespaces.ipc = NamespaceMode::Node.into();
    let said = cri.output(&pod, probe).await.stdout;
    let own = |name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_eq!(said.lines().collect::<Vec<_>>(), [own("pid"), own("ipc")]);
}

#[tokio::test]
async fn names_and_resolver_come_from_the_config() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    config.hostname = "web-0".into();
    config.dns_config = Some(api::DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["tests.svc.cluster.local".into(), "cluster.local".into()],
        options: vec!["ndots:5".into()],
    });
    let pod = cri.run_pod_with(config).await.unwrap();
    let ip = cri.pod_ip(&pod).await;
    let made = cri.run_idle(&pod, "main", &image).await;
    let read = |path: &'static str| {
        let (cri, made) = (cri.clone(), made.clone());
        async move { cri.exec(&made, &["cat", path]).await.unwrap().stdout }
    };
    assert_eq!(cri.exec(&made, &["hostname"]).await.unwrap().stdout, "web-0\n");
    assert_eq!(read("/etc/hostname").await, "web-0\n");
    let resolver = read("/etc/resolv.conf").await;
    assert_eq!(
        resolver,
        "search tests.svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let hosts = read("/etc/hosts").await;
    assert!(hosts.contains("127.0.0.1\tlocalhost"), "{hosts}");
    assert!(hosts.contains(&format!("{ip}\tweb-0")), "{hosts}");
    let environment = cri.exec(&made, &["env"]).await.unwrap().stdout;
    assert!(environment.contains("HOSTNAME=web-0"), "{environment}");
}

#[tokio::test]
async fn sysctls_are_set_in_the_pod_only() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let key = "net.ipv4.ip_unprivileged_port_start";
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let on_host = fs::read_to_string(&path).unwrap();
    let mut config = cri.pod_config("web");
    let sysctls = &mut config.linux.get_or_insert_default().sysctls;
    sysctls.insert(key.into(), "77".into());
    sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = format!("cat {path} /proc/sys/kernel/shm_rmid_forced");
    let said = cri.output(&pod, shell("probe", &image, &script)).await;
    assert_eq!(said.stdout, "77\n1\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), on_host);
}

const PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const PING: &str = "/proc/sys/net/ipv4/ping_group_range";

/// As in containerd 2: neither CAP_NET_BIND_SERVICE nor CAP_NET_RAW is needed in a pod's own network.
#[tokio::test]
async fn processes_of_a_pod_listen_on_every_port_without_capabilities_and_all_are_in_the_ping_group_range()
 {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let host = [PORTS, PING].map(|path| fs::read_to_string(path).unwrap()).concat();
    let pod = cri.run_pod("web").await.unwrap();
    // httpd goes into the background once it has its port.
    let script = format!(
        "cat {PORTS} {PING}; httpd -p 80 -h / && cat /proc/net/tcp /proc/net/tcp6 | grep -c ':0050 '"
    );
    let mut probe = shell("probe", &image, &script);
    let context = security(&mut probe);
    context.run_as_user = Some(api::Int64Value { value: 1000 });
    context.capabilities =
        Some(api::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    let said = cri.output(&pod, probe).await;
    assert_eq!(said.stdout, "0\n0\t2147483647\n1\n", "{said:?}");

    // The pod's own settings are kept, in either spelling.
    let mut config = cri.pod_config("own");
    config.linux.get_or_insert_default().sysctls = [
        ("net/ipv4/ip_unprivileged_port_start".to_owned(), "1024".to_owned()),
        ("net.ipv4.ping_group_range".to_owned(), "1 0".to_owned()),
    ]
    .into();
    let own = cri.run_pod_with(config).await.unwrap();
    let said = cri.output(&own, shell("probe", &image, &format!("cat {PORTS} {PING}"))).await;
    assert_eq!(said.stdout, "1024\n1\t0\n");
    assert_eq!([PORTS, PING].map(|path| fs::read_to_string(path).unwrap()).concat(), host);

    // A pod with the host's network changes nothing of it.
    let mut config = cri.pod_config("host");
    pod_namespaces(&mut config).network = api::NamespaceMode::Node.into();
    let shared = cri.run_pod_with(config).await.unwrap();
    let mut probe = shell("probe", &image, &format!("cat {PORTS} {PING}"));
    security(&mut probe).namespace_options.get_or_insert_default().network =
        api::NamespaceMode::Node.into();
    assert_eq!(cri.output(&shared, probe).await.stdout, host);
}

#[tokio::test]
async fn a_sysctl_of_the_whole_host_is_refused_by_name() {
    let node = Node::start().await;
    let cri = node.cri();
    let mut config = cri.pod_config("web");
    config.linux.get_or_insert_default().sysctls.insert("vm.swappiness".into(), "1".into());
    let refused = cri.run_pod_with(config).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("vm.swappiness"), "{refused}");
    node.nothing_is_left().await;
}

#[tokio::test]
async fn the_pods_cgroup_is_below_the_parent_asked_for() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let parent = format!("{}/kubepods/burstable/pod1", node.names().cgroup);
    let mut config = cri.pod_config("web");
    config.linux.get_or_insert_default().cgroup_parent = parent.clone();
    let pod = cri.run_pod_with(config).await.unwrap();
    let made = cri.run_idle(&pod, "main", &image).await;
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", cri.pid(&made).await)).unwrap();
    let expected = format!(":{parent}/{made}");
    assert!(cgroups.lines().any(|line| line.ends_with(&expected)), "{expected} in {cgroups}");
    cri.remove_all_pods().await.unwrap();
    // The kubelet made that parent and takes it away itself; here the test does.
    for hierarchy in hull_tests::host::hierarchies() {
        for dir in ["kubepods/burstable/pod1", "kubepods/burstable", "kubepods"] {
            let below = node.names().cgroup.trim_start_matches('/').to_owned();
            let _gone = fs::remove_dir(hierarchy.join(below).join(dir));
        }
    }
}

#[tokio::test]
async fn a_pod_whose_pause_is_killed_is_no_longer_ready() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.run(&pod, container("main", &image, &["sleep", "984"])).await;
    let info = cri.pod_status(&pod).await.unwrap().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    let pid = i32::try_from(info["pid"].as_i64().unwrap()).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the pod is not ready", || async {
        let state = cri.pod_status(&pod).await.unwrap().status.unwrap().state();
        if state == api::PodSandboxState::SandboxNotready {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await;
    drop(made);
    cri.stop_pod(&pod).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    node.nothing_is_left().await;
}
