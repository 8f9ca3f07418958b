// SPDX-License-Identifier: Apache-2.0
//! Processes as an audit finds them: hostile ones, ended ones, those with other rights than the first; and an audit
//! without the rights that it needs.

use crate::{audit, confined, found, restricted};
use hull_proto::cri as api;
use hull_tests::cri::{idle, mount, security, shell};
use hull_tests::image::Image;
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use serde_json::Value;

#[tokio::test]
async fn a_hostile_container_neither_hides_nor_holds_up_nor_forges() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // Its first process goes to a root where nothing of the container is to be seen, and fills /dev with
    // what must not be opened or believed.
    let script = "mkfifo /dev/pipe; ln -s / /dev/all; ln -s /proc /dev/deep; \
        mknod \"/dev/$(printf 'x\\033[31m\\ny')\" b 8 77; mkdir -p /dev/a/b; mknod /dev/a/b/mem c 1 1; \
        mkdir /jail && cp /bin/busybox /jail/busybox && \
        exec chroot /jail /busybox sh -c \"trap 'exit 0' TERM; while true; do /busybox sleep 1000 & wait; done\"";
    let mut config = confined(shell("one", &image, script));
    config.mounts = vec![mount(&node.host_dir(), "/seen")];
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let of_first =
        std::fs::read_to_string(format!("/proc/{}/mountinfo", cri.pid(&id).await)).unwrap();
    assert!(!of_first.contains(" /seen "), "the first process hides it: {of_first}");
    let text = node.hull(&["audit", "-o", "json", "one"]).good();
    assert!(!text.contains('\x1b'), "{text}");
    let report = audit(&node, "one");
    assert!(found(&report, "host-path").iter().any(|path| path.contains("at /seen")), "{report}");
    let nodes = report["facts"]["devices"]["nodes"].as_array().unwrap();
    let paths: Vec<&str> = nodes.iter().map(|node| node["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"/dev/x\\u{1b}[31m\\ny") && paths.contains(&"/dev/a/b/mem"),
        "{paths:?}"
    );
    assert!(
        !paths.iter().any(|path| path.starts_with("/dev/all/") || path.starts_with("/dev/deep/")),
        "{paths:?}"
    );
    // Where the kernel has the rules as a list, nodes that they deny are not findings.
    if report["facts"]["devices"]["rules"]["kind"] == "v1" {
        assert!(found(&report, "devices").is_empty(), "{report}");
    }
}

#[tokio::test]
async fn rights_that_any_process_has_count_whatever_the_first_one_gave_up() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run(&pod, restricted("one", &image)).await;
    cri.catches_term(&id).await;
    let mut open = confined(idle("two", &image));
    security(&mut open).no_new_privs = true;
    // Root that ends as somebody else, but for a child.
    open.command = ["/bin/sh", "-c", "sleep 1000 & exec su app -s /bin/sh -c \"trap 'exit 0' TERM; while true; do sleep 1000 & wait; done\""]
        .map(str::to_owned)
        .to_vec();
    let id = cri.run(&pod, open).await;
    cri.catches_term(&id).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", cri.pid(&id).await)).unwrap();
    assert!(status.contains("\nUid:\t1000\t1000"), "{status}");
    let report = audit(&node, "two");
    assert_eq!(found(&report, "host-root-user").len(), 1, "{report}");
    assert_eq!(report["level"], "baseline", "{report}");
    let hosts: Vec<&Value> =
        report["facts"]["users"].as_array().unwrap().iter().map(|of| &of["host"]).collect();
    assert_eq!(hosts, [0, 1000], "{report}");
}

#[tokio::test]
async fn what_does_not_run_is_an_error_that_says_so() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let ran = node.hull(&["audit", "web"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("none of its containers runs") && ran.stderr.contains("hint: "),
        "{ran:?}"
    );
    let id = cri.run(&pod, shell("one", &image, "true")).await;
    let _status = cri.ended(&id).await;
    let ran = node.hull(&["audit", "one"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(ran.stderr.contains("it does not run") && ran.stderr.contains("hull ps -a"), "{ran:?}");
    let ran = node.hull(&["audit", "nobody"]);
    assert!(ran.code == 1 && ran.stderr.contains("nobody"), "{ran:?}");
}

#[tokio::test]
async fn an_audit_without_rights_says_which_it_lacks() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let id = cri.run_idle(&pod, "one", &image).await;
    cri.catches_term(&id).await;
    let mut command = std::process::Command::new("setpriv");
    let drops = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"];
    command.args(drops).arg(hull_tests::paths::hull());
    command.arg("--socket").arg(node.socket()).args(["audit", "one"]);
    let ran = hull_tests::shell::finish(&mut command);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("EPERM") || ran.stderr.contains("EACCES"), "{ran:?}");
    assert!(
        ran.stderr.contains("hint: run it as root") && !ran.stderr.contains("ended"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.matches("cannot").count(), 1, "{ran:?}");
    let mut whole = std::process::Command::new("setpriv");
    whole.args(drops).arg(hull_tests::paths::hull());
    whole.arg("--socket").arg(node.socket()).args(["audit", "-o", "json", "web"]);
    let ran = hull_tests::shell::finish(&mut whole);
    let report: Value = serde_json::from_str(&ran.stdout).or_fail(format!("read {ran:?}"));
    assert_eq!((ran.code, report["not_audited"][0]["name"].as_str()), (1, Some("one")), "{ran:?}");
}

#[tokio::test]
async fn rights_in_a_user_namespace_of_its_own_making_are_not_the_hosts() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // No seccomp profile, which would forbid it; its first process alone is there.
    let script =
        "exec unshare -U -r sh -c \"trap 'exit 0' TERM; while true; do sleep 1000 & wait; done\"";
    let mut config = restricted("one", &image);
    security(&mut config).seccomp = None;
    config.command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let id = cri.run(&pod, config).await;
    cri.catches_term(&id).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", cri.pid(&id).await)).unwrap();
    assert!(!status.contains("CapEff:\t0000000000000000"), "it has rights in there: {status}");
    let report = audit(&node, "one");
    assert_eq!(report["level"], "baseline", "{report}");
    assert!(report["next"]["reason"].as_str().unwrap().contains("seccomp"), "{report}");
    let facts = &report["facts"];
    assert_eq!(facts["user_namespace"], false, "{report}");
    assert_eq!(facts["namespaces"]["user"], "host", "{report}");
    assert_eq!(facts["capabilities"]["effective"], serde_json::json!([]), "{report}");
    assert!(found(&report, "capabilities").is_empty(), "{report}");
    assert_eq!(facts["users"], serde_json::json!([{"inside": 1000, "host": 1000}]), "{report}");
}

/// A program of one page whose first thread starts another and ends; the other waits for ever.
#[cfg(target_arch = "x86_64")]
fn leaderless() -> Vec<u8> {
    const AT: u64 = 0x40_0000;
    let code: &[u8] = &[
        // clone(CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM, rsp, 0, 0, 0)
        0xb8, 56, 0, 0, 0, 0xbf, 0x00, 0x0f, 0x05, 0x00, 0x48, 0x89, 0xe6, 0x31, 0xd2, 0x45, 0x31,
        0xd2, 0x45, 0x31, 0xc0, 0x0f, 0x05,
        // In the first: exit(0), of this thread alone.
        0x85, 0xc0, 0x74, 9, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,
        // In the other: pause() again and again.
        0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7,
    ];
    let size = 120 + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [AT + 120, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(0_u16.to_le_bytes());
    elf.extend(0_u16.to_le_bytes());
    elf.truncate(64);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, AT, AT, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn a_container_whose_first_thread_has_ended_is_audited_by_the_others() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::pushed("leaderless", || {
        let layer = fixture::busybox_layer().file("bin/leaderless", 0o755, leaderless());
        Image::new(vec![layer.tar()], serde_json::json!({"Cmd": ["/bin/leaderless"]}))
    });
    let _id = cri.pull(&image).await.or_fail("pull it");
    let pod = cri.run_pod("web").await.or_fail("run a pod");
    let mut config = confined(hull_tests::cri::container("one", &image, &["/bin/leaderless"]));
    security(&mut config).capabilities =
        Some(api::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    let id = cri.run(&pod, config).await;
    let path = format!("/proc/{}/status", cri.pid(&id).await);
    eventually("its first thread has ended", || async {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        if status.contains("State:\tZ") { Ok(()) } else { Err(status) }
    })
    .await;
    for name in ["one", "web"] {
        let report = audit(&node, name);
        assert_eq!(report["reach"], "host", "{report}");
        assert_eq!(report["facts"]["namespaces"]["mnt"], "own", "{report}");
        assert_eq!(report["facts"]["threads"], 1, "{report}");
    }
    let pid = rustix::process::Pid::from_raw(cri.pid(&id).await).or_fail("have a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).or_fail("kill it");
    let _status = cri.ended(&id).await;
}
