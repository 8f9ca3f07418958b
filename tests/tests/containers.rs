// SPDX-License-Identifier: Apache-2.0
//! A container's first process: its command, environment, user, rights.

use hull_proto::cri::{self as api};
use hull_tests::cri::{container, idle, security, shell};
use hull_tests::{Cri, Exec, ExpectExt as _, Node, fixture, node};
use serde_json::json;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs `script` in a container that `change` has had its way with.
async fn probe(
    cri: &Cri,
    pod: &str,
    image: &str,
    script: &str,
    change: impl FnOnce(&mut api::ContainerConfig),
) -> Exec {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut config = shell("probe", image, script);
    config.log_path = format!("probe-{}.log", NUMBER.fetch_add(1, Ordering::Relaxed));
    change(&mut config);
    let said = cri.output(pod, config).await;
    // So that the next probe can have its name.
    let all = cri.runtime.clone().list_containers(api::ListContainersRequest::default()).await;
    for one in all.or_fail("list containers").into_inner().containers {
        cri.remove(&one.id).await.or_fail("remove the probe");
    }
    said
}

/// The value of `key` in what `cat /proc/self/status` printed.
fn status_of(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
}

#[tokio::test]
async fn command_and_arguments_follow_the_rules_of_the_field() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let image = fixture::pushed("entrypoint", || {
        fixture::busybox_image()
            .set("Entrypoint", json!(["/bin/echo", "entry"]))
            .set("Cmd", json!(["of-image"]))
    });
    let run =
        |name: &'static str, command: &'static [&'static str], args: &'static [&'static str]| {
            let (cri, pod, image) = (cri.clone(), pod.clone(), image.clone());
            async move {
                let mut config = container(name, &image, command);
                config.args = args.iter().map(|&word| word.to_owned()).collect();
                cri.output(&pod, config).await.stdout
            }
        };
    assert_eq!(run("a", &[], &[]).await, "entry of-image\n");
    assert_eq!(run("b", &[], &["given"]).await, "entry given\n");
    assert_eq!(run("c", &["/bin/echo", "command"], &[]).await, "command\n");
    assert_eq!(run("d", &["/bin/echo"], &["both"]).await, "both\n");
}

#[tokio::test]
async fn the_environment_is_the_images_then_the_configs() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said = probe(&cri, &pod, &image, "env", |config| {
        let set = |key: &str, value: &str| api::KeyValue {
            key: key.into(),
            value: value.as_bytes().to_vec(),
        };
        config.envs = vec![set("MINE", "a=b c"), set("FROM_IMAGE", "no"), set("EMPTY", "")];
    })
    .await;
    let lines: Vec<&str> = said.stdout.lines().collect();
    for wanted in ["MINE=a=b c", "FROM_IMAGE=no", "EMPTY=", "HOME=/root"] {
        assert!(lines.contains(&wanted), "{wanted} in {lines:?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin")), "{lines:?}");
}

#[tokio::test]
async fn the_working_directory_is_made_when_missing() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said =
        probe(&cri, &pod, &image, "pwd", |config| config.working_dir = "/not/there/yet".into())
            .await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "/not/there/yet\n"));
    let of_image = fixture::pushed("workdir", || {
        fixture::busybox_image().set("WorkingDir", json!("/srv/app"))
    });
    let said = probe(&cri, &pod, &of_image, "pwd", |_| {}).await;
    assert_eq!(said.stdout, "/srv/app\n");
}

#[tokio::test]
async fn users_and_groups_come_from_config_and_image() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "id -u; id -g; id -G; echo $HOME";
    let said =
        probe(&cri, &pod, &image, script, |config| security(config).run_as_username = "app".into())
            .await;
    assert_eq!(said.stdout, "1000\n1001\n1001 29 2000\n/home/app\n");

    let said = probe(&cri, &pod, &image, script, |config| {
        let security = security(config);
        security.run_as_user = Some(api::Int64Value { value: 1000 });
        security.run_as_group = Some(api::Int64Value { value: 3000 });
        security.supplemental_groups = vec![4000];
    })
    .await;
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(lines[..2], ["1000", "3000"], "{said:?}");
    let groups: std::collections::BTreeSet<&str> = lines[2].split(' ').collect();
    assert!(
        groups.contains("4000") && groups.contains("2000"),
        "merged with the image's: {groups:?}"
    );

    let said = probe(&cri, &pod, &image, script, |config| {
        let security = security(config);
        security.run_as_user = Some(api::Int64Value { value: 1000 });
        security.run_as_group = Some(api::Int64Value { value: 3000 });
        security.supplemental_groups = vec![4000];
        security.supplemental_groups_policy = api::SupplementalGroupsPolicy::Strict.into();
    })
    .await;
    let groups: std::collections::BTreeSet<&str> =
        said.stdout.lines().nth(2).unwrap().split(' ').collect();
    assert_eq!(groups, ["3000", "4000"].into(), "strict: only what the config says");

    for (user, expected) in
        [("nobody", "65534\n65534\n"), ("1234:33", "1234\n33\n"), ("app:audio", "1000\n29\n")]
    {
        let name = format!("user-{}", user.replace(':', "-"));
        let of_image = fixture::pushed(&name, || fixture::busybox_image().set("User", json!(user)));
        let said = probe(&cri, &pod, &of_image, "id -u; id -g", |_| {}).await;
        assert_eq!(said.stdout, expected, "USER {user}");
    }
}

#[tokio::test]
async fn the_status_tells_whom_a_container_runs_as() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    security(&mut config).run_as_username = "app".into();
    let made = cri.run(&pod, config).await;
    let user = cri.status(&made).await.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid), (1000, 1001));
    assert!(user.supplemental_groups.contains(&2000), "{user:?}");
}

#[tokio::test]
async fn capabilities_are_the_fields_default_and_change_as_asked() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "cat /proc/self/status";
    let said = probe(&cri, &pod, &image, script, |_| {}).await.stdout;
    assert_eq!(status_of(&said, "CapEff"), "00000000a80425fb");
    assert_eq!(status_of(&said, "CapBnd"), "00000000a80425fb");

    let said = probe(&cri, &pod, &image, script, |config| {
        let capabilities = security(config).capabilities.get_or_insert_default();
        capabilities.add_capabilities = vec!["NET_ADMIN".into()];
        capabilities.drop_capabilities = vec!["ALL".into()];
    })
    .await
    .stdout;
    assert_eq!(status_of(&said, "CapEff"), "0000000000001000");

    let said = probe(&cri, &pod, &image, script, |config| {
        let security = security(config);
        security.run_as_user = Some(api::Int64Value { value: 1000 });
        let capabilities = security.capabilities.get_or_insert_default();
        capabilities.add_ambient_capabilities = vec!["CAP_NET_BIND_SERVICE".into()];
    })
    .await
    .stdout;
    assert_eq!(status_of(&said, "CapAmb"), "0000000000000400");
    assert_eq!(status_of(&said, "CapEff"), "0000000000000400");
}

#[tokio::test]
async fn no_new_privileges_is_set_as_asked() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "grep NoNewPrivs /proc/self/status";
    let said = probe(&cri, &pod, &image, script, |config| security(config).no_new_privs = true)
        .await
        .stdout;
    assert_eq!(status_of(&said, "NoNewPrivs"), "1");
    let said = probe(&cri, &pod, &image, script, |_| {}).await.stdout;
    assert_eq!(status_of(&said, "NoNewPrivs"), "0");
}

#[tokio::test]
async fn seccomp_profiles_do_what_they_say() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let profile = |kind: api::security_profile::ProfileType, reference: &str| {
        Some(api::SecurityProfile { profile_type: kind.into(), localhost_ref: reference.into() })
    };
    let mode = "grep Seccomp: /proc/self/status; unshare -U true; echo $?";
    use api::security_profile::ProfileType;
    let said = probe(&cri, &pod, &image, mode, |config| {
        security(config).seccomp = profile(ProfileType::RuntimeDefault, "");
    })
    .await;
    assert_eq!(status_of(&said.stdout, "Seccomp"), "2");
    assert!(said.stdout.ends_with("1\n"), "unshare is denied: {said:?}");

    let said = probe(&cri, &pod, &image, mode, |config| {
        security(config).seccomp = profile(ProfileType::Unconfined, "");
    })
    .await;
    assert_eq!(status_of(&said.stdout, "Seccomp"), "0");

    // CRI: without a profile there is no confinement.
    let said = probe(&cri, &pod, &image, mode, |config| security(config).seccomp = None).await;
    assert_eq!(status_of(&said.stdout, "Seccomp"), "0");

    let rules = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    });
    let path = node::write(&node.seccomp_dir(), "no-mkdir.json", &rules.to_string());
    let said = probe(&cri, &pod, &image, "mkdir /tmp/x", |config| {
        security(config).seccomp = profile(ProfileType::Localhost, &path.display().to_string());
    })
    .await;
    assert!(said.stderr.contains("No space left"), "the profile's own error number: {said:?}");
    let said = probe(&cri, &pod, &image, "mkdir /tmp/x && echo made", |config| {
        security(config).privileged = true;
        security(config).seccomp = profile(ProfileType::Localhost, &path.display().to_string());
    })
    .await;
    assert_eq!(said.stdout, "made\n", "a privileged container is not confined: {said:?}");

    let mut config = shell("missing", &image, "true");
    security(&mut config).seccomp = profile(ProfileType::Localhost, "/nowhere/profile.json");
    let refused = match cri.create(&pod, config).await {
        Ok(made) => cri.start(&made).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(refused.message().contains("/nowhere/profile.json"), "{refused}");
}

#[tokio::test]
async fn privileged_means_all_rights_and_devices() {
    let node = Node::start().await;
    let cri = node.cri();
    let image = fixture::busybox();
    let mut config = cri.pod_config("web");
    hull_tests::cri::pod_security(&mut config).privileged = true;
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "cat /proc/self/status; ls /dev; mkdir -p /m && mount -t tmpfs none /m && echo mounted; \
        test -w /proc/sys/kernel/hostname && echo writable";
    let said = probe(&cri, &pod, &image, script, |config| security(config).privileged = true).await;
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(status_of(&said.stdout, "CapEff"), status_of(&own, "CapEff"), "all that we have");
    assert_eq!(status_of(&said.stdout, "Seccomp"), "0");
    assert!(said.stdout.contains("mounted"), "{said:?}");
    assert!(said.stdout.contains("writable"), "{said:?}");
    assert!(
        said.stdout.lines().any(|line| line == "kmsg"),
        "the host's devices are there: {said:?}"
    );
}

#[tokio::test]
async fn the_root_is_read_only_when_asked() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let script = "echo x > /file; echo $?; echo x > /dev/shm/file; echo $?";
    let said =
        probe(&cri, &pod, &image, script, |config| security(config).readonly_rootfs = true).await;
    assert_eq!(said.stdout, "1\n0\n", "{said:?}");
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    let said = probe(&cri, &pod, &image, script, |_| {}).await;
    assert_eq!(said.stdout, "0\n0\n", "{said:?}");
}

#[tokio::test]
async fn kernel_paths_are_masked_and_read_only() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    // Debian's static busybox would run cat inside its shell; it is the files that count here.
    let image = fixture::coreutils();
    let script = "cat /proc/timer_list /proc/keys; ls -A /proc/acpi; \
        echo x > /proc/sys/kernel/hostname; echo x > /proc/irq/default_smp_affinity";
    let said = probe(&cri, &pod, &image, script, |_| {}).await;
    assert_eq!(said.stdout, "", "masked files and directories are empty: {said:?}");
    assert_eq!(said.stderr.matches("Read-only file system").count(), 2, "{said:?}");

    let said =
        probe(&cri, &pod, &image, "cat /etc/passwd; ls /home; echo x > /etc/group", |config| {
            let security = security(config);
            security.masked_paths = vec!["/etc/passwd".into(), "/home".into(), "/not/there".into()];
            security.readonly_paths = vec!["/etc/group".into()];
        })
        .await;
    assert_eq!(said.stdout, "", "a masked file is empty, a masked directory too: {said:?}");
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
}

#[tokio::test]
async fn standard_devices_are_there_and_no_others() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said = probe(
        &cri,
        &pod,
        &image,
        "ls /dev; head -c 3 /dev/zero | wc -c; echo x > /dev/null; ls -l /dev/fd",
        |_| {},
    )
    .await;
    for name in
        ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "tty", "urandom", "zero"]
    {
        assert!(said.stdout.lines().any(|line| line == name), "/dev/{name}: {said:?}");
    }
    assert!(!said.stdout.contains("kmsg"), "{said:?}");
    assert!(said.stdout.contains("/proc/self/fd"), "{said:?}");
    let said =
        probe(&cri, &pod, &image, "mknod /dev/mine b 254 0 && head -c 1 /dev/mine", |_| {}).await;
    assert_ne!(said.code, 0, "a device that was not given can't be opened: {said:?}");
}

#[tokio::test]
async fn a_given_device_is_there_with_its_rights() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let said = probe(&cri, &pod, &image, "head -c 2 /dev/given | wc -c", |config| {
        config.devices = vec![api::Device {
            container_path: "/dev/given".into(),
            host_path: "/dev/zero".into(),
            permissions: "rw".into(),
        }];
    })
    .await;
    assert_eq!(said.stdout, "2\n", "{said:?}");
    let mut config = idle("missing", &image);
    config.devices = vec![api::Device {
        container_path: "/dev/x".into(),
        host_path: "/dev/not-there".into(),
        permissions: "rw".into(),
    }];
    let refused = match cri.create(&pod, config).await {
        Ok(made) => cri.start(&made).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(refused.message().contains("/dev/not-there"), "{refused}");
}

#[tokio::test]
async fn the_stop_signal_is_the_configs_or_the_images() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let image = fixture::pushed("stopsignal", || {
        fixture::busybox_image().set("StopSignal", json!("SIGUSR1"))
    });
    let script = "trap 'exit 41' USR1; trap 'exit 42' USR2; trap 'exit 43' TERM; echo ready; while true; do sleep 1000 & wait; done";
    let stop = |name: &'static str, signal: api::Signal| {
        let (cri, pod, image) = (cri.clone(), pod.clone(), image.clone());
        async move {
            let mut config = shell(name, &image, script);
            config.stop_signal = signal.into();
            let made = cri.run(&pod, config).await;
            cri.prints(&made, "ready").await;
            cri.stop(&made, 20).await.unwrap();
            cri.status(&made).await.exit_code
        }
    };
    assert_eq!(stop("of-image", api::Signal::RuntimeDefault).await, 41);
    assert_eq!(stop("of-config", api::Signal::Sigusr2).await, 42);
}

/// A group that lies behind the end of what is read would be lost in silence.
#[tokio::test]
async fn account_files_that_are_too_long_are_refused_by_name() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    for file in ["passwd", "group"] {
        let image = fixture::pushed(&format!("long-{file}"), || {
            let line = "x".repeat(63) + "\n";
            let layer = fixture::busybox_layer().dir("etc", 0o755).file(
                &format!("etc/{file}"),
                0o644,
                line.repeat((1 << 20) / 64 + 1),
            );
            hull_tests::image::Image::new(vec![layer.tar()], json!({"Cmd": ["sh"]}))
        });
        let _id = cri.pull(&image).await.unwrap();
        let refused = cri.create(&pod, shell(file, &image, "id")).await.unwrap_err();
        let says = format!("/etc/{file}, at most 1048576 bytes");
        assert!(refused.message().contains(&says), "{refused}");
    }
}

/// The user of an image that the kubelet reads (for `runAsNonRoot`) is the user of its containers.
#[tokio::test]
async fn a_user_is_read_in_one_way() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let image = |name: &str, user: &'static str| {
        fixture::pushed(name, || fixture::busybox_image().set("User", json!(user)))
    };
    for (name, user) in [("plus", "+1000"), ("space", " 0"), ("parts", "7:8:9"), ("group", "7:")] {
        let image = image(&format!("user-{name}"), user);
        let _id = cri.pull(&image).await.unwrap();
        let status = cri.image_status(&image).await.unwrap().unwrap();
        assert_eq!((status.uid, status.username.as_str()), (None, user), "{user:?}");
        let refused = cri.create(&pod, shell(name, &image, "id")).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{user:?}: {refused}");
        assert!(refused.message().contains("USER"), "{user:?}: {refused}");
    }
    let image = image("user-zeros", "0007:8");
    let _id = cri.pull(&image).await.unwrap();
    let status = cri.image_status(&image).await.unwrap().unwrap();
    assert_eq!(status.uid.map(|uid| uid.value), Some(7));
    let said = cri.output(&pod, shell("zeros", &image, "id -u; id -g")).await;
    assert_eq!(said.stdout, "7\n8\n", "{said:?}");
    let mut config = shell("name", &image, "id");
    security(&mut config).run_as_username = "+0".into();
    let refused = cri.create(&pod, config).await.unwrap_err();
    assert!(refused.message().contains("run_as_username"), "{refused}");
}

#[tokio::test]
async fn dynamically_linked_programs_run() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let image = fixture::coreutils();
    let said = cri.output(&pod, container("main", &image, &["/usr/bin/id", "-u"])).await;
    assert_eq!((said.code, said.stdout.as_str()), (0, "0\n"), "{said:?}");
}

#[tokio::test]
async fn a_real_web_server_runs_and_stops_in_order() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let server = cri.run(&pod, container("nginx", &fixture::nginx(), &[])).await;
    let sidecar = cri.run_idle(&pod, "sidecar", &image).await;
    hull_tests::eventually("nginx answers its sidecar", || async {
        let ran =
            cri.exec(&sidecar, &["wget", "-q", "-O", "-", "http://127.0.0.1/"]).await.unwrap();
        if ran.stdout == fixture::INDEX_PAGE { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
    cri.stop(&server, 20).await.unwrap();
    assert_eq!(cri.status(&server).await.exit_code, 0, "SIGQUIT, the image's stop signal");
    let logs = cri.logs(&server).await;
    assert!(logs.iter().any(|line| line.text.contains("GET / HTTP")), "{logs:?}");
}
