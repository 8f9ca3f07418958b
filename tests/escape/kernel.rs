// SPDX-License-Identifier: Apache-2.0
//! Answers of the kernel to a container: system calls and socket families under the default profile,
//! and keys.

use crate::auditor::{self, AUDITOR};
use crate::shapes::{add_capability, default_seccomp, mapped, share_processes};
use hull_tests::bundle::Bundle;
use hull_tests::shell::say;
use hull_tests::{ExpectExt as _, Node, eventually};
use std::fs;

/// Calls that the default profiles of moby and containerd refuse to containers without more rights. By
/// what a filter says (EPERM, or ENOSYS for clone3, whose flags it cannot see), where the arguments
/// would have made the kernel say something else.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clone NEWNS",
    "clone NEWUSER",
    "clock_settime",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "personality",
    "pivot_root",
    "quotactl",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare NEWNS",
    "unshare NEWUSER",
    "userfaultfd",
    #[cfg(target_arch = "x86_64")]
    "ioperm",
    #[cfg(target_arch = "x86_64")]
    "iopl",
];
/// Calls that programs need, with what the kernel says to the arguments.
const LET_THROUGH: [(&str, &str); 8] = [
    ("getpid", "ok"),
    ("close_range", "EINVAL"),
    ("faccessat2", "EFAULT"),
    ("openat2", "EINVAL"),
    ("pidfd_open", "EINVAL"),
    ("prctl", "EINVAL"),
    ("seccomp", "EINVAL"),
    ("memfd_create", "EINVAL"),
];
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// UNIX, INET, INET6, NETLINK: without these hardly a program runs.
const NEEDED: [u64; 4] = [1, 2, 10, 16];

#[tokio::test]
async fn the_default_profile_refuses_what_those_of_moby_and_containerd_refuse() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    for config in [cri.pod_config("plain"), mapped(&cri, "mapped")] {
        let name = config.hostname.clone();
        let pod = cri.run_pod_with(config).await.unwrap();
        let mut main = auditor::container("main", &image, &["audit"]);
        default_seccomp(&mut main);
        let seen = auditor::audit(&cri, &pod, main).await;
        for call in REFUSED {
            let said = seen.call(call);
            assert!(matches!(said, "EPERM" | "ENOSYS"), "{name}: {call} got through: {said}");
        }
        assert_eq!(seen.call("clone3"), "ENOSYS", "{name}: its flags cannot be seen by a filter");
        let future = seen.call("a call of the future");
        assert!(
            matches!(future, "EPERM" | "ENOSYS"),
            "{name}: an unknown call got through: {future}"
        );
        for (call, says) in LET_THROUGH {
            assert_eq!(seen.call(call), says, "{name}: {call}");
        }
    }
}

#[tokio::test]
async fn capabilities_open_the_calls_that_they_are_for_and_no_others() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let calls = [
        ("SYS_ADMIN", &["mount", "setns", "fsopen", "unshare NEWNS", "bpf"][..]),
        ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"][..]),
        ("SYS_TIME", &["settimeofday", "clock_settime"][..]),
        ("SYSLOG", &["syslog"][..]),
        ("SYS_BOOT", &["reboot"][..]),
    ];
    for (name, opened) in calls {
        let lower = name.to_lowercase().replace('_', "-");
        let mut config = auditor::container(&lower, &image, &["audit"]);
        default_seccomp(&mut config);
        add_capability(&mut config, name);
        let seen = auditor::audit(&cri, &pod, config).await;
        for call in opened {
            assert_ne!(seen.call(call), "EPERM", "with {name} {call} is refused");
        }
        for call in ["add_key", "keyctl", "request_key", "userfaultfd", "io_uring_setup"] {
            assert_eq!(seen.call(call), "EPERM", "with {name} {call} gets through");
        }
    }
}

#[tokio::test]
async fn sockets_of_families_that_reach_into_the_kernel_are_refused() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let pod = cri.run_pod("web").await.unwrap();
    let mut main = auditor::container("main", &image, &["audit"]);
    default_seccomp(&mut main);
    let families = auditor::audit(&cri, &pod, main).await.families();
    for family in [AF_ALG, AF_VSOCK] {
        assert!(!families.contains(&family), "family {family} gets through: {families:?}");
    }
    for family in NEEDED {
        assert!(families.contains(&family), "family {family} is refused: {families:?}");
    }
    // Without a filter the auditor sees them: so it would have seen them above.
    let open = auditor::audit(&cri, &pod, auditor::container("open", &image, &["audit"])).await;
    assert!(open.families().contains(&AF_ALG), "{:?}", open.families());
}

#[tokio::test]
async fn abstract_sockets_of_the_host_are_out_of_sight() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let name = format!("hull-test-{}", node.names().bridge);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let pod = cri.run_pod("web").await.unwrap();
    let seen = auditor::audit(&cri, &pod, auditor::container("main", &image, &["audit"])).await;
    assert_eq!(seen.list("abstract_sockets"), [""; 0], "a pod's own network has none");
}

/// Gives the calling thread, and so what it starts, a session keyring with a key in it, as a login does.
/// False where the kernel has no keys.
fn in_a_session_with(key: &str) -> bool {
    let joined = hull_sys::join_session_keyring(Some("hull-tests"));
    if joined.is_err() {
        say(&format!("NOT CHECKED: this kernel has no keys: {joined:?}"));
        return false;
    }
    hull_sys::audit::add_key(key, b"of the host").or_fail("add a key to the session");
    true
}

#[tokio::test]
async fn keys_of_the_daemons_session_and_of_other_containers_are_out_of_reach() {
    if !in_a_session_with("hull-host-key") {
        return;
    }
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let (mut rings, mut keys) = (Vec::new(), vec!["hull-host-key".to_owned()]);
    let shared = {
        let mut config = cri.pod_config("shared");
        share_processes(&mut config);
        config
    };
    for config in [cri.pod_config("one"), shared, mapped(&cri, "mapped")] {
        let pod = cri.run_pod_with(config.clone()).await.unwrap();
        for name in ["first", "second"] {
            let find = auditor::container(
                &format!("finds-{name}"),
                &image,
                &[&["key-find"], words(&keys).as_slice()].concat(),
            );
            let said = cri.output(&pod, find).await;
            assert!(!said.stdout.contains("found"), "a key of elsewhere: {said:?}");
            // Without a filter: the default one refuses keys altogether.
            let key = format!("hull-{}-{name}", config.hostname);
            let made = cri.run(&pod, auditor::container(name, &image, &["key-add", &key])).await;
            let ring = eventually("the key is added", || async {
                let text = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
                let ring = text.lines().find_map(|line| line.strip_prefix("added "));
                ring.map(str::to_owned).ok_or(text)
            })
            .await;
            assert!(!rings.contains(&ring), "two containers have the session keyring {ring}");
            rings.push(ring);
            let find = [&[AUDITOR, "key-find"], words(&keys).as_slice()].concat();
            let ran = cri.exec(&made, &find).await.unwrap();
            assert!(!ran.stdout.contains("found"), "a key of elsewhere in an exec: {ran:?}");
            keys.push(key);
        }
        cri.stop_pod(&pod).await.unwrap();
    }
}

fn words(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

#[test]
fn keys_of_a_session_are_not_those_of_the_containers_that_hull_oci_makes_in_it() {
    if !in_a_session_with("hull-oci-key") {
        return;
    }
    let bundle = Bundle::new();
    let at = std::path::Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), at).or_fail("put the auditor in a bundle");
    bundle.change(|config| {
        config["process"]["args"] = serde_json::json!([AUDITOR, "key-find", "hull-oci-key"]);
        config["linux"]["seccomp"] = serde_json::Value::Null;
    });
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "one"]);
    assert!(ran.stdout.contains("ENOKEY"), "{ran:?}");
    bundle.change(|config| config["process"]["args"] = serde_json::json!([AUDITOR, "wait"]));
    bundle.up("two");
    let ran = bundle.oci(&["exec", "two", AUDITOR, "key-find", "hull-oci-key"]);
    assert!(ran.stdout.contains("ENOKEY"), "{ran:?}");
}
