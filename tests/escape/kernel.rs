// SPDX-License-Identifier: Apache-2.0
//! What the kernel does for a container: system calls and socket families under the default profile,
//! and keys.

use crate::auditor::{self, AUDITOR};
use crate::shapes::{add_capability, default_seccomp, mapped};
use hull_tests::bundle::Bundle;
use hull_tests::{Cri, Must as _, Node};
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
    ("faccessat2", "EINVAL"),
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
        assert_eq!(seen.call("a call of the future"), "ENOSYS", "{name}: C libraries count on that");
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
        ("SYS_BOOT", &["reboot", "kexec_load"][..]),
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

/// A container that adds a key and goes on; what it said.
async fn with_key(cri: &Cri, pod: &str, image: &str, key: &str) -> (String, String) {
    // Without a filter: the default one refuses keys altogether.
    let made = cri.run(pod, auditor::container("adds", image, &["key-add", key])).await;
    let said = hull_tests::eventually("the key is added", || async {
        let text = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
        if text.contains('\n') { Ok(text) } else { Err(text) }
    })
    .await;
    (made, said)
}

#[tokio::test]
async fn keys_of_one_container_are_not_those_of_another() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), auditor::image());
    let key = format!("hull-{}", node.names().bridge);
    let one = cri.run_pod("one").await.unwrap();
    let (first, said) = with_key(&cri, &one, &image, &key).await;
    if said.contains("ENOSYS") {
        hull_tests::shell::say("NOT CHECKED: this kernel has no keys");
        return;
    }
    let Some(ring) = said.trim().strip_prefix("added ").map(str::to_owned) else {
        panic!("no key was added: {said}");
    };
    // Its own execs have it.
    let ran = cri.exec(&first, &[AUDITOR, "key-find", &key]).await.unwrap();
    assert_eq!(ran.stdout, "found secret\n", "an exec is of its container");
    let two = cri.run_pod("two").await.unwrap();
    let mapped = cri.run_pod_with(mapped(&cri, "mapped")).await.unwrap();
    for pod in [&one, &two, &mapped] {
        let find = auditor::container("finds", &image, &["key-find", &key]);
        let said = cri.output(pod, find).await.stdout;
        assert!(!said.contains("found"), "a key of one container in another: {said}");
        let seen = auditor::audit(&cri, pod, auditor::container("ring", &image, &["audit"])).await;
        let other = seen.0["session_keyring"].to_string();
        assert_ne!(other, ring, "two containers have one session keyring");
    }
    cri.stop(&first, 0).await.unwrap();
}

#[test]
fn keys_of_the_host_are_not_those_of_hull_ocis_containers() {
    let bundle = Bundle::new();
    let at = std::path::Path::new(&bundle.path()).join("rootfs/bin/auditor");
    fs::rename(auditor::on_host(&bundle.scratch()), at).must("put the auditor in a bundle");
    let open = |bundle: &Bundle, words: &[&str]| {
        let args = serde_json::json!([&[AUDITOR], words].concat());
        bundle.change(|config| {
            config["process"]["args"] = args;
            config["linux"]["seccomp"] = serde_json::Value::Null;
        });
    };
    open(&bundle, &["key-add", "hull-oci-key"]);
    bundle.up("one");
    open(&bundle, &["key-find", "hull-oci-key"]);
    let ran = bundle.oci(&["run", "-b", &bundle.path(), "two"]);
    assert!(!ran.stdout.contains("found"), "{ran:?}");
}
