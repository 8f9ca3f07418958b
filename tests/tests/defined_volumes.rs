// SPDX-License-Identifier: Apache-2.0
//! Volumes that an image defines (`VOLUME`): they are there and writable, also with a read-only root.

use hull_proto::cri as api;
use hull_tests::cri::{mount, pod_namespaces, security, shell};
use hull_tests::image::Image;
use hull_tests::{Cri, Node, fixture};
use serde_json::json;
use std::fs;

/// One with content, one that no layer has, one behind a link, one inside of another, a file, one that pods of
/// this test mount over, and links to the root, to another mount, and to a place there that does not exist.
fn image() -> String {
    fixture::pushed("with-volumes", || {
        let layer = fixture::busybox_layer()
            .dir("data", 0o777)
            .file_of("data/seed", 0o644, 1000, "seed\n")
            .dir("real", 0o755)
            .symlink("link", "real")
            .symlink("top", "/")
            .symlink("up", "../..")
            .symlink("shm", "/dev/shm")
            .symlink("in-shm", "dev/shm/made")
            .file("etc/setting", 0o666, "default\n");
        let names = [
            "/etc",
            "/data/",
            "/data/../not/there",
            "/data/inside",
            "/link/deep",
            "/etc/setting",
            "/given/in",
            "/proc/x",
            "/top",
            "/up",
            "/shm",
            "/shm/sub",
            "/in-shm",
        ];
        let volumes: serde_json::Map<_, _> =
            names.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
        Image::new(vec![layer.tar()], json!({"Cmd": ["sh"], "Volumes": volumes}))
    })
}

const SCRIPT: &str = "cat /data/seed; id -u; grep -o ' /etc/hosts ' /proc/self/mounts
for at in /data /not/there /data/inside /real/deep; do echo x > $at/new && echo $at; done
echo own > /etc/setting && cat /etc/setting
ls -A /given; (echo x > /root/new) 2>/dev/null && echo root";

async fn says(
    cri: &Cri,
    pod: &str,
    name: &str,
    change: impl FnOnce(&mut api::ContainerConfig),
) -> String {
    let mut config = shell(name, &image(), SCRIPT);
    change(&mut config);
    let said = cri.output(pod, config).await;
    assert_eq!(said.stderr, "", "{said:?}");
    said.stdout
}

#[tokio::test]
async fn they_are_writable_with_the_images_content_whatever_the_root_is() {
    let node = Node::start().await;
    let (cri, pod, _) = node.pod("web").await;
    cri.pull(&image()).await.unwrap();
    let all = "seed\n0\n /etc/hosts \n/data\n/not/there\n/data/inside\n/real/deep\nown\n";
    let given = "kubelets\n";
    let volume = node.host_dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("kubelets"), "").unwrap();
    let mounts = vec![mount(&volume, "/given")];
    let plain = says(&cri, &pod, "plain", |config| config.mounts.clone_from(&mounts)).await;
    assert_eq!(plain, format!("{all}{given}root\n"));
    let read_only = says(&cri, &pod, "read-only", |config| {
        config.mounts.clone_from(&mounts);
        security(config).readonly_rootfs = true;
    });
    assert_eq!(read_only.await, format!("{all}{given}"));
    // Each container has its own, and nothing was made in the kubelet's volume.
    assert_eq!(hull_tests::shell::names(&volume), ["kubelets"]);
    let user = cri.output(&pod, {
        let mut config = shell("user", &image(), "touch /data/mine && stat -c %u /data/mine");
        security(&mut config).run_as_user = Some(api::Int64Value { value: 1000 });
        security(&mut config).readonly_rootfs = true;
        config
    });
    assert_eq!(user.await.stdout, "1000\n");
    // What a container wrote is still there when it is looked at again, and goes with it.
    let mut config = shell("kept", &image(), "echo kept > /data/kept; sleep 1000");
    security(&mut config).readonly_rootfs = true;
    let made = cri.run(&pod, config).await;
    hull_tests::eventually("the file is there", || async {
        let ran = cri.exec(&made, &["cat", "/data/kept"]).await.map_err(|err| err.to_string())?;
        if ran.stdout == "kept\n" { Ok(()) } else { Err(format!("{ran:?}")) }
    })
    .await;
    // What enters later has the same root, and nothing was made on the pod's other mounts.
    let script = "ls /proc/self/status > /dev/null && ls -A /dev/shm; touch /etc/../made";
    let ran = cri.exec(&made, &["sh", "-c", script]).await.unwrap();
    assert_eq!(ran.stdout, "", "{ran:?}");
    assert!(ran.stderr.contains("Read-only file system"), "{ran:?}");
}

#[tokio::test]
async fn in_a_user_namespace_they_belong_to_its_root() {
    let node = Node::start().await;
    let (cri, _, _) = node.pod("other").await;
    cri.pull(&image()).await.unwrap();
    let mut config = cri.pod_config("mapped");
    let ranges = vec![api::IdMapping { host_id: 200_000, container_id: 0, length: 65_536 }];
    pod_namespaces(&mut config).userns_options = Some(api::UserNamespace {
        mode: api::NamespaceMode::Pod.into(),
        uids: ranges.clone(),
        gids: ranges,
    });
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "stat -c %u:%g /not/there /data; echo x > /not/there/x && cat /not/there/x";
    let mut config = shell("main", &image(), script);
    security(&mut config).readonly_rootfs = true;
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "0:0\n0:0\nx\n", "{said:?}");
}
