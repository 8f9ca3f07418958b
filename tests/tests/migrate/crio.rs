// SPDX-License-Identifier: Apache-2.0
//! A node that had CRI-O: its configuration, and containers/storage with layers in tar-split's form.

use crate::{files, run, write};
use data_encoding::BASE64;
use flate2::Compression;
use flate2::write::GzEncoder;
use hull_tests::image::{Image, Packed, digest};
use hull_tests::layer::Layer;
use hull_tests::{ExpectExt as _, Node, fixture};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

const STORAGE: &str = "var/lib/containers/storage";
const CONFIG: &str = r#"
[crio.runtime]
cgroup_manager = "systemd"
default_ulimits = ["nofile=1000:2000"]
hooks_dir = ["/usr/share/containers/oci/hooks.d"]
[crio.image]
pause_image = "registry.invalid/pause:1"
"#;

/// The layers and images of a store.
#[derive(Default)]
struct Storage {
    layers: Vec<Value>,
    images: Vec<Value>,
}

impl Storage {
    /// Stores an image as CRI-O does after a pull, and returns the ids of its layers.
    fn add(&mut self, root: &Path, image: &Image, name: &str) -> Vec<String> {
        let packed = image.pack();
        let (mut parent, mut ids) = (String::new(), Vec::new());
        for (tar, _) in &image.layers {
            let id = digest(format!("{parent}{}", digest(tar)).as_bytes()).replace("sha256:", "");
            if !self.layers.iter().any(|of| of["id"] == id.as_str()) {
                layer(root, &id, tar);
                self.layers.push(json!({
                    "id": id, "parent": parent, "diff-digest": digest(tar), "diff-size": tar.len(),
                }));
            }
            parent.clone_from(&id);
            ids.push(id);
        }
        self.image(root, &packed, name, &parent);
        ids
    }

    fn image(&mut self, root: &Path, packed: &Packed, name: &str, top: &str) {
        let id = packed.id().replace("sha256:", "");
        let manifest = packed.manifest.digest();
        let directory = format!("{STORAGE}/overlay-images/{id}");
        let key = |key: &str| format!("{directory}/={}", BASE64.encode(key.as_bytes()));
        write(root, &key(&packed.id()), &packed.blobs[0].bytes);
        write(root, &key(&format!("manifest-{manifest}")), &packed.manifest.bytes);
        write(root, &format!("{directory}/manifest"), &packed.manifest.bytes);
        let (repository, _) = name.rsplit_once(':').unwrap();
        let names = [name.to_owned(), format!("{repository}@{manifest}")];
        self.images.push(json!({ "id": id, "digest": manifest, "names": names, "layer": top }));
    }

    fn write(&self, root: &Path) {
        let list = |of: &Vec<Value>| Value::from(of.clone()).to_string();
        write(root, &format!("{STORAGE}/overlay-images/images.json"), list(&self.images));
        write(root, &format!("{STORAGE}/overlay-layers/layers.json"), list(&self.layers));
    }
}

/// Unpacks a layer, and keeps the bytes of its archive that are not content.
fn layer(root: &Path, id: &str, tar: &[u8]) {
    let diff = root.join(STORAGE).join("overlay").join(id).join("diff");
    std::fs::create_dir_all(&diff).or_fail("make the directory of a layer");
    let mut unpacked = tar::Archive::new(tar);
    unpacked.set_preserve_permissions(true);
    unpacked.unpack(&diff).or_fail("unpack a layer");
    let mut lines = GzEncoder::new(Vec::new(), Compression::fast());
    let mut add = |line: &Value| writeln!(lines, "{line}").or_fail("write the list of a layer");
    let mut from = 0;
    let segment =
        |from: usize, to: usize| json!({ "type": 2, "payload": BASE64.encode(&tar[from..to]) });
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let entry = entry.unwrap();
        let at = usize::try_from(entry.raw_file_position()).unwrap();
        let size = usize::try_from(entry.size()).unwrap();
        let name = entry.path().unwrap().display().to_string();
        add(&segment(from, at));
        add(&json!({ "type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA=" }));
        from = at + size;
    }
    add(&segment(from, tar.len()));
    let lines = lines.finish().or_fail("compress the list of a layer");
    write(root, &format!("{STORAGE}/overlay-layers/{id}.tar-split.gz"), lines);
}

fn marked(mark: &str) -> Image {
    fixture::busybox_image().with(Layer::new().file("mark", 0o644, mark).tar())
}

#[tokio::test]
async fn a_node_of_crio_changes_to_hull_with_its_images() {
    let node = Node::start().await;
    let root = node.host_dir().join("peer");
    let (here, wrong) = (marked("here"), marked("wrong"));
    let mut storage = Storage::default();
    let _ids = storage.add(&root, &here, "registry.invalid/app:1");
    let _ids = storage.add(&root, &marked("pause"), "registry.invalid/pause:1");
    let ids = storage.add(&root, &wrong, "registry.invalid/wrong:1");
    storage.write(&root);
    // The content of a file was changed, but not its size.
    let top = ids.last().unwrap();
    write(&root, &format!("{STORAGE}/overlay/{top}/diff/mark"), "wrang");
    write(&root, "etc/crio/crio.conf", CONFIG);
    write(
        &root,
        "etc/containers/registries.conf",
        "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"mirror.invalid\"\n",
    );

    let place = root.display().to_string();
    let before = files(&root);
    let words = ["migrate", "--from", "crio", "--root", &place];
    let tried = node.hull(&[&words[..], &["--dry-run"]].concat()).good();
    assert_eq!(files(&root), before, "a dry run changes a file");
    for line in [
        "cgroup.driver = \"systemd\"",
        "runtime.hooks_dir = [",
        "crictl --runtime-endpoint unix:///var/run/crio/crio.sock rmp --force --all",
        "disable --now crio",
    ] {
        assert!(tried.contains(line), "{line}: {tried}");
    }

    let done = node.hull(&words).good();
    assert!(done.contains("Images to be pulled again:\n  registry.invalid/wrong:1: "), "{done}");
    let hosts = root.join("etc/hull/certs.d/docker.io/hosts.toml");
    let hosts = std::fs::read_to_string(hosts).or_fail("read hosts.toml");
    assert!(hosts.contains("[host.\"https://mirror.invalid\"]"), "{hosts}");

    let cri = node.cri();
    let reference = "registry.invalid/app:1";
    assert_eq!(run(&cri, "app", reference, "cat /mark").await, "here");
    let status = cri.image_status(reference).await.unwrap().unwrap();
    let packed = here.pack();
    assert_eq!(status.id, packed.id());
    let by_digest = format!("registry.invalid/app@{}", packed.manifest.digest());
    assert_eq!(status.repo_digests, [by_digest]);
    for name in ["registry.invalid/wrong:1", "registry.invalid/pause:1"] {
        assert_eq!(cri.image_status(name).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_digest_that_lies_changes_nothing_and_names_of_hull_stay() {
    let node = Node::start().await;
    let cri = node.cri();
    let (lying, own, other) = (marked("lying"), marked("own"), marked("other"));
    let place = |name: &str| node.host_dir().join(name);
    let migrate = |root: &Path| {
        let root = root.display().to_string();
        node.hull(&["migrate", "--from", "crio", "--only", "images", "--root", &root]).good()
    };

    let root = place("lying");
    let mut storage = Storage::default();
    let _ids = storage.add(&root, &lying, "registry.invalid/lying:1");
    storage.images[0]["digest"] = Value::from(other.pack().manifest.digest());
    storage.write(&root);
    let said = migrate(&root);
    assert!(said.contains("registry.invalid/lying:1: its manifest sha256:"), "{said}");
    for name in ["registry.invalid/lying:1", &lying.pack().id()] {
        assert_eq!(cri.image_status(name).await.unwrap(), None, "{name} is stored: {said}");
    }

    for (directory, image) in [("own", &own), ("other", &other)] {
        let mut storage = Storage::default();
        let _ids = storage.add(&place(directory), image, "registry.invalid/app:1");
        storage.write(&place(directory));
    }
    let first = migrate(&place("own"));
    assert!(first.contains("  registry.invalid/app:1: "), "{first}");
    let second = migrate(&place("other"));
    let line = format!("registry.invalid/app:1: stays the name of {}", own.pack().id());
    assert!(second.contains(&line), "{line}: {second}");
    let status = cri.image_status("registry.invalid/app:1").await.unwrap().unwrap();
    assert_eq!(status.id, own.pack().id());
}
