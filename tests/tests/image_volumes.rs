// SPDX-License-Identifier: Apache-2.0
//! Image volumes: parts of images as read-only mounts, also of images and users that mean harm.

use hull_proto::cri as api;
use hull_tests::cri::{image, pod_namespaces, security, shell};
use hull_tests::image::Image;
use hull_tests::layer::Layer;
use hull_tests::{Cri, ExpectExt as _, Node, fixture};
use serde_json::json;
use tar::EntryType;
use tonic::Code;

/// An image to be mounted: two layers, files of several owners, and links that try to lead out.
fn data() -> String {
    fixture::pushed("volume", || {
        let lower = Layer::new()
            .dirs(&["data", "data/sub", "etc", "run"])
            .file("data/one", 0o644, "one\n")
            .file("data/gone", 0o644, "gone\n")
            .file_of("data/sub/two", 0o644, 7, "two\n")
            .file("data/tool", 0o755, "#!/bin/sh\necho it runs\n")
            .file("etc/hostname", 0o644, "the image's own\n")
            .symlink("data/down", "sub")
            .symlink("absolute", "/data/sub")
            .symlink("out", "../../../../../../../../etc")
            .symlink("magic", "/proc/self/root/etc")
            .symlink("loop", "loop")
            .char_device("null", 1, 3)
            .hostile(EntryType::Fifo, "fifo", "", b"");
        let upper =
            Layer::new().dirs(&["data"]).file("data/three", 0o600, "3\n").whiteout("data/gone");
        Image::new(vec![lower.tar(), upper.tar()], json!({}))
    })
}

/// An image of a single layer, which hides what is not there.
fn single() -> String {
    fixture::pushed("volume-single", || {
        let layer = Layer::new().file("file", 0o644, "single\n").whiteout("nothing");
        Image::new(vec![layer.tar()], json!({}))
    })
}

fn volume(of: &str, sub_path: &str, to: &str) -> api::Mount {
    api::Mount {
        container_path: to.into(),
        readonly: true,
        image: Some(image(of)),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

/// A node with a pod, the pulled images, and the reference of busybox.
async fn ready(node: &Node) -> (Cri, String, String) {
    let (cri, pod, busybox) = node.pod("web").await;
    for name in [data(), single()] {
        let _id = cri.pull(&name).await.or_fail("pull a volume's image");
    }
    (cri, pod, busybox)
}

#[tokio::test]
async fn images_and_parts_of_them_are_mounted_and_cannot_be_written() {
    let node = Node::start().await;
    let (cri, pod, busybox) = ready(&node).await;
    let script = "cat /whole/data/one /whole/data/three /sub/two /one-file /single/file; /whole/data/tool; \
                  ls /whole/data /single; for at in /whole/data/new /sub/new /one-file; do echo x > $at; done; \
                  chown 1 /one-file; rm /sub/two; mount -o remount,rw,bind /whole; mount -o remount,rw /whole; \
                  echo x > /whole/data/one; cat /whole/null < /whole/null; echo end";
    let mut config = shell("main", &busybox, script);
    // Not even who may do everything.
    security(&mut config).privileged = true;
    config.mounts = vec![
        volume(&data(), "", "/whole"),
        volume(&data(), "data/./sub/", "/sub"),
        volume(&data(), "data/one", "/one-file"),
        volume(&single(), "", "/single"),
    ];
    let said = cri.output(&pod, config).await;
    let expected = "one\n3\ntwo\none\nsingle\nit runs\n/single:\nfile\n\n\
                    /whole/data:\ndown\none\nsub\nthree\ntool\nend\n";
    assert_eq!(said.stdout, expected, "{said:?}");
    assert_eq!(said.stderr.matches("Read-only file system").count(), 7, "{said:?}");
    assert!(said.stderr.contains("/whole/null: Permission denied"), "{said:?}");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn links_of_an_image_mean_what_they_mean_inside_it() {
    let node = Node::start().await;
    let (cri, pod, busybox) = ready(&node).await;
    let mut config = shell("main", &busybox, "cat /a/two /b/two /c/hostname");
    config.mounts = vec![
        volume(&data(), "data/down", "/a"),
        volume(&data(), "absolute", "/b"),
        volume(&data(), "out", "/c"),
    ];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "two\ntwo\nthe image's own\n", "{said:?}");
}

#[tokio::test]
async fn what_cannot_be_mounted_is_refused_when_the_container_is_made() {
    let node = Node::start().await;
    let (cri, pod, busybox) = ready(&node).await;
    let good = || volume(&data(), "data", "/vol");
    for (mount, code, says) in [
        (volume(&data(), "no/such", "/vol"), Code::InvalidArgument, "`no/such`"),
        (
            volume(&data(), "data/one/below", "/vol"),
            Code::InvalidArgument,
            "no such file or directory",
        ),
        (volume(&data(), "magic", "/vol"), Code::InvalidArgument, "no such file or directory"),
        (volume(&data(), "loop", "/vol"), Code::InvalidArgument, "no such file or directory"),
        (volume(&data(), "null", "/vol"), Code::InvalidArgument, "neither a directory"),
        (volume(&data(), "fifo", "/vol"), Code::InvalidArgument, "neither a directory"),
        (volume(&data(), "../data", "/vol"), Code::InvalidArgument, "contains `..`"),
        (volume(&data(), "data/../../etc", "/vol"), Code::InvalidArgument, "contains `..`"),
        (volume(&data(), "/data", "/vol"), Code::InvalidArgument, "absolute"),
        (volume("localhost/none:1", "", "/vol"), Code::NotFound, "localhost/none:1"),
        (volume("", "", "/vol"), Code::InvalidArgument, "mounts.image"),
        (api::Mount { readonly: false, ..good() }, Code::InvalidArgument, "read-only"),
        (api::Mount { host_path: "/etc".into(), ..good() }, Code::InvalidArgument, "host"),
        (api::Mount { propagation: 2, ..good() }, Code::InvalidArgument, "host cannot see"),
    ] {
        let mut config = shell("main", &busybox, "true");
        config.mounts = vec![mount];
        let refused = cri.create(&pod, config).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains(says), "{says:?} in {refused}");
    }
    let list = cri.runtime.clone().list_containers(api::ListContainersRequest::default()).await;
    assert!(list.unwrap().into_inner().containers.is_empty(), "nothing is left of them");
}

#[tokio::test]
async fn an_image_stays_as_long_as_a_container_has_it_for_a_volume() {
    let mut node = Node::start().await;
    let (cri, pod, busybox) = ready(&node).await;
    let id = cri.image_status(&data()).await.unwrap().unwrap().id;
    let mut config = shell("main", &busybox, "cat /vol/data/one; sleep 600");
    config.mounts = vec![volume(&data(), "", "/vol")];
    let made = cri.make(&pod, config).await;
    let mounted = cri.status(&made).await.mounts.remove(0).image.unwrap();
    assert_eq!((mounted.image, mounted.image_ref), (data(), id.clone()));
    let remove = |name: String| {
        let (mut service, request) =
            (cri.image.clone(), api::RemoveImageRequest { image: Some(image(&name)) });
        async move { service.remove_image(request).await.map(drop) }
    };
    let in_use = remove(id.clone()).await.unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition, "{in_use}");
    // Made by one daemon, started by the next.
    node.kill();
    node.start_again().await;
    assert_eq!(remove(id.clone()).await.unwrap_err().code(), Code::FailedPrecondition);
    cri.start(&made).await.unwrap();
    hull_tests::eventually("it has read its volume", || async {
        let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
        if said == "one\n" { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(remove(data()).await.unwrap_err().code(), Code::FailedPrecondition);
    // The next attempt of the same container, as after a crash.
    cri.stop(&made, 0).await.unwrap();
    let mut again = shell("main", &busybox, "cat /vol/three");
    again.metadata.as_mut().unwrap().attempt = 1;
    again.log_path = "again.log".into();
    again.mounts = vec![volume(&id, "data", "/vol")];
    assert_eq!(cri.output(&pod, again).await.stdout, "3\n");
    cri.remove_all_pods().await.unwrap();
    remove(id.clone()).await.unwrap();
    assert!(cri.image_status(&id).await.unwrap().is_none());
    node.nothing_is_left().await;
}

#[tokio::test]
async fn in_a_user_namespace_the_files_belong_to_whom_the_image_says() {
    let node = Node::start().await;
    let (cri, _pod, busybox) = ready(&node).await;
    let range = vec![api::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
    let mut config = cri.pod_config("mapped");
    pod_namespaces(&mut config).userns_options = Some(api::UserNamespace {
        mode: api::NamespaceMode::Pod.into(),
        uids: range.clone(),
        gids: range.clone(),
    });
    let pod = cri.run_pod_with(config).await.unwrap();
    let script = "stat -c '%u:%g %n' /vol/data/one /vol/data/sub/two /sub/two /single/file; cat /vol/data/three; \
                  /vol/data/tool; touch /vol/new /sub/new; mount -o remount,rw /vol";
    let mut main = shell("main", &busybox, script);
    main.mounts = vec![
        volume(&data(), "", "/vol"),
        // As a kubelet maps volumes.
        api::Mount {
            uid_mappings: range.clone(),
            gid_mappings: range,
            ..volume(&data(), "absolute", "/sub")
        },
        volume(&single(), "", "/single"),
    ];
    let said = cri.output(&pod, main).await;
    let expected =
        "0:0 /vol/data/one\n7:7 /vol/data/sub/two\n7:7 /sub/two\n0:0 /single/file\n3\nit runs\n";
    assert_eq!(said.stdout, expected, "{said:?}");
    assert_eq!(said.stderr.matches("Read-only file system").count(), 2, "{said:?}");
    cri.remove_all_pods().await.unwrap();
    node.nothing_is_left().await;
}

#[tokio::test]
async fn a_volume_at_a_link_is_where_the_link_leads_inside_the_container() {
    let node = Node::start().await;
    let (cri, pod, _busybox) = ready(&node).await;
    let linked = fixture::pushed("linked", || {
        let links = Layer::new()
            .dirs(&["aim"])
            .symlink("near", "/aim")
            .symlink("far", "../../../../../../../../root/made/here");
        Image::new(vec![fixture::busybox_layer().tar(), links.tar()], json!({"Cmd": ["sh"]}))
    });
    let before = std::fs::read_dir("/root").unwrap().count();
    let mut config = shell("main", &linked, "cat /aim/one /root/made/here/two; readlink /near");
    config.mounts = vec![volume(&data(), "data", "/near"), volume(&data(), "data/sub", "/far")];
    let said = cri.output(&pod, config).await;
    assert_eq!(said.stdout, "one\ntwo\n/aim\n", "{said:?}");
    assert_eq!(std::fs::read_dir("/root").unwrap().count(), before, "the host's own /root");
}
