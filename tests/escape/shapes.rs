// SPDX-License-Identifier: Apache-2.0
//! Containers of every shape: what an auditor inside sees, and what the host sees of it, against what
//! was asked for.

use crate::auditor::{self, AUDITOR, Report};
use crate::host_view::HostView;
use hull_proto::cri::security_profile::ProfileType;
use hull_proto::cri::{self as api, ContainerConfig, NamespaceMode, PodSandboxConfig};
use hull_tests::bundle::Bundle;
use hull_tests::cri::{mount, pod_namespaces, security};
use hull_tests::shell::say;
use hull_tests::{Cri, ExpectExt as _, Node, session};
use std::fs;
use std::path::Path;

/// Where ids of pods with user namespaces begin on the host.
const FIRST: u32 = 200_000;
/// The capabilities of a container that asks for none, as moby and containerd give them: CHOWN,
/// DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
/// MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
/// Files outside of processes' directories that root of a default container may write, by moby and
/// containerd too: the kernel decides there who may do what.
const WRITABLE: [&str; 9] = [
    "/proc/pressure/",
    "/proc/dynamic_debug/control",
    "/proc/mtrr",
    "/proc/slabinfo",
    "/proc/kpage",
    "/proc/driver/",
    "/proc/sysvipc/",
    "/proc/net",
    "/proc/allocinfo",
];
/// Filesystems of the kernel, and where alone they may be.
const PLACES: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup", "/sys/fs/cgroup"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("devpts", "/dev/"),
    ("mqueue", "/dev/mqueue"),
];
/// Device nodes of every container: null, zero, full, random, urandom, tty, console, ptmx.
const NODES: [(u64, u64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// As a kubelet asks for with `hostUsers: false`.
pub(crate) fn mapped(cri: &Cri, name: &str) -> PodSandboxConfig {
    let mut config = cri.pod_config(name);
    let range = vec![api::IdMapping { host_id: FIRST, container_id: 0, length: 65_536 }];
    pod_namespaces(&mut config).userns_options = Some(api::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: range.clone(),
        gids: range,
    });
    config
}

/// As with `shareProcessNamespace: true`; containers say so as well.
pub(crate) fn share_processes(config: &mut PodSandboxConfig) {
    pod_namespaces(config).pid = NamespaceMode::Pod.into();
}

/// Which pid namespace a container gets.
pub(crate) fn processes_of(config: &mut ContainerConfig, mode: NamespaceMode) {
    security(config).namespace_options.get_or_insert_default().pid = mode.into();
}

/// The runtime's own seccomp profile, as kubelets ask for with RuntimeDefault.
pub(crate) fn default_seccomp(config: &mut ContainerConfig) {
    let profile = api::SecurityProfile {
        profile_type: ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    };
    security(config).seccomp = Some(profile);
}

/// Capabilities on top of the default.
pub(crate) fn add_capability(config: &mut ContainerConfig, name: &str) {
    security(config).capabilities.get_or_insert_default().add_capabilities.push(name.into());
}

/// Checks what holds for every container without privileges.
#[track_caller]
fn is_confined(report: &Report, name: &str) {
    let seen = &report.0;
    assert_eq!(report.process("root"), "/", "{name}");
    assert_eq!(report.process("exe"), AUDITOR, "{name}");
    for descriptor in seen["fds"].as_array().into_iter().flatten() {
        assert!(descriptor["fd"].as_u64() <= Some(2), "{name}: it was handed {descriptor}");
    }
    for (kind, place) in PLACES {
        for line in report.mounts_of(kind) {
            let at = line.split(' ').nth(4).unwrap_or_default();
            assert!(at.starts_with(place), "{name}: {kind} is mounted at {at}: {line}");
        }
    }
    for (mount, of) in seen["proc"].as_object().into_iter().flatten() {
        for (file, said) in of["guarded"].as_object().into_iter().flatten() {
            let is_directory = said["entries"].is_u64();
            // A masked file is the container's own null device.
            let is_closed = said["write"] != "ok" || said["masked"] == true;
            assert!(is_closed, "{name}: {mount}/{file}: {said}");
            assert!(!is_directory || said["writable"] == false, "{name}: {mount}/{file}: {said}");
        }
        for file in ["kcore", "keys", "timer_list", "latency_stats", "sched_debug", "interrupts"] {
            let said = report.proc_file(mount, file);
            assert!(said.is_null() || said["masked"] == true, "{name}: {mount}/{file}: {said}");
        }
        for dir in ["acpi", "asound", "scsi"] {
            let said = report.proc_file(mount, dir);
            assert!(said.is_null() || said["entries"] == 0, "{name}: {mount}/{dir}: {said}");
        }
    }
    for (dir, entries) in seen["sys_guarded"].as_object().into_iter().flatten() {
        assert_eq!(*entries, 0, "{name}: {dir} is not masked");
    }
    let beyond = |path: &String| !WRITABLE.iter().any(|known| path.starts_with(known));
    let writable: Vec<String> = report.writable().into_iter().filter(beyond).collect();
    assert!(writable.is_empty(), "{name} may write {writable:#?}");
    only_its_devices(report, name);
    for process in seen["signals"].as_array().into_iter().flatten() {
        let command = process["command"].as_str().unwrap_or_default();
        let is_ours = command.starts_with("hull") || command.starts_with("monitor");
        assert!(!is_ours || process["signal"] != "ok", "{name} may signal {process}");
        assert!(!is_ours || process["root"].is_null(), "{name} sees the root of {process}");
    }
}

#[track_caller]
fn only_its_devices(report: &Report, name: &str) {
    for node in report.0["devices"].as_array().into_iter().flatten() {
        let number = (node["number"][0].as_u64(), node["number"][1].as_u64());
        let is_its_own = match number {
            (Some(136), Some(_)) => true,
            (Some(major), Some(minor)) => NODES.contains(&(major, minor)),
            _ => false,
        };
        let opens = node["opens"] == "ok";
        assert!(is_its_own || !opens, "{name}: a device that it was not given opens: {node}");
    }
}

#[track_caller]
fn rights(report: &Report, name: &str, capabilities: u64, no_new_privs: bool, seccomp: u32) {
    assert_eq!(report.capabilities("CapBnd"), capabilities, "{name}: bounding set");
    assert_eq!(report.capabilities("CapAmb"), 0, "{name}: ambient set");
    assert_eq!(report.process("NoNewPrivs"), u32::from(no_new_privs).to_string(), "{name}");
    assert_eq!(report.process("Seccomp"), seccomp.to_string(), "{name}: seccomp mode");
}

#[tokio::test]
async fn default_and_restricted_containers_have_what_was_asked_for_and_nothing_else() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let mut plain = auditor::container("plain", &image, &["audit"]);
    default_seccomp(&mut plain);
    let seen = auditor::audit(&cri, &pod, plain.clone()).await;
    is_confined(&seen, "default");
    rights(&seen, "default", DEFAULT_CAPABILITIES, false, 2);
    assert_eq!(seen.capabilities("CapEff"), DEFAULT_CAPABILITIES);
    assert_eq!(seen.capabilities("CapInh"), 0, "inheritable sets give programs rights");

    // As Pod Security's restricted wants it.
    let mut restricted = auditor::container("restricted", &image, &["audit"]);
    default_seccomp(&mut restricted);
    let context = security(&mut restricted);
    context.run_as_user = Some(api::Int64Value { value: 1000 });
    context.no_new_privs = true;
    context.capabilities.get_or_insert_default().drop_capabilities = vec!["ALL".into()];
    let seen = auditor::audit(&cri, &pod, restricted).await;
    is_confined(&seen, "restricted");
    rights(&seen, "restricted", 0, true, 2);
    for set in ["CapEff", "CapPrm", "CapInh"] {
        assert_eq!(seen.capabilities(set), 0, "{set}");
    }
    assert!(
        seen.writable().iter().all(|path| path.starts_with("/proc/pressure/")),
        "{:?}",
        seen.writable()
    );
    assert!(seen.process("Uid").starts_with("1000\t1000"), "{}", seen.process("Uid"));

    // With a terminal the document comes through it.
    let mut terminal = plain.clone();
    terminal.metadata.get_or_insert_default().name = "terminal".into();
    terminal.tty = true;
    let seen = auditor::audit(&cri, &pod, terminal).await;
    is_confined(&seen, "terminal");
    rights(&seen, "terminal", DEFAULT_CAPABILITIES, false, 2);
}

#[tokio::test]
async fn execs_have_what_their_container_has() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped")] {
        let name = config.hostname.clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut main = auditor::container("main", &image, &["wait"]);
        default_seccomp(&mut main);
        security(&mut main).no_new_privs = true;
        let main = cri.run(&pod, main).await;
        let ran = cri.exec(&main, &[AUDITOR, "audit"]).await.unwrap();
        let seen = Report::read(&ran.stdout, &format!("{ran:?}"));
        is_confined(&seen, &name);
        rights(&seen, &name, DEFAULT_CAPABILITIES, true, 2);
        for tty in [false, true] {
            let (_to, mut from) = session::exec(&cri, &main, &[AUDITOR, "audit"], tty).await;
            let heard = from.rest().await;
            let seen = Report::read(
                &String::from_utf8_lossy(&heard.stdout),
                &format!("{name}, tty {tty}"),
            );
            is_confined(&seen, &name);
            rights(&seen, &name, DEFAULT_CAPABILITIES, true, 2);
        }
        cri.stop(&main, 0).await.unwrap();
    }
}

#[tokio::test]
async fn neighbours_of_the_host_or_of_each_other_see_processes_but_not_what_is_theirs() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    for (name, mode) in [("host-pid", NamespaceMode::Node), ("shared-pid", NamespaceMode::Pod)] {
        let mut config = cri.pod_config(name);
        pod_namespaces(&mut config).pid = mode.into();
        let pod = cri.run_pod_with(config).await.unwrap();
        // One of another pod's processes, with the same user.
        let mut neighbour = auditor::container("neighbour", &image, &["wait"]);
        processes_of(&mut neighbour, mode);
        let neighbour = cri.run(&pod, neighbour).await;
        let mut main = auditor::container("main", &image, &["audit"]);
        default_seccomp(&mut main);
        processes_of(&mut main, mode);
        let seen = auditor::audit(&cri, &pod, main).await;
        rights(&seen, name, DEFAULT_CAPABILITIES, false, 2);
        for process in seen.0["signals"].as_array().into_iter().flatten() {
            let command = process["command"].as_str().unwrap_or_default();
            // Without CAP_SYS_PTRACE nobody's links but of those with no more rights.
            let is_hull = command.starts_with("hull");
            assert!(!is_hull || process["root"].is_null(), "{name}: {process}");
            assert!(!is_hull || process["exe"].is_null(), "{name}: {process}");
        }
        HostView(cri.pid(&neighbour).await).stands_inside();
        cri.stop(&neighbour, 0).await.unwrap();
    }
}

#[tokio::test]
async fn added_rights_are_those_that_were_added() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    for (name, bit) in [("SYS_PTRACE", SYS_PTRACE), ("SYS_ADMIN", SYS_ADMIN)] {
        let mut config =
            auditor::container(&name.to_lowercase().replace('_', "-"), &image, &["audit"]);
        default_seccomp(&mut config);
        add_capability(&mut config, name);
        let seen = auditor::audit(&cri, &pod, config).await;
        is_confined(&seen, name);
        rights(&seen, name, DEFAULT_CAPABILITIES | bit, false, 2);
    }
}

#[tokio::test]
async fn root_of_a_user_namespace_has_nothing_of_the_hosts() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    let mut config = auditor::container("main", &image, &["audit"]);
    default_seccomp(&mut config);
    let seen = auditor::audit(&cri, &pod, config).await;
    is_confined(&seen, "mapped");
    rights(&seen, "mapped", DEFAULT_CAPABILITIES, false, 2);
    for map in ["uid_map", "gid_map"] {
        let words: Vec<&str> = seen.process(map).split_whitespace().collect();
        assert_eq!(words, ["0", "200000", "65536"], "{map}");
    }
}

#[tokio::test]
async fn who_names_no_masks_has_the_runtimes_and_unmasked_reaches_nothing_of_the_hosts() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped")] {
        let name = config.hostname.clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut main = auditor::container("main", &image, &["audit"]);
        default_seccomp(&mut main);
        security(&mut main).masked_paths.clear();
        security(&mut main).readonly_paths.clear();
        let seen = auditor::audit(&cri, &pod, main).await;
        if name == "plain" {
            is_confined(&seen, &name);
        }
        // Where the pod has a user namespace that may mean `procMount: Unmasked`: then the settings are
        // there to be seen, and root inside is not the root that may write them.
        for (mount, of) in seen.0["proc"].as_object().into_iter().flatten() {
            for (file, said) in of["guarded"].as_object().into_iter().flatten() {
                let is_closed = said["write"] != "ok" || said["masked"] == true;
                // Its own host name is its own to set.
                assert!(is_closed || file.ends_with("hostname"), "{name}: {mount}/{file}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn the_host_sees_what_was_asked_for() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let mut host = cri.pod_config("host");
    *pod_namespaces(&mut host) = api::NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    let volume = node.host_dir().join("volume");
    fs::create_dir(&volume).unwrap();
    for (config, shared) in [
        (cri.pod_config("plain"), &[][..]),
        (host, &["net", "pid", "ipc", "uts"][..]),
        (mapped(&cri, "mapped"), &[][..]),
    ] {
        let name = config.hostname.clone();
        let options = pod_namespaces(&mut config.clone()).clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut main = auditor::container("main", &image, &["wait"]);
        default_seccomp(&mut main);
        security(&mut main).namespace_options = Some(options);
        main.mounts = vec![mount(&volume, "/volume")];
        let made = cri.run(&pod, main).await;
        let process = HostView(cri.pid(&made).await);
        process.stands_inside();
        for kind in ["mnt", "net", "pid", "ipc", "uts", "user", "cgroup"] {
            let is_shared = match kind {
                "user" => name != "mapped",
                // With cgroup v1 alone containers are in the host's.
                "cgroup" => continue,
                kind => shared.contains(&kind),
            };
            assert_eq!(process.shares(kind), is_shared, "{name}: {kind}");
        }
        assert_eq!(process.holes(), Vec::<String>::new(), "{name}");
        assert_eq!(process.status("Seccomp"), "2", "{name}");
        // Of the host's files there is the volume, and the files that every container gets.
        let root = node.names().root.display().to_string();
        let of_host = process.mounts().into_iter().filter(|line| line.contains(&root));
        let places: Vec<String> =
            of_host.filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect();
        for place in &places {
            let known = ["/", "/volume", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
            assert!(known.contains(&place.as_str()), "{name}: {place} in {:#?}", process.mounts());
        }
        assert!(fs::metadata(format!("/proc/{}/root{root}", process.0)).is_err(), "{name}");
    }
}

#[test]
fn hull_oci_confines_what_its_document_says() {
    let bundle = Bundle::new();
    let at = Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), at).or_fail("put the auditor in a bundle");
    bundle.change(|config| {
        config["process"]["args"] = serde_json::json!([AUDITOR, "audit"]);
        let masked = config["linux"]["maskedPaths"].as_array_mut();
        // `runc spec` does not have it.
        masked.or_fail("find the masked paths").push("/proc/interrupts".into());
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    let seen = Report::read(&ran.stdout, &format!("{ran:?}"));
    is_confined(&seen, "hull oci run");
    bundle.change(|config| config["process"]["args"] = serde_json::json!([AUDITOR, "wait"]));
    bundle.up("two");
    let ran = bundle.oci(&["exec", "two", AUDITOR, "audit"]);
    let seen = Report::read(&ran.stdout, &format!("{ran:?}"));
    is_confined(&seen, "hull oci exec");
    let pid = bundle.state("two")["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let process = HostView(pid.or_fail("find the container's process"));
    process.stands_inside();
    assert_eq!(process.holes(), Vec::<String>::new());
}

#[tokio::test]
async fn where_the_machine_has_apparmor_containers_have_its_profile() {
    let node = Node::start().await;
    if fs::metadata("/sys/kernel/security/apparmor/profiles").is_err() {
        // Not a failure where every test must run: the VM has it, and runs this program too.
        say("NOT CHECKED here, but in the VM: AppArmor, which this machine lacks");
        return;
    }
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let mut config = auditor::container("main", &image, &["audit"]);
    default_seccomp(&mut config);
    let seen = auditor::audit(&cri, &pod, config).await;
    assert_eq!(seen.process("lsm"), "hull-default (enforce)");
}
