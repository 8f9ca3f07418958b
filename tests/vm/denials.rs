// SPDX-License-Identifier: Apache-2.0
//! Denials of AppArmor and seccomp are in the message of the container, wherever the kernel reports them.

use super::apparmor::profile;
use super::said;
use hull_proto::cri as api;
use hull_proto::cri::security_profile::ProfileType;
use hull_tests::cri::{security, shell};
use hull_tests::{Node, node};
use std::process::{Child, Command};

/// auditd, which takes what the kernel's log has otherwise.
struct Auditd(Child);

impl Auditd {
    async fn start() -> Self {
        let auditd = Command::new("auditd").arg("-n").spawn().unwrap();
        hull_tests::eventually("the kernel speaks to auditd", || async {
            let status = said("auditctl", &["-s"]);
            if status.contains(&format!("pid {}\n", auditd.id())) { Ok(()) } else { Err(status) }
        })
        .await;
        Self(auditd)
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _reaped = self.0.wait();
    }
}

/// The status of a container that ended since its profile denied it to write this file of `/tmp`.
async fn denied(node: &Node, file: &str) -> api::ContainerStatus {
    let (cri, pod, image) = node.pod("web").await;
    let text = "profile hull-test-no-write flags=(attach_disconnected) {\n  file,\n  signal,\n  deny /tmp/** w,\n}\n";
    // A rule that says `deny` is silent; `audit deny` is what operators write who want to see.
    let path = node::write(&node.host_dir(), "profile", &text.replace("deny", "audit deny"));
    said("apparmor_parser", &["--skip-cache", "--replace", path.to_str().unwrap()]);
    let tries = format!("cat /proc/self/attr/current; echo x > /tmp/{file} || exit 7");
    let mut config = shell("main", &image, &tries);
    security(&mut config).apparmor = profile(ProfileType::Localhost, "hull-test-no-write");
    let made = cri.run(&pod, config).await;
    let status = cri.ended(&made).await;
    said("apparmor_parser", &["--remove", path.to_str().unwrap()]);
    assert_ne!(status.exit_code, 0, "{status:?}");
    status
}

fn tells(status: &api::ContainerStatus, file: &str) {
    let wanted = "AppArmor profile hull-test-no-write denied";
    let told = &status.message;
    assert!(told.contains(wanted) && told.contains(&format!("/tmp/{file}")), "{told}");
    assert_eq!(told.matches(wanted).count(), 1, "heard twice, told once: {told}");
}

#[tokio::test]
async fn what_a_profile_denied_is_in_the_containers_message() {
    let node = Node::start().await;
    tells(&denied(&node, "forbidden").await, "forbidden");
}

/// Where auditd runs, the kernel's log has none of these messages.
#[tokio::test]
async fn what_a_profile_denied_is_told_where_auditd_takes_it() {
    let node = Node::start().await;
    let auditd = Auditd::start().await;
    let status = denied(&node, "audited").await;
    drop(auditd);
    tells(&status, "audited");
    let log = said("dmesg", &[]);
    assert!(!log.contains("/tmp/audited"), "it came by the log after all: {log}");
}

#[tokio::test]
async fn the_system_call_that_seccomp_refused_or_killed_for_has_its_name() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let calls = serde_json::json!(["mkdir", "mkdirat"]);
    for (name, action, flags, wanted) in [
        (
            "kills",
            "SCMP_ACT_KILL_PROCESS",
            vec![],
            "its seccomp profile kills for system call mkdir",
        ),
        (
            "refuses",
            "SCMP_ACT_ERRNO",
            vec!["SECCOMP_FILTER_FLAG_LOG"],
            "its seccomp profile denied system call mkdir",
        ),
        // Not in the kernel's log: what the program printed, joined with the profile.
        (
            "refuses-silently",
            "SCMP_ACT_ERRNO",
            vec![],
            "likely: its seccomp profile (Localhost profile `refuses-silently.json`) refuses system call `mkdir`",
        ),
    ] {
        let rules = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": flags,
            "syscalls": [{"names": calls, "action": action}],
        });
        let path = node::write(&node.seccomp_dir(), &format!("{name}.json"), &rules.to_string());
        let mut config = shell(name, &image, "exec mkdir /tmp/new");
        security(&mut config).seccomp =
            profile(ProfileType::Localhost, &path.display().to_string());
        let made = cri.run(&pod, config).await;
        let status = cri.ended(&made).await;
        let told = &status.message;
        assert!(told.contains(wanted), "{name}: {told}");
    }
}
