// SPDX-License-Identifier: Apache-2.0
//! User namespaces on a node's own filesystems: volumes on ext4 and tmpfs, image layers below an
//! overlay, the host's network. Whose the files are inside, on the host, and afterwards.

use hull_proto::cri::{self as api, NamespaceMode};
use hull_tests::cri::{mount, pod_namespaces, security, shell};
use hull_tests::{Cri, ExpectExt as _, Node, fixture, node, shell as host};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

const LENGTH: u32 = 65_536;
/// Ids from here on are those of pods.
const FIRST_OF_ALL: u32 = 200_000;

/// As a kubelet maps a pod's ids.
fn range(first: u32) -> Vec<api::IdMapping> {
    vec![api::IdMapping { host_id: first, container_id: 0, length: LENGTH }]
}

fn mapped(cri: &Cri, name: &str, first: u32, network: NamespaceMode) -> api::PodSandboxConfig {
    let mut config = cri.pod_config(name);
    let options = pod_namespaces(&mut config);
    options.network = network.into();
    options.userns_options = Some(api::UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: range(first),
        gids: range(first),
    });
    config
}

/// Linux 6.15 maps ids of what is mounted in a mount that is not attached yet.
fn kernel_can() -> bool {
    let release = host::run("uname", ["-r"]).good();
    let numbers: Vec<u32> = release.split('.').filter_map(|part| part.parse().ok()).collect();
    numbers.as_slice() >= [6, 15].as_slice()
}

/// A tmpfs, unmounted when this goes.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn at(dir: PathBuf) -> Self {
        fs::create_dir(&dir).or_fail("make the directory of a tmpfs");
        super::said("mount", &["-t", "tmpfs", "none", &dir.display().to_string()]);
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(host::run("umount", [&self.0]));
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).or_fail("look whose a file is");
    (found.uid(), found.gid())
}

/// Everything below `dir` that belongs to an id of a pod.
fn of_pods(dir: &Path) -> BTreeSet<String> {
    let least = format!("+{}", FIRST_OF_ALL - 1);
    let args = [&dir.display().to_string(), "-uid", &least, "-o", "-gid", &least];
    super::said("find", &args).lines().map(str::to_owned).collect()
}

/// The script of each container: makes files of its own on both volumes, and changes one of the image.
fn script(name: &str) -> String {
    format!(
        "for at in /disk /memory; do stat -c '%u:%g' $at/given; echo > $at/{name}; chown 3:4 $at/{name}; \
         mkdir $at/{name}-dir; stat -c '%u:%g' $at/{name}-dir; done; \
         chown 5:6 /bin/busybox; stat -c '%u:%g' /bin/busybox"
    )
}

#[tokio::test]
async fn files_are_whose_they_are_inside_and_nothing_of_the_host_changes_hands() {
    let node = Node::start().await;
    let (cri, image) = (node.cri(), fixture::busybox());
    cri.pull(&image).await.unwrap();
    if !kernel_can() {
        let config = mapped(&cri, "old", FIRST_OF_ALL, NamespaceMode::Pod);
        let refused = cri.run_pod_with(config).await.unwrap_err();
        assert!(refused.message().contains("it needs Linux 6.15"), "{refused}");
        return;
    }
    let disk = node.host_dir().join("disk");
    fs::create_dir(&disk).unwrap();
    let memory = Tmpfs::at(node.host_dir().join("memory"));
    for volume in [&disk, &memory.0] {
        chown(node::write(volume, "given", ""), Some(7), Some(8)).unwrap();
    }
    for (name, first, network) in [
        ("one", FIRST_OF_ALL, NamespaceMode::Pod),
        ("two", 2 * FIRST_OF_ALL, NamespaceMode::Pod),
        ("on-host", 3 * FIRST_OF_ALL, NamespaceMode::Node),
    ] {
        let pod = cri.run_pod_with(mapped(&cri, name, first, network)).await.unwrap();
        let mut config = shell("main", &image, &script(name));
        security(&mut config).namespace_options.get_or_insert_default().network = network.into();
        let volume = |from: &Path, to: &str| api::Mount {
            uid_mappings: range(first),
            gid_mappings: range(first),
            ..mount(from, to)
        };
        config.mounts = vec![volume(&disk, "/disk"), volume(&memory.0, "/memory")];
        let made = cri.run(&pod, config).await;
        let status = cri.ended(&made).await;
        let said = hull_tests::cri::text(&cri.logs(&made).await, "stdout");
        assert_eq!(said, "7:8\n0:0\n7:8\n0:0\n5:6\n", "{name}: {status:?}");
        let upper = node.data_dir().join("containers").join(&made).join("upper");
        assert_eq!(owner(&upper.join("bin/busybox")), (first + 5, first + 6), "{name}");
        for volume in [&disk, &memory.0] {
            assert_eq!(owner(&volume.join("given")), (7, 8), "{name}");
            assert_eq!(owner(&volume.join(name)), (3, 4), "{name}");
            assert_eq!(owner(&volume.join(format!("{name}-dir"))), (0, 0), "{name}");
        }
        // The image's own files stay the host's, and so does what lies beside the containers' layers.
        let containers = node.data_dir().join("containers").display().to_string();
        let others = of_pods(&node.names().root);
        let others: Vec<_> = others.iter().filter(|path| !path.starts_with(&containers)).collect();
        assert!(others.is_empty(), "{name}: {others:?}");
    }
    cri.remove_all_pods().await.unwrap();
    assert_eq!(of_pods(&node.names().root), BTreeSet::new());
    drop(memory);
    node.nothing_is_left().await;
}
