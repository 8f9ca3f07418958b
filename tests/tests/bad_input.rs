// SPDX-License-Identifier: Apache-2.0
//! Requests that cannot be carried out are refused with a message that says why and how to fix it, with the right
//! code, and leaves nothing behind.

use hull_proto::cri::{self as api, MountPropagation};
use hull_tests::cri::{container, idle, mount, security, shell};
use hull_tests::layer::Layer;
use hull_tests::{Cri, ExpectExt as _, Node, fixture};
use tonic::{Code, Status};

/// Creates and starts; one of them must refuse.
async fn refused(cri: &Cri, pod: &str, config: api::ContainerConfig) -> Status {
    match cri.create(pod, config).await {
        Err(refused) => refused,
        Ok(made) => {
            let refused = cri.start(&made).await;
            let status = cri.status(&made).await;
            cri.remove(&made).await.or_fail("remove what did not start");
            match refused {
                Err(refused) => refused,
                Ok(()) => panic!("it was started: {status:?}"),
            }
        }
    }
}

#[track_caller]
fn tells(refused: &Status, codes: &[Code], words: &[&str]) {
    assert!(codes.contains(&refused.code()), "wrong code: {refused}");
    let message = refused.message().to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "no {word:?} in: {}", refused.message());
    }
    assert!(refused.message().len() < 2000, "too long to read: {}", refused.message());
}

#[tokio::test]
async fn unknown_ids_are_not_found() {
    let node = Node::start().await;
    let cri = node.cri();
    for id in
        ["0".repeat(64), "short".into(), String::new(), "../../etc".into(), "x".repeat(10_000)]
    {
        let not_found = [Code::NotFound, Code::InvalidArgument];
        tells(&cri.pod_status(&id).await.unwrap_err(), &not_found, &[]);
        tells(&cri.inspect(&id).await.unwrap_err(), &not_found, &[]);
        tells(&cri.start(&id).await.unwrap_err(), &not_found, &[]);
        tells(&cri.exec(&id, &["true"]).await.unwrap_err(), &not_found, &[]);
        tells(&cri.create(&id, idle("x", "y")).await.unwrap_err(), &not_found, &[]);
    }
    let gone = "0".repeat(64);
    cri.stop(&gone, 1).await.unwrap();
    cri.remove(&gone).await.unwrap();
    cri.stop_pod(&gone).await.unwrap();
    cri.remove_pod(&gone).await.unwrap();
}

#[tokio::test]
async fn a_pod_config_without_sense_is_refused_whole() {
    let node = Node::start().await;
    let cri = node.cri();
    let invalid = [Code::InvalidArgument];
    let empty = cri.run_pod_with(api::PodSandboxConfig::default()).await.unwrap_err();
    tells(&empty, &invalid, &["metadata"]);
    let mut config = cri.pod_config("web");
    config.hostname = "a".repeat(300);
    tells(&cri.run_pod_with(config).await.unwrap_err(), &invalid, &["hostname"]);
    let mut config = cri.pod_config("web");
    config.log_directory = "relative/logs".into();
    tells(
        &cri.run_pod_with(config).await.unwrap_err(),
        &invalid,
        &["log_directory", "relative/logs"],
    );
    let mut config = cri.pod_config("web");
    config.linux.get_or_insert_default().cgroup_parent = "/../../escape".into();
    tells(&cri.run_pod_with(config).await.unwrap_err(), &invalid, &["cgroup", "escape"]);
    let mut config = cri.pod_config("web");
    config.port_mappings =
        vec![api::PortMapping { container_port: 70_000, host_port: 1, ..Default::default() }];
    tells(&cri.run_pod_with(config).await.unwrap_err(), &invalid, &["70000"]);
    let request = api::RunPodSandboxRequest {
        config: Some(cri.pod_config("web")),
        runtime_handler: "kata".into(),
    };
    let unknown = cri.runtime.clone().run_pod_sandbox(request).await.unwrap_err();
    tells(&unknown, &[Code::InvalidArgument, Code::NotFound], &["kata"]);
    assert!(cri.pods().await.is_empty());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn names_that_climb_paths_stay_where_they_are() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    config.log_path = "../../escaped.log".into();
    tells(&refused(&cri, &pod, config).await, &[Code::InvalidArgument], &["log", "escaped.log"]);
    let mut config = idle("main", &image);
    config.mounts = vec![mount(&node.host_dir(), "/../../../../escaped")];
    // Either refused or resolved beneath the container's own root.
    if let Ok(made) = cri.create(&pod, config).await {
        drop(cri.start(&made).await);
    }
    assert!(std::fs::symlink_metadata("/escaped").is_err());
    let mut odd = cri.pod_config("../../odd");
    odd.hostname = "odd".into();
    if let Ok(pod) = cri.run_pod_with(odd).await {
        assert_eq!(pod.len(), 64);
    }
}

#[tokio::test]
async fn a_container_config_without_sense_is_refused() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let invalid = [Code::InvalidArgument];
    let mut config = idle("main", &image);
    config.image = None;
    tells(&refused(&cri, &pod, config).await, &invalid, &["image"]);
    let mut config = idle("main", &image);
    config.metadata = None;
    tells(&refused(&cri, &pod, config).await, &invalid, &["metadata"]);
    let mut config = idle("main", &image);
    config.envs = vec![api::KeyValue { key: "A=B".into(), value: vec![0] }];
    tells(&refused(&cri, &pod, config).await, &invalid, &[]);
    let mut config = idle("main", &image);
    security(&mut config).capabilities.get_or_insert_default().add_capabilities =
        vec!["FLY".into()];
    tells(&refused(&cri, &pod, config).await, &invalid, &["FLY"]);
    let no_command = fixture::pushed("no-command", || {
        fixture::busybox_image().set("Cmd", serde_json::Value::Null)
    });
    cri.pull(&no_command).await.unwrap();
    tells(&refused(&cri, &pod, container("main", &no_command, &[])).await, &invalid, &["command"]);
}

#[tokio::test]
async fn an_image_that_is_not_here_or_nowhere_is_named() {
    let node = Node::start().await;
    let (cri, pod, _image) = node.pod("web").await;
    let missing = format!("{}/tests/never-pushed:1", fixture::registry().host);
    tells(&refused(&cri, &pod, idle("main", &missing)).await, &[Code::NotFound], &["never-pushed"]);
    tells(&cri.pull(&missing).await.unwrap_err(), &[Code::Unknown], &["never-pushed"]);
    tells(&cri.pull("UPPER/CASE:::").await.unwrap_err(), &[Code::InvalidArgument], &["UPPER/CASE"]);
    tells(&cri.pull("").await.unwrap_err(), &[Code::InvalidArgument], &[]);
    // Nothing listens on port 1. The kubelet takes its reason from the beginning of the message.
    let away = cri.pull("127.0.0.1:1/a/b:1").await.unwrap_err();
    tells(&away, &[Code::Unknown], &["127.0.0.1:1"]);
    assert!(away.message().starts_with("RegistryUnavailable: cannot pull"), "{away}");
}

#[tokio::test]
async fn a_program_that_cannot_run_is_told_by_its_cause() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let odd = fixture::pushed("odd-programs", || {
        let busybox = hull_tests::debian::unpacked("busybox-static").join("bin/busybox");
        let mut foreign = std::fs::read(busybox).or_fail("read busybox");
        // e_machine: 0x16 is s390.
        foreign[18] = 0x16;
        let dynamic = hull_tests::debian::unpacked("coreutils").join("bin/true");
        let layer = Layer::new()
            .dirs(&["odd"])
            .file("odd/text", 0o644, "#!/bin/sh\n")
            .file("odd/foreign", 0o755, foreign)
            .file("odd/crlf", 0o755, "#!/bin/sh\r\necho x\r\n")
            .file("odd/no-interpreter", 0o755, "#!/usr/bin/python9\n")
            .file("odd/empty", 0o755, "")
            .copy("odd/dynamic", &dynamic);
        fixture::busybox_image().with(layer.tar())
    });
    cri.pull(&odd).await.unwrap();
    let expect: [(&str, &[&str]); 7] = [
        ("/odd/missing", &["/odd/missing"]),
        ("/odd/text", &["/odd/text", "execut"]),
        ("/odd/foreign", &["/odd/foreign", "s390"]),
        ("/odd/crlf", &["/odd/crlf", "carriage return"]),
        ("/odd/no-interpreter", &["/usr/bin/python9"]),
        ("/odd/empty", &["/odd/empty", "empty"]),
        ("/odd/dynamic", &["/lib64/ld-linux-x86-64.so.2"]),
    ];
    for (program, words) in expect {
        let answer = refused(&cri, &pod, container("main", &odd, &[program])).await;
        assert_ne!(answer.code(), Code::Internal, "{program}: {answer}");
        tells(&answer, &[answer.code()], words);
    }
    tells(
        &refused(&cri, &pod, container("main", &image, &["no-such-command"])).await,
        &[Code::FailedPrecondition],
        &["no-such-command", "PATH"],
    );
    // The same for an exec.
    let running = cri.run_idle(&pod, "running", &odd).await;
    let answer = cri.exec(&running, &["/odd/dynamic"]).await;
    match answer {
        Err(refused) => tells(&refused, &[refused.code()], &["/lib64/ld-linux-x86-64.so.2"]),
        Ok(ran) => {
            assert!(ran.code != 0 && ran.stderr.contains("/lib64/ld-linux-x86-64.so.2"), "{ran:?}")
        }
    }
}

#[tokio::test]
async fn a_container_that_did_not_start_says_why_in_its_status() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let made = cri.create(&pod, container("main", &image, &["/no/such/program"])).await.unwrap();
    cri.start(&made).await.unwrap_err();
    let status = cri.status(&made).await;
    assert_eq!(status.state(), api::ContainerState::ContainerExited, "{status:?}");
    assert_ne!(status.exit_code, 0);
    assert!(status.message.contains("/no/such/program"), "{status:?}");
    assert!(!status.reason.is_empty());
}

#[tokio::test]
async fn a_mount_that_cannot_be_made_is_named_with_the_hint() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    // A missing source is made; a link that leads nowhere is not followed to make its target.
    let (missing, target) = (node.host_dir().join("leads-nowhere"), node.host_dir().join("target"));
    std::os::unix::fs::symlink(&target, &missing).unwrap();
    let mut config = idle("main", &image);
    config.mounts = vec![mount(&missing, "/data")];
    let answer = refused(&cri, &pod, config).await;
    assert_ne!(answer.code(), Code::Internal);
    tells(&answer, &[answer.code()], &[&missing.display().to_string(), "hint:"]);
    assert!(std::fs::symlink_metadata(&target).is_err(), "it was made");

    let mut config = idle("main", &image);
    config.mounts = vec![api::Mount {
        readonly: true,
        recursive_read_only: true,
        propagation: MountPropagation::PropagationHostToContainer.into(),
        ..mount(&node.host_dir(), "/data")
    }];
    tells(
        &refused(&cri, &pod, config).await,
        &[Code::InvalidArgument],
        &["recursive", "propagation"],
    );
    let mut config = idle("main", &image);
    config.mounts =
        vec![api::Mount { recursive_read_only: true, ..mount(&node.host_dir(), "/data") }];
    tells(&refused(&cri, &pod, config).await, &[Code::InvalidArgument], &["recursive", "read"]);
}

#[tokio::test]
async fn a_working_directory_that_is_a_file_is_an_error() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    config.working_dir = "/etc/passwd".into();
    let answer = refused(&cri, &pod, config).await;
    tells(&answer, &[answer.code()], &["/etc/passwd", "directory"]);
    assert_ne!(answer.code(), Code::Internal);
}

#[tokio::test]
async fn an_unknown_user_is_named() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let mut config = idle("main", &image);
    security(&mut config).run_as_username = "stranger".into();
    tells(&refused(&cri, &pod, config).await, &[Code::InvalidArgument], &["stranger"]);
    let mut config = idle("main", &image);
    security(&mut config).run_as_user = Some(api::Int64Value { value: 1 << 40 });
    tells(&refused(&cri, &pod, config).await, &[Code::InvalidArgument], &["1099511627776"]);
}

#[tokio::test]
async fn the_wrong_state_is_a_failed_precondition() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let created = cri.make(&pod, idle("main", &image)).await;
    let answer = cri.exec(&created, &["true"]).await.unwrap_err();
    tells(&answer, &[Code::FailedPrecondition], &[]);
    cri.start(&created).await.unwrap();
    cri.stop(&created, 5).await.unwrap();
    tells(&cri.start(&created).await.unwrap_err(), &[Code::FailedPrecondition], &[]);
    cri.stop_pod(&pod).await.unwrap();
    tells(
        &cri.create(&pod, idle("second", &image)).await.unwrap_err(),
        &[Code::FailedPrecondition],
        &[],
    );
}

#[tokio::test]
async fn a_refused_container_leaves_nothing_and_its_name_is_free() {
    let node = Node::start().await;
    let (cri, pod, image) = node.pod("web").await;
    let before = node.on_host();
    for _ in 0..3 {
        let mut config = shell("main", &image, "true");
        security(&mut config).run_as_username = "stranger".into();
        cri.create(&pod, config).await.unwrap_err();
    }
    let more = node.on_host().diff(&before);
    assert!(more.0.is_empty(), "left behind:\n{more}");
    let said = cri.output(&pod, shell("main", &image, "echo fine")).await;
    assert_eq!(said.stdout, "fine\n");
}
