// SPDX-License-Identifier: Apache-2.0
//! A node that had containerd: its configuration, its database of images, its content store.

use crate::{files, run, write};
use hull_tests::bolt::{self, Value};
use hull_tests::image::{self, Blob, Packed};
use hull_tests::layer::Layer;
use hull_tests::{Cri, ExpectExt as _, Node, fixture, paths, shell};
use std::fs;
use std::path::Path;

const CONTENT: &str = "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
const DATABASE: &str = "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";
const CONFIG: &str = r#"
version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.images"]
max_concurrent_downloads = 7
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.invalid/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
"#;
const IMPORTED: &str = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n";

/// An image of the database: its name and its target.
type Named<'i> = (&'i str, &'i Blob);

/// Writes the database and the blobs, which may be those of some images alone.
fn store(root: &Path, images: &[Named<'_>], blobs: &[&Blob]) {
    let entry = |(name, target): &Named<'_>| {
        let target = vec![
            ("digest".to_owned(), Value::text(&target.digest())),
            ("mediatype".to_owned(), Value::text(&target.media_type)),
        ];
        ((*name).to_owned(), bolt::bucket("target", Value::Bucket(target)))
    };
    let images = Value::Bucket(images.iter().map(entry).collect());
    let others = bolt::bucket("images", bolt::bucket("docker.io/a/b:1", Value::Bucket(Vec::new())));
    let namespaces = Value::Bucket(vec![
        ("k8s.io".to_owned(), bolt::bucket("images", images)),
        ("moby".to_owned(), others),
        ("version".to_owned(), Value::Bytes(vec![8])),
    ]);
    write(root, DATABASE, bolt::database(vec![("v1".to_owned(), namespaces)]));
    for blob in blobs {
        let hex = blob.digest().replace("sha256:", "");
        write(root, &format!("{CONTENT}/{hex}"), &blob.bytes);
    }
}

fn all_blobs(packed: &Packed) -> Vec<&Blob> {
    packed.blobs.iter().chain([&packed.manifest]).collect()
}

fn marked(mark: &str) -> Packed {
    fixture::busybox_image().with(Layer::new().file("mark", 0o644, mark).tar()).pack()
}

fn etc(root: &Path) {
    write(root, "etc/containerd/config.toml", CONFIG);
    write(root, "etc/containerd/conf.d/10-driver.toml", IMPORTED);
    write(root, "etc/containerd/certs.d/docker.io/hosts.toml", "");
    write(root, "etc/cni/net.d/10-net.conflist", "{}");
    write(root, "etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n");
}

/// Writes the node's files: an image with two names whose index has another machine's image too, a plain one, one
/// without its upper layer, and one whose layer is damaged. Returns the first one with the digest of its index.
fn node_of_containerd(root: &Path) -> (Packed, String) {
    let [here, other, cut, wrong] = ["here", "other", "cut", "wrong"].map(marked);
    let mut foreign = fixture::busybox_image();
    foreign.arch = "s390x".into();
    let index = image::index(&[&foreign.pack(), &here]);
    let mut blobs = all_blobs(&here);
    blobs.push(&index);
    blobs.extend(all_blobs(&other));
    blobs.extend(all_blobs(&wrong));
    // As with `discard_unpacked_layers`: its upper layer is not in the content store.
    blobs.extend(all_blobs(&cut).into_iter().filter(|blob| blob.bytes != cut.blobs[2].bytes));
    let (id, by_digest) = (here.id(), format!("registry.invalid/app@{}", index.digest()));
    let images = [
        ("registry.invalid/app:1", &index),
        ("registry.invalid/app:stable", &index),
        (by_digest.as_str(), &index),
        (id.as_str(), &index),
        ("registry.invalid/other:1", &other.manifest),
        ("registry.invalid/cut:1", &cut.manifest),
        ("registry.invalid/wrong:1", &wrong.manifest),
    ];
    store(root, &images, &blobs);
    let hex = wrong.blobs[2].digest().replace("sha256:", "");
    let mut damaged = wrong.blobs[2].bytes.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    write(root, &format!("{CONTENT}/{hex}"), damaged);
    etc(root);
    (here, by_digest)
}

#[tokio::test]
async fn a_node_of_containerd_changes_to_hull_with_its_images() {
    let node = Node::start().await;
    let root = node.host_dir().join("peer");
    let (here, by_digest) = node_of_containerd(&root);
    let place = root.display().to_string();
    let before = files(&root);
    let words = ["migrate", "--from", "containerd", "--root", &place];
    let tried = node.hull(&[&words[..], &["--dry-run"]].concat()).good();
    assert_eq!(files(&root), before, "a dry run changes a file");
    assert_eq!(node.cri().image_status("registry.invalid/app:1").await.unwrap(), None);
    for line in [
        "image.concurrent_layers = 7",
        "containerd.runtimes.kata.runtime_type: Hull runs containers itself",
        "registry.invalid/other:1: ",
        "registry.invalid/cut:1: its blob sha256:",
        "images of the namespace moby: 1 images",
        "kubectl drain NODE",
        "The way back:",
    ] {
        assert!(tried.contains(line), "{line}: {tried}");
    }

    let done = node.hull(&words).good();
    assert!(done.contains("/etc/crictl.yaml.hull: written beside"), "{done}");
    assert!(done.contains("registry.invalid/wrong:1: "), "{done}");
    let after = files(&root);
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes), "a file was changed");
    let drop_in = root.join("etc/hull/config.toml.d/50-from-containerd.toml");
    let words_of_show = ["--config", drop_in.to_str().unwrap(), "config", "show"];
    let shown = shell::run(paths::hull(), words_of_show).good();
    for line in ["driver = \"systemd\"", "config_path = \"/etc/containerd/certs.d\""] {
        assert!(shown.contains(line), "{line}: {shown}");
    }

    images_are_there(&node.cri(), &here, &by_digest).await;
    let again = node.hull(&words).good();
    assert!(again.contains("50-from-containerd.toml: has this text already"), "{again}");
    assert!(again.contains("/etc/crictl.yaml.hull: has this text already"), "{again}");
    assert_eq!(files(&root), after, "a second run changes a file");
}

/// Pods run on the whole images, which have their names; the others are not there.
async fn images_are_there(cri: &Cri, here: &Packed, by_digest: &str) {
    let reference = "registry.invalid/app:1";
    assert_eq!(run(cri, "app", reference, "cat /mark").await, "here");
    assert_eq!(run(cri, "other", "registry.invalid/other:1", "cat /mark").await, "other");
    let status = cri.image_status(reference).await.unwrap().unwrap();
    assert_eq!(status.id, here.id());
    assert_eq!(status.repo_tags, [reference, "registry.invalid/app:stable"]);
    assert_eq!(status.repo_digests, [by_digest]);
    for name in ["registry.invalid/cut:1", "registry.invalid/wrong:1"] {
        assert_eq!(cri.image_status(name).await.unwrap(), None, "{name} is not whole");
    }
}

/// The pause program's image stays, and images are listed for later where no daemon runs.
#[test]
fn without_a_daemon_the_configuration_is_written_and_images_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let (here, pause) = (marked("here"), marked("pause"));
    let images =
        [("registry.invalid/app:1", &here.manifest), ("registry.invalid/pause:1", &pause.manifest)];
    let mut blobs = all_blobs(&here);
    blobs.extend(all_blobs(&pause));
    store(root, &images, &blobs);
    etc(root);
    let place = root.display().to_string();
    let socket = root.join("none.sock").display().to_string();
    let words = ["--socket", &socket, "migrate", "--from", "containerd", "--root", &place];
    let done = shell::run(paths::hull(), words).good();
    for line in [
        "not imported yet: reach the daemon",
        "hull migrate --from containerd --only images",
        "registry.invalid/pause:1: Hull has a pause program of its own",
    ] {
        assert!(done.contains(line), "{line}: {done}");
    }
    let written = root.join("etc/hull/config.toml.d/50-from-containerd.toml");
    assert!(fs::read_to_string(written).or_fail("read the drop-in").contains("cgroup.driver"));
}
