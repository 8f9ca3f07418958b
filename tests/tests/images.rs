// SPDX-License-Identifier: Apache-2.0
//! Images from a registry and from archives, good ones and hostile ones.

use hull_proto::cri::{self as api};
use hull_tests::cri::{container, image as spec, shell};
use hull_tests::image::{self, Image, docker_archive, oci_archive, this_arch};
use hull_tests::layer::{Compression, Layer};
use hull_tests::registry::{PASSWORD, Registry, USER};
use hull_tests::{Cri, ExpectExt as _, Node, eventually, fixture, node};
use serde_json::json;
use std::fs;
use tar::EntryType;
use tonic::Code;

/// Pulls `reference`, runs `script` in it.
async fn run(cri: &Cri, reference: &str, script: &str) -> hull_tests::Exec {
    // A name of its own: a log is appended to, and outlives its pod.
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let pod = cri.run_pod(&format!("pod-{number}")).await.or_fail("run a pod");
    let said = cri.output(&pod, shell("main", reference, script)).await;
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    said
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let node = Node::start().await;
    let cri = node.cri();
    let packed = fixture::busybox_image().pack();
    let tag = fixture::busybox();
    let (name, _) = tag.rsplit_once(':').unwrap();
    let by_digest = format!("{name}@{}", packed.manifest.digest());
    cri.pull(&tag).await.unwrap();
    let found = cri.image_status(&tag).await.unwrap().unwrap();
    assert_eq!(found.id, packed.id());
    assert_eq!(found.repo_tags.join(" "), tag);
    assert_eq!(found.repo_digests.join(" "), by_digest);
    assert!(found.size > 500_000, "{found:?}");
    cri.pull(&by_digest).await.unwrap();
    for name in [by_digest.as_str(), &packed.id(), &packed.id()["sha256:".len()..][..12]] {
        assert_eq!(cri.image_status(name).await.unwrap().or_fail(name).id, packed.id());
    }
    let listed = cri.image.clone().list_images(api::ListImagesRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().images.len(), 1);
    assert_eq!(cri.image_status("not/there:1").await.unwrap(), None);
}

#[tokio::test]
async fn images_are_removed_by_name_and_by_id() {
    let node = Node::start().await;
    let cri = node.cri();
    let tag = fixture::busybox();
    let remove = |name: String| {
        let mut service = cri.image.clone();
        async move {
            service
                .remove_image(api::RemoveImageRequest { image: Some(spec(&name)) })
                .await
                .map(drop)
        }
    };
    cri.pull(&tag).await.unwrap();
    remove(tag.clone()).await.unwrap();
    remove(tag.clone()).await.unwrap();
    assert_eq!(cri.image_status(&tag).await.unwrap(), None);
    cri.pull(&tag).await.unwrap();
    let id = cri.image_status(&tag).await.unwrap().unwrap().id;
    remove(id).await.unwrap();
    assert_eq!(cri.image_status(&tag).await.unwrap(), None);
    let layers = hull_tests::shell::names(&node.data_dir().join("layers"));
    assert!(layers.is_empty(), "layers of no image are left: {layers:?}");
}

/// CRI 1.36: by one tag the image goes with all of its names. The command line takes away one name.
#[tokio::test]
async fn one_tag_removes_the_image_and_the_command_line_one_tag() {
    let node = Node::start().await;
    let cri = node.cri();
    let packed = fixture::busybox_image().pack();
    let names =
        ["tests/first", "tests/second"].map(|name| fixture::registry().push(name, "1", &packed));
    let tags = async || cri.image_status(&packed.id()).await.unwrap().map(|image| image.repo_tags);
    for name in &names {
        cri.pull(name).await.unwrap();
    }
    let removed = node.hull(&["rmi", &names[0]]);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert_eq!(tags().await, Some(vec![names[1].clone()]));
    cri.pull(&names[0]).await.unwrap();
    let request = api::RemoveImageRequest { image: Some(spec(&names[1])) };
    cri.image.clone().remove_image(request).await.unwrap();
    assert_eq!(tags().await, None, "the other name is left");
}

#[tokio::test]
async fn the_filesystem_of_images_is_told() {
    let node = Node::start().await;
    let cri = node.cri();
    cri.pull(&fixture::busybox()).await.unwrap();
    let told = cri
        .image
        .clone()
        .image_fs_info(api::ImageFsInfoRequest::default())
        .await
        .unwrap()
        .into_inner();
    let usage = &told.image_filesystems[0];
    assert!(usage.used_bytes.unwrap().value > 500_000, "{usage:?}");
    let mountpoint = &usage.fs_id.clone().unwrap().mountpoint;
    assert!(
        node.data_dir().starts_with(mountpoint)
            || mountpoint.starts_with(node.data_dir().to_str().unwrap())
    );
}

/// Bytes and inodes of all containers, and nobody asks for any one's.
async fn written(cri: &Cri) -> (u64, u64) {
    let request = api::ImageFsInfoRequest::default();
    let told = cri
        .image
        .clone()
        .image_fs_info(request)
        .await
        .or_fail("ask for the space taken")
        .into_inner();
    let usage = &told.container_filesystems[0];
    let value = |of: Option<api::UInt64Value>| of.or_fail("read a number").value;
    (value(usage.used_bytes), value(usage.inodes_used))
}

#[tokio::test]
async fn what_containers_write_counts_though_nobody_asks_for_each() {
    const BYTES: u64 = 5 << 20;
    let mut node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::busybox();
    cri.pull(&reference).await.unwrap();
    assert_eq!(written(&cri).await, (0, 0));
    let pod = cri.run_pod("web").await.unwrap();
    let script = "dd if=/dev/zero of=/written bs=1M count=5 && exec sleep 1000";
    let main = container("main", &reference, &["sh", "-c", script]);
    let id = cri.create(&pod, main).await.unwrap();
    assert_eq!(written(&cri).await.1, 1, "one directory, from the moment that it is there");
    cri.start(&id).await.unwrap();
    let is_counted = || async {
        let (bytes, _) = written(&cri).await;
        if bytes > BYTES { Ok(()) } else { Err(format!("{bytes} bytes are")) }
    };
    eventually("what it wrote is counted", is_counted).await;

    node.restart().await;
    let cri = node.cri();
    let is_counted = || async {
        let (bytes, _) = written(&cri).await;
        if bytes > BYTES { Ok(()) } else { Err(format!("{bytes} bytes are")) }
    };
    eventually("it still is", is_counted).await;
    cri.remove_pod(&pod).await.unwrap();
    assert_eq!(written(&cri).await, (0, 0));
}

#[tokio::test]
async fn every_kind_of_layer_and_manifest_runs() {
    let node = Node::start().await;
    let cri = node.cri();
    let all = Image {
        layers: vec![
            (fixture::busybox_layer().tar(), Compression::Zstd),
            (Layer::new().file("plain", 0o644, "plain ").tar(), Compression::Plain),
            (Layer::new().file("gzip", 0o644, "gzip\n").tar(), Compression::Gzip),
        ],
        ..fixture::busybox_image()
    };
    let reference = fixture::pushed("compressions", || all);
    assert_eq!(run(&cri, &reference, "cat /plain /gzip").await.stdout, "plain gzip\n");
    let reference =
        fixture::pushed("docker-types", || Image { docker: true, ..fixture::busybox_image() });
    assert_eq!(run(&cri, &reference, "echo runs").await.stdout, "runs\n");
}

#[tokio::test]
async fn upper_layers_hide_replace_and_remove_what_is_below() {
    let node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::pushed("layered", || {
        let below = Layer::new()
            .dirs(&["d", "d/sub", "gone", "opaque"])
            .file("d/kept", 0o644, "kept")
            .file("d/removed", 0o644, "removed")
            .file("d/replaced", 0o644, "old")
            .file("gone/file", 0o644, "x")
            .file("opaque/old", 0o644, "x")
            .file("becomes-dir", 0o644, "x");
        let above = Layer::new()
            .whiteout("d/removed")
            .whiteout("gone")
            .dir("opaque", 0o755)
            .opaque("opaque")
            .file("opaque/new", 0o644, "x")
            .file("d/replaced", 0o644, "new")
            .dir("becomes-dir", 0o755)
            .file("becomes-dir/inside", 0o644, "x");
        fixture::busybox_image().with(below.tar()).with(above.tar())
    });
    let script = "ls d opaque becomes-dir; cat d/replaced; test -e gone || echo; rm d/kept; mkdir gone; echo mine > opaque/mine; ls d gone opaque";
    let said = run(&cri, &reference, script).await;
    assert_eq!(
        said.stdout,
        "becomes-dir:\ninside\n\nd:\nkept\nreplaced\nsub\n\nopaque:\nnew\nnew\n\
         d:\nreplaced\nsub\n\ngone:\n\nopaque:\nmine\nnew\n",
        "{said:?}"
    );
}

#[tokio::test]
async fn owners_modes_links_and_devices_are_kept() {
    let node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::pushed("metadata", || {
        let layer = Layer::new()
            .dirs(&["m"])
            .file_of("m/owned", 0o640, 1000, "x")
            .file("m/setuid", 0o4755, "x")
            .file("m/one", 0o644, "linked")
            .hard_link("m/two", "m/one")
            .symlink("m/absolute", "/m/one")
            .char_device("m/null", 1, 3);
        fixture::busybox_image().with(layer.tar())
    });
    let script = "cd m; stat -c '%n %u %g %a %h' owned setuid one; cat absolute; stat -c '%F %t %T' null; stat -c %Y one";
    let said = run(&cri, &reference, script).await;
    assert_eq!(
        said.stdout,
        "owned 1000 1000 640 1\nsetuid 0 0 4755 1\none 0 0 644 2\nlinkedcharacter special file 1 3\n1000000000\n",
        "{said:?}"
    );
}

fn find(dir: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in hull_tests::shell::names(dir) {
        let path = dir.join(&entry);
        if entry == name {
            found.push(path.clone());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(find(&path, name));
        }
    }
    found
}

#[tokio::test]
async fn of_several_platforms_this_one_is_taken() {
    let node = Node::start().await;
    let cri = node.cri();
    let other =
        Image { arch: "s390x".into(), ..Image::new(vec![Layer::new().tar()], json!({})) }.pack();
    let ours = fixture::busybox_image().pack();
    let reference = fixture::registry().push_index("tests/index", "1", &[&other, &ours]);
    cri.pull(&reference).await.unwrap();
    assert_eq!(cri.image_status(&reference).await.unwrap().unwrap().id, ours.id());
    let inspected: serde_json::Value =
        serde_json::from_str(&node.hull(&["inspect", &reference]).good()).unwrap();
    let platform = &inspected["info"]["platform"];
    assert_eq!(platform["name"], format!("linux/{}", this_arch()), "{inspected}");
    assert!(platform["why"].as_str().unwrap().contains("of linux/"), "{platform}");

    let reference = fixture::registry().push_index("tests/foreign", "1", &[&other]);
    let refused = cri.pull(&reference).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown, "the kubelet prints other codes: {refused}");
    assert!(refused.message().contains("s390x"), "what there is: {refused}");
    assert!(refused.message().contains(this_arch()), "what was wanted: {refused}");
}

#[tokio::test]
async fn an_account_opens_a_private_registry_and_stays_with_its_caller() {
    let node = Node::start().await;
    let cri = node.cri();
    let registry = Registry::start_private();
    let reference = registry.push("private/busybox", "1", &fixture::busybox_image().pack());
    let account = |password: &str| {
        Some(api::AuthConfig {
            username: USER.into(),
            password: password.into(),
            ..Default::default()
        })
    };
    for auth in [None, account("wrong")] {
        let refused = cri.pull_as(&reference, auth).await.unwrap_err();
        assert!(refused.message().contains("denies access"), "{refused}");
        assert!(!refused.message().contains("wrong"), "a password in a message: {refused}");
    }
    cri.pull_as(&reference, account(PASSWORD)).await.unwrap();
    let encoded = api::AuthConfig { auth: "cHVsbGVyOnB1bGwtbWU=".into(), ..Default::default() };
    cri.pull_as(&reference, Some(encoded)).await.unwrap();
    let refused = cri.pull_as(&reference, None).await.unwrap_err();
    assert!(refused.message().contains("denies access"), "another's account was used: {refused}");
    assert!(!node.daemon_log().contains(PASSWORD), "the password is in the log");
}

#[tokio::test]
async fn an_error_of_a_pull_has_the_answers_of_the_registry_and_its_mirrors() {
    let host = fixture::registry().host.clone();
    let registry = |host: &str, mirror: &str| {
        format!("[[image.registry]]\nhost = \"{host}\"\nmirrors = [\"http://{mirror}\"]\n")
    };
    let settings = [registry(&host, "127.0.0.1:1"), registry("127.0.0.1:1", &host)].concat();
    let node = Node::start_with(&settings).await;
    let cri = node.cri();
    let missing = cri.pull(&format!("{host}/tests/nowhere:1")).await.unwrap_err();
    assert_eq!(missing.code(), Code::Unknown, "{missing}");
    let message = missing.message();
    assert!(message.starts_with("cannot pull"), "{message}");
    assert!(
        message.contains("does not have tests/nowhere:1 (404 not found) (mirror 127.0.0.1:1: "),
        "{message}"
    );
    // The registry is out of reach: what its mirror lacks is what to look at.
    let away = cri.pull("127.0.0.1:1/tests/nowhere:1").await.unwrap_err();
    let message = away.message();
    assert!(message.starts_with("RegistryUnavailable: cannot pull"), "{message}");
    assert!(message.contains(&format!("mirror {host}: {host} does not have")), "{message}");
    assert!(message.contains(&format!("(hint: for mirror {host}: check repository")), "{message}");
}

#[tokio::test]
async fn several_pulls_of_one_image_are_one() {
    let node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::nginx();
    let pulls: Vec<_> = (0..4)
        .map(|_| {
            let (cri, reference) = (cri.clone(), reference.clone());
            tokio::spawn(async move { cri.pull(&reference).await })
        })
        .collect();
    let mut answers = Vec::new();
    for pull in pulls {
        answers.push(pull.await.unwrap().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn a_corrupt_layer_is_refused_and_nothing_of_it_stays() {
    let node = Node::start().await;
    let cri = node.cri();
    let marked = Layer::new().file("marker", 0o644, "of the corrupt image").tar();
    let packed = fixture::busybox_image().with(marked).pack();
    let registry = Registry::start();
    let reference = registry.push("tests/corrupt", "1", &packed);
    let file = registry.blob_file(&packed.blobs[2].digest());
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    fs::write(&file, bytes).unwrap();
    let refused = cri.pull(&reference).await.unwrap_err();
    assert!(refused.message().contains("is corrupt"), "{refused}");
    assert!(refused.message().contains(&packed.blobs[2].digest()), "{refused}");
    assert_eq!(cri.image_status(&reference).await.unwrap(), None);
    let layers = hull_tests::shell::names(&node.data_dir().join("layers"));
    assert!(layers.len() <= 1, "{layers:?}");
}

#[tokio::test]
async fn a_layer_that_is_not_what_the_config_says_is_refused() {
    let node = Node::start().await;
    let cri = node.cri();
    let mut lying = fixture::busybox_image();
    lying.claimed_diff_ids = Some(vec![image::digest(b"something else")]);
    let reference = fixture::pushed("lying", || lying);
    let refused = cri.pull(&reference).await.unwrap_err();
    assert!(refused.message().contains("but the image's config says"), "{refused}");
}

#[tokio::test]
async fn hostile_layers_cannot_leave_their_directory() {
    let node = Node::start().await;
    let cri = node.cri();
    let target = node.host_dir().join("target");
    fs::create_dir_all(&target).unwrap();
    let outside = target.display().to_string();
    let through = format!("{outside}/through-link");
    let hostile: [(&str, Vec<u8>); 5] = [
        (
            "climbs",
            Layer::new()
                .hostile(EntryType::Regular, "../../../../../../../../tmp/hull-escaped", "", b"x")
                .tar(),
        ),
        ("absolute", Layer::new().hostile(EntryType::Regular, "/tmp/hull-escaped", "", b"x").tar()),
        (
            "link-then-write",
            Layer::new()
                .hostile(EntryType::Symlink, "link", &outside, b"")
                .hostile(EntryType::Regular, "link/escaped", "", b"x")
                .tar(),
        ),
        (
            "hard-link",
            Layer::new()
                .hostile(EntryType::Link, "passwd", "../../../../../../../../etc/passwd", b"")
                .tar(),
        ),
        (
            "file-through-link",
            Layer::new()
                .hostile(EntryType::Symlink, "link", &through, b"")
                .hostile(EntryType::Regular, "link", "", b"x")
                .tar(),
        ),
    ];
    for (name, tar) in hostile {
        let reference = fixture::registry().push(
            "tests/hostile",
            name,
            &Image::new(vec![tar], json!({})).pack(),
        );
        // Refused or tamed, as long as it stays inside.
        let _either = cri.pull(&reference).await;
        assert!(fs::symlink_metadata("/tmp/hull-escaped").is_err(), "{name} wrote outside");
        assert!(hull_tests::shell::names(&target).is_empty(), "{name} wrote through a link");
    }
    for passwd in find(&node.data_dir(), "passwd") {
        let text = fs::read(&passwd).unwrap_or_default();
        assert_ne!(
            text,
            fs::read("/etc/passwd").unwrap(),
            "the host's passwd is in {}",
            passwd.display()
        );
    }
}

#[tokio::test]
async fn archives_are_imported_from_files_and_pipes() {
    let node = Node::start().await;
    let cri = node.cri();
    let of_image = fixture::busybox_image();
    let packed = of_image.pack();
    let oci = node.host_dir().join("oci.tar");
    fs::write(&oci, oci_archive(&packed, "example.org/imported/oci:1")).unwrap();
    let docker = node.host_dir().join("docker.tar");
    fs::write(&docker, docker_archive(&of_image, "example.org/imported/docker:2")).unwrap();
    for (file, name) in
        [(&oci, "example.org/imported/oci:1"), (&docker, "example.org/imported/docker:2")]
    {
        let said = node.hull(&["import", &file.display().to_string()]).good();
        assert!(said.contains(name), "{said}");
        let found = cri.image_status(name).await.unwrap().or_fail(name);
        assert_eq!(found.id, packed.id());
        let pod = cri.run_pod("web").await.unwrap();
        let said = cri.output(&pod, container("main", name, &["echo", "runs"])).await;
        assert_eq!(said.stdout, "runs\n");
        cri.remove_pod(&pod).await.unwrap();
    }
    let mut command = node.hull_command(&["import", "-", "--name", "example.org/piped:3"]);
    command.stdin(fs::File::open(&oci).unwrap());
    let _said = hull_tests::shell::finish(&mut command).good();
    assert!(cri.image_status("example.org/piped:3").await.unwrap().is_some());

    let broken = node::write(&node.host_dir(), "broken.tar", "this is not an archive");
    let ran = node.hull(&["import", &broken.display().to_string()]);
    assert_ne!(ran.code, 0);
    assert!(ran.stderr.contains("archive"), "{ran:?}");
}
