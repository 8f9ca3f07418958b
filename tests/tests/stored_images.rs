// SPDX-License-Identifier: Apache-2.0
//! Images as they are stored: what breaks them, how that is found and repaired, how they go out and come
//! back, and pulls that do not get to their end.

use hull_proto::cri as api;
use hull_tests::cri::container;
use hull_tests::image::{Image, this_arch};
use hull_tests::layer::Layer;
use hull_tests::registry::Registry;
use hull_tests::shell::{self, names};
use hull_tests::{ExpectExt as _, Node, eventually, fixture};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};

/// The only file of this name in the layers of a node.
fn find(dir: &Path, name: &str) -> PathBuf {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in names(&dir) {
            let path = dir.join(&entry);
            if entry == name {
                return path;
            }
            if path.symlink_metadata().is_ok_and(|of| of.is_dir()) {
                left.push(path);
            }
        }
    }
    panic!("there is no {name} in {}", dir.display())
}

#[tokio::test]
async fn a_broken_image_is_found_and_repaired() {
    let mut node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::busybox();
    cri.pull(&reference).await.unwrap();
    let said = node.hull(&["images", "verify"]).good();
    assert!(said.contains("no differences"), "{said}");

    let busybox = find(&node.data_dir().join("layers"), "busybox");
    let whole = fs::read(&busybox).unwrap();
    fs::write(&busybox, "").unwrap();
    let ran = node.hull(&["images", "verify", &reference]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout.contains("busybox: it should have") && ran.stderr.contains("--repair"),
        "{ran:?}"
    );
    // As a kubelet sees it: not here, so it pulls.
    assert_eq!(cri.image_status(&reference).await.unwrap(), None);
    let ran = node.hull(&["images", "verify", "--repair", &reference]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read(&busybox).unwrap(), whole);
    assert!(cri.image_status(&reference).await.unwrap().is_some());

    // After a boot it is found without being asked for.
    node.terminate();
    fs::write(&busybox, "").unwrap();
    fs::write(node.data_dir().join("boot"), "another one").unwrap();
    node.start_again().await;
    let cri = node.cri();
    let pod = cri.run_pod("web").await.unwrap();
    let refused = cri.create(&pod, container("main", &reference, &["true"])).await.unwrap_err();
    assert!(
        refused.message().contains("broken") && refused.message().contains("pull it again"),
        "{refused}"
    );
    eventually("the broken image is not shown", || async {
        match cri.image_status(&reference).await.unwrap() {
            None => Ok(()),
            Some(_) => Err("it is".to_owned()),
        }
    })
    .await;
    cri.pull(&reference).await.unwrap();
    let said = cri.output(&pod, container("main", &reference, &["echo", "runs"])).await;
    assert_eq!(said.stdout, "runs\n");
}

#[tokio::test]
async fn images_go_out_as_archives_and_come_in_as_tools_for_ctr_send_them() {
    let node = Node::start().await;
    let cri = node.cri();
    let reference = fixture::busybox();
    let id = cri.pull(&reference).await.unwrap();
    let archive = node.host_dir().join("archive.tar");
    let path = archive.display().to_string();
    let _said = node.hull(&["export", "-o", &path, &reference]).good();
    let again = node.hull(&["export", "-o", &path, &reference]);
    assert_ne!(again.code, 0, "nothing is overwritten: {again:?}");

    let other = Node::start().await;
    let link = other.host_dir().join("ctr");
    std::os::unix::fs::symlink(hull_tests::paths::hull(), &link).unwrap();
    let mut command = std::process::Command::new(&link);
    command
        .env("HULL_SOCKET", other.socket())
        .args(["--namespace=k8s.io", "images", "import", "--all-platforms", "--digests"])
        .args(["--snapshotter=overlayfs", "-"])
        .stdin(fs::File::open(&archive).unwrap());
    let said = shell::finish(&mut command).good();
    assert!(said.contains(&reference), "{said}");
    assert_eq!(other.cri().image_status(&reference).await.unwrap().unwrap().id, id);
    let help = other.hull(&["ctr", "images", "--help"]).good();
    assert!(help.contains("hull ctr --namespace=k8s.io images import"), "{help}");
    let tag = ["ctr", "-n", "k8s.io", "images", "tag", "--force", &id, "example.org/app:1"];
    assert_eq!(other.hull(&tag).good(), "example.org/app:1\n");
    assert_eq!(other.cri().image_status("example.org/app:1").await.unwrap().unwrap().id, id);
    let cri = other.cri();
    let pod = cri.run_pod("web").await.unwrap();
    let said = cri.output(&pod, container("main", &reference, &["echo", "runs"])).await;
    assert_eq!(said.stdout, "runs\n");
    ctr_lists_the_images_of_the_daemon_at_its_address(&node, &other, "example.org/app:1");
}

/// `only_there` is the name of an image of `other` that `node` has under other names alone.
fn ctr_lists_the_images_of_the_daemon_at_its_address(node: &Node, other: &Node, only_there: &str) {
    let list = |variable: &str, socket: &str, flags: &[&str]| {
        let mut command = std::process::Command::new(hull_tests::paths::hull());
        command.env_remove("HULL_SOCKET").env(variable, socket);
        shell::finish(command.arg("ctr").args(flags).args(["-n=k8s.io", "images", "ls", "-q"]))
    };
    let (here, there) = (node.socket().display().to_string(), other.socket().display().to_string());
    assert!(!list("HULL_SOCKET", &here, &[]).good().contains(only_there));
    for flags in [&["-a", &there][..], &[&format!("--address=unix://{there}")]] {
        let listed = list("HULL_SOCKET", &here, flags).good();
        assert!(listed.contains(only_there), "{flags:?}: {listed}");
    }
    assert!(list("CONTAINERD_ADDRESS", &there, &[]).good().contains(only_there));
    assert!(!list("CONTAINERD_ADDRESS", &there, &["-a", &here]).good().contains(only_there));
    let refused = list("HULL_SOCKET", &here, &["-a", "/nonexistent"]);
    assert!(refused.code != 0 && refused.stderr.contains("/nonexistent"), "{refused:?}");
    let platform = ["--platform=linux/s390x", "images", "export", "/nonexistent", only_there];
    let refused = other.hull(&[&["ctr"][..], &platform].concat());
    assert!(refused.code != 0 && refused.stderr.contains("linux/s390x"), "{refused:?}");
}

#[tokio::test]
async fn a_pull_tells_programs_how_far_it_is() {
    let node = Node::start().await;
    let reference = fixture::busybox();
    let said = node.hull(&["pull", "--json", &reference]).good();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let is = |state: &str| lines.iter().any(|line| line["state"] == state);
    assert!(is("receiving") && is("unpacked"), "{said}");
    let last = lines.last().unwrap();
    assert_eq!(last["id"], fixture::busybox_image().pack().id());
}

/// Passes a registry on, but of every answer no more than `most` bytes; then it is silent.
fn halting(registry: &str, most: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").or_fail("listen on loopback");
    let address = listener.local_addr().or_fail("read an address").to_string();
    let registry = registry.to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let registry = registry.clone();
            std::thread::spawn(move || pass_on(client, &registry, most));
        }
    });
    address
}

fn pass_on(mut client: TcpStream, registry: &str, most: u64) {
    let Ok(server) = TcpStream::connect(registry) else { return };
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { return };
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut from, &mut to);
        let _gone = to.shutdown(std::net::Shutdown::Write);
    });
    let _ended = std::io::copy(&mut (&server).take(most), &mut client);
    let _gone = client.flush();
    // As long as the client waits.
    let _ended = std::io::copy(&mut client, &mut std::io::sink());
}

#[tokio::test]
async fn a_daemon_killed_in_a_pull_leaves_nothing_half_made() {
    let registry = Registry::start();
    let noise: Vec<u8> =
        (0_u32..1_000_000).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let layers = vec![
        Layer::new().file("a", 0o644, &noise).tar(),
        Layer::new().file("b", 0o644, noise).tar(),
    ];
    let packed = Image { arch: this_arch().into(), ..Image::new(layers, json!({})) }.pack();
    let reference = registry.push("large", "1", &packed);
    let slow = format!("{}/large:1", halting(&registry.host, 30_000));

    let mut node = Node::start().await;
    let cri = node.cri();
    let pulling = tokio::spawn(async move { cri.pull(&slow).await });
    let tmp = node.data_dir().join("tmp");
    eventually("a layer is on its way", || async {
        if names(&tmp).is_empty() { Err("nothing is in tmp".to_owned()) } else { Ok(()) }
    })
    .await;
    node.kill();
    assert!(pulling.await.unwrap().is_err());
    node.start_again().await;
    for dir in ["tmp", "layers", "inventories", "images"] {
        assert_eq!(names(&node.data_dir().join(dir)), [""; 0], "in {dir}");
    }
    let cri = node.cri();
    let listed = cri.image.clone().list_images(api::ListImagesRequest::default()).await.unwrap();
    assert!(listed.into_inner().images.is_empty());
    cri.pull(&reference).await.unwrap();
    let said = node.hull(&["images", "verify"]).good();
    assert!(said.contains("2 layers"), "{said}");
}
