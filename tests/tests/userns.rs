// SPDX-License-Identifier: Apache-2.0
//! Pods with user namespaces: who is who inside and outside, and what is refused.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{idle, mount, pod_namespaces, security, shell};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, node};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

/// Where the pods' ids begin on the host.
const FIRST: u32 = 200_000;
const LENGTH: u32 = 65_536;

fn range(container_id: u32, host_id: u32, length: u32) -> Vec<api::IdMapping> {
    vec![api::IdMapping { host_id, container_id, length }]
}

fn userns(mode: NamespaceMode, maps: &[api::IdMapping]) -> api::UserNamespace {
    api::UserNamespace { mode: mode.into(), uids: maps.to_vec(), gids: maps.to_vec() }
}

/// As a kubelet asks for with `hostUsers: false`.
fn mapped(cri: &Cri, name: &str) -> api::PodSandboxConfig {
    let mut config = cri.pod_config(name);
    let maps = range(0, FIRST, LENGTH);
    pod_namespaces(&mut config).userns_options = Some(userns(NamespaceMode::Pod, &maps));
    config
}

/// A volume as a kubelet gives it to such a pod.
fn volume(from: &Path, to: &str) -> api::Mount {
    let maps = range(0, FIRST, LENGTH);
    api::Mount { uid_mappings: maps.clone(), gid_mappings: maps, ..mount(from, to) }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::metadata(path).or_fail(format!("look at {}", path.display()));
    (found.uid(), found.gid())
}

#[tokio::test]
async fn root_of_the_pod_is_nobody_on_the_host() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(mapped(&cri, "web")).await.unwrap();
    let (dir, script) = (
        node.host_dir(),
        "id -u; cat /proc/self/uid_map | tr -s ' '; \
        stat -c '%u:%g %n' / /bin/busybox /etc /etc/hosts /etc/resolv.conf /etc/hostname /dev/null /dev/shm /dev/pts/ptmx /vol /vol/old /proc/1; \
        echo new > /vol/new; chown 3:4 /vol/new; echo mine >> /etc/hosts; touch /root-file; chown 5:6 /root-file; \
        echo x > /dev/null && echo null; ls /dev/mqueue && mkdir -p /mnt && mount -t tmpfs none /mnt 2>&1 | \
        grep -io 'permission denied' | tr P p",
    );
    let old = node::write(&dir, "old", "");
    chown(&old, Some(7), Some(8)).unwrap();
    let mut config = shell("main", &image, script);
    config.mounts = vec![volume(&dir, "/vol")];
    let made = cri.make(&pod, config).await;
    let upper = node.data_dir().join("containers").join(&made).join("upper");
    assert_eq!(owner(&upper), (FIRST, FIRST));
    cri.start(&made).await.unwrap();
    let status = cri.ended(&made).await;
    let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
    assert_eq!(
        said,
        "0\n 0 200000 65536\n0:0 /\n0:0 /bin/busybox\n0:0 /etc\n0:0 /etc/hosts\n0:0 /etc/resolv.conf\n0:0 /etc/hostname\n\
         0:0 /dev/null\n0:0 /dev/shm\n0:0 /dev/pts/ptmx\n0:0 /vol\n7:8 /vol/old\n0:0 /proc/1\nnull\n\
         permission denied\n",
        "{status:?}"
    );
    // On a volume the ids are those inside; in the container's own layer they are the pod's.
    assert_eq!(owner(&dir.join("new")), (3, 4));
    assert_eq!(owner(&upper.join("root-file")), (FIRST + 5, FIRST + 6));
    let hosts = node.data_dir().join("pods").join(&pod).join("hosts");
    assert_eq!(owner(&hosts), (0, 0));
    assert!(fs::read_to_string(&hosts).unwrap().ends_with("mine\n"));
    // The image was not copied to change its owners.
    let layer = hull_tests::shell::names(&upper);
    assert!(layer.iter().all(|name| name != "bin"), "{layer:?}");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn its_processes_are_together_and_the_network_is_theirs() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = mapped(&cri, "web");
    config.linux.as_mut().unwrap().sysctls =
        [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let mut one = idle("one", &image);
    security(&mut one).capabilities =
        Some(api::Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Default::default() });
    let one = cri.run(&pod, one).await;
    let two = cri.run_idle(&pod, "two", &image).await;
    cri.catches_term(&one).await;
    let link = |pid: i32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let (pid_one, pid_two) = (cri.pid(&one).await, cri.pid(&two).await);
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(link(pid_one, kind), link(pid_two, kind), "{kind}");
    }
    for kind in ["user", "pid", "mnt"] {
        assert_ne!(link(pid_one, kind), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    }
    let status = fs::read_to_string(format!("/proc/{pid_one}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{FIRST}\t")), "{status}");
    let run = |container: &str, script: &str| {
        let (cri, container, script) = (cri.clone(), container.to_owned(), script.to_owned());
        async move { cri.exec(&container, &["sh", "-c", &script]).await.unwrap() }
    };
    let ip = cri.pod_ip(&pod).await;
    let said = run(
        &one,
        "ip addr show dev eth0 && ip addr add 10.99.0.1/24 dev lo && ls /sys/class/net; \
                          cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
    )
    .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains(&ip) && said.stdout.contains("eth0\nlo\n"), "{said:?}");
    assert!(said.stdout.ends_with("80\n"), "{said:?}");
    // Without the capability nobody may, also as root inside.
    assert_ne!(run(&two, "ip addr del 10.99.0.1/24 dev lo").await.code, 0);
    assert_eq!(run(&one, "echo hello > /dev/shm/note; hostname").await.stdout, "web\n");
    assert_eq!(
        run(&two, "cat /dev/shm/note; id -u; cat /proc/self/gid_map | tr -s ' '").await.stdout,
        format!("hello\n0\n 0 {FIRST} {LENGTH}\n")
    );
    // A file made by one is the other's too, and a signal from outside arrives.
    assert_eq!(run(&two, "stat -c %u:%g /dev/shm/note; echo > /dev/stderr").await.stdout, "0:0\n");
    cri.stop(&one, 5).await.unwrap();
    assert_eq!(cri.ended(&one).await.exit_code, 0);
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn it_goes_on_through_a_restart_of_the_daemon() {
    let mut node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(mapped(&cri, "web")).await.unwrap();
    let one = cri.run_idle(&pod, "one", &image).await;
    node.kill();
    node.start_again().await;
    let cri = node.cri();
    let said = cri.exec(&one, &["cat", "/proc/self/uid_map"]).await.unwrap();
    assert!(said.stdout.contains(&FIRST.to_string()), "{said:?}");
    let two = cri.run_idle(&pod, "two", &image).await;
    assert_eq!(cri.exec(&two, &["id", "-u"]).await.unwrap().stdout, "0\n");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn users_terminals_and_shared_processes_work_inside() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = mapped(&cri, "web");
    pod_namespaces(&mut config).pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let mut user =
        shell("user", &image, "id -u; id -g; echo x > /proc/self/fd/1; cat /proc/1/comm");
    let context = security(&mut user);
    context.run_as_user = Some(api::Int64Value { value: 1000 });
    context.run_as_group = Some(api::Int64Value { value: 100 });
    context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    assert_eq!(cri.output(&pod, user).await.stdout, "1000\n100\nx\npause\n");
    let mut terminal = shell("terminal", &image, "tty; stat -c %u /dev/console; echo y > /dev/tty");
    terminal.tty = true;
    let said = cri.output(&pod, terminal).await.stdout;
    assert_eq!(said.replace('\r', ""), "/dev/pts/0\n0\ny\n");
    let mut privileged =
        shell("privileged", &image, "mkdir -p /mnt; mount -t tmpfs none /mnt && echo mounted");
    security(&mut privileged).privileged = true;
    assert_eq!(cri.output(&pod, privileged).await.stdout, "mounted\n");
    let mut outside = shell("outside", &image, "true");
    security(&mut outside).run_as_user = Some(api::Int64Value { value: 70_000 });
    let refused = cri.create(&pod, outside).await.unwrap_err();
    assert!(refused.message().contains("70000"), "{refused}");
}

#[tokio::test]
async fn on_the_hosts_network_the_hosts_sys_is_there_to_be_read() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = mapped(&cri, "web");
    pod_namespaces(&mut config).network = NamespaceMode::Node.into();
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "cat /proc/self/uid_map | tr -s ' '; readlink /proc/self/ns/net; \
                  grep -c ' /sys ro,' /proc/self/mountinfo; ls -d /sys/class/net/lo /sys/fs/cgroup/*/ | head -1";
    let mut main = shell("main", &image, script);
    security(&mut main).namespace_options.as_mut().unwrap().network = NamespaceMode::Node.into();
    let said = cri.output(&pod, main).await;
    let net = fs::read_link("/proc/self/ns/net").unwrap();
    let expected = format!(" 0 {FIRST} {LENGTH}\n{}\n1\n/sys/class/net/lo\n", net.display());
    assert_eq!(said.stdout, expected, "{said:?}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let node = Node::start().await;
    let cri = node.cri();
    let before = node.on_host();
    let two = [range(0, FIRST, 10), range(10, FIRST + 10, 10)].concat();
    for (mode, maps, says) in [
        (NamespaceMode::Pod, vec![], "userns_options.uids"),
        (NamespaceMode::Pod, two, "more than one"),
        (NamespaceMode::Pod, range(1, FIRST, 10), "container id 0"),
        (NamespaceMode::Pod, range(0, u32::MAX - 3, 10), "host ids"),
        (NamespaceMode::Pod, range(0, 0, 10), "host's root"),
        (NamespaceMode::Node, range(0, FIRST, 10), "userns_options.mode"),
        (NamespaceMode::Container, vec![], "userns_options.mode"),
        (NamespaceMode::Target, vec![], "userns_options.mode"),
    ] {
        let mut config = cri.pod_config("bad");
        pod_namespaces(&mut config).userns_options = Some(userns(mode, &maps));
        let refused = cri.run_pod_with(config).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(says), "{says:?} in {refused}");
    }
    for host in ["pid", "ipc"] {
        let mut config = mapped(&cri, "bad");
        let options = pod_namespaces(&mut config);
        let of = if host == "pid" { &mut options.pid } else { &mut options.ipc };
        *of = NamespaceMode::Node.into();
        let refused = cri.run_pod_with(config).await.unwrap_err();
        assert!(refused.message().contains(&format!("userns_options.{host}")), "{refused}");
    }
    assert_eq!(node.on_host(), before);
    assert!(cri.pods().await.is_empty());
}

#[tokio::test]
async fn the_node_says_that_it_can() {
    let node = Node::start().await;
    let status = node.cri().runtime.clone().status(api::StatusRequest::default()).await.unwrap();
    let status = status.into_inner();
    for handler in status.runtime_handlers {
        assert!(handler.features.unwrap().user_namespaces, "{}", node.daemon_log());
    }
    assert!(status.features.unwrap().user_namespaces_host_network);
}

/// The host's root owns the host's devices, and the pod's root is somebody else.
#[tokio::test]
async fn a_privileged_pod_has_no_device_that_only_the_hosts_root_may_open() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let mut config = mapped(&cri, "web");
    hull_tests::cri::pod_security(&mut config).privileged = true;
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "find /dev -type b; find /dev -type c ! -perm -6 ! -path '/dev/pts/*'; echo only; \
        stat -c '%u:%g %n' /dev/null /dev/kmsg; echo x > /dev/null && echo null; \
        (echo x > /dev/kmsg) 2>/dev/null || echo refused; mknod /tmp-node b 7 0 2>/dev/null || echo not made";
    let mut privileged = shell("privileged", &image, script);
    security(&mut privileged).privileged = true;
    // Given by name, it is still the host's.
    privileged.devices = vec![api::Device {
        container_path: "/dev/kmsg".into(),
        host_path: "/dev/kmsg".into(),
        permissions: "rw".into(),
    }];
    let mode = fs::metadata("/dev/kmsg").unwrap().mode();
    let said = cri.output(&pod, privileged).await.stdout;
    let (closed, rest) = said.split_once("only\n").unwrap();
    let kmsg = if mode & 6 == 6 { "" } else { "/dev/kmsg\n" };
    assert_eq!(closed, kmsg, "{said}");
    if mode & 2 == 0 {
        assert_eq!(rest, "0:0 /dev/null\n65534:65534 /dev/kmsg\nnull\nrefused\nnot made\n");
    }
}

/// `procMount: Unmasked`: a kubelet sends empty lists.
#[tokio::test]
async fn proc_is_bare_where_nothing_of_it_is_to_be_hidden() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let pod = cri.run_pod_with(mapped(&cri, "web")).await.unwrap();
    let covered =
        "grep -c ' /proc/' /proc/self/mountinfo; grep -c ' /sys/firmware' /proc/self/mountinfo";
    let bare = cri.output(&pod, shell("bare", &image, covered)).await;
    assert_eq!(bare.stdout, "0\n0\n", "{bare:?}");
    // So a container in it can have a /proc of its own.
    let script = "mkdir -p /inner && unshare -p -f -m mount -t proc proc /inner && echo nested";
    let mut nested = shell("nested", &image, script);
    security(&mut nested).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    let nested = cri.output(&pod, nested).await;
    assert_eq!(nested.stdout, "nested\n", "{nested:?}");
    // With any list, everything that is hidden by default is.
    let mut listed =
        shell("listed", &image, "cat /proc/keys; wc -c < /proc/timer_list; ls /proc/scsi");
    security(&mut listed).masked_paths = vec!["/proc/kcore".into()];
    let listed = cri.output(&pod, listed).await;
    assert_eq!(listed.stdout, "0\n", "{listed:?}");
}

/// Clients name the network of a pod, and often not that of its containers.
#[tokio::test]
async fn a_container_that_names_no_network_is_on_its_pods_also_on_the_hosts() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    let of_host = fs::read_link("/proc/self/ns/net").or_fail("read the host's network namespace");
    for is_mapped in [true, false] {
        let mut config = if is_mapped { mapped(&cri, "web") } else { cri.pod_config("web") };
        pod_namespaces(&mut config).network = NamespaceMode::Node.into();
        let pod = cri.run_pod_with(config).await.or_fail("run a pod on the host's network");
        let mut named = shell("named", &image, "readlink /proc/self/ns/net; hostname");
        let options = security(&mut named).namespace_options.get_or_insert_default();
        if is_mapped {
            let maps = range(0, FIRST, LENGTH);
            options.userns_options = Some(userns(NamespaceMode::Pod, &maps));
        }
        let mut on_host = named.clone();
        on_host.metadata.get_or_insert_default().name = "on-host".into();
        security(&mut on_host).namespace_options.get_or_insert_default().network =
            NamespaceMode::Node.into();
        let silent = shell("silent", &image, "readlink /proc/self/ns/net; hostname");
        for config in [named, on_host, silent] {
            let said = cri.output(&pod, config).await;
            let mut lines = said.stdout.lines();
            assert_eq!(lines.next(), of_host.to_str(), "{said:?}");
            let node_name = fs::read_to_string("/proc/sys/kernel/hostname").or_fail("read it");
            assert_eq!(lines.next(), Some(node_name.trim_end()), "{said:?}");
        }
        cri.remove_pod(&pod).await.or_fail("remove the pod");
    }
}
