// SPDX-License-Identifier: Apache-2.0
//! `hull migrate`, from the files of a node that the tests lay out: its configuration is what Hull reads
//! afterwards, and pods run on its images although no registry has them.
//!
//! `make migrate-containerd` does the same with the store of a real containerd.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod containerd;
mod crio;
mod odd;

use hull_tests::cri::shell;
use hull_tests::{Cri, ExpectExt as _};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes a file of the other runtime's node, with the directories above it.
fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).or_fail("make a directory of the node");
    fs::write(&path, bytes).or_fail(format!("write {}", path.display()));
}

/// All files below a directory with their bytes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                pending.push(path);
            } else {
                let bytes = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                all.insert(path.display().to_string(), bytes);
            }
        }
    }
    all
}

/// Runs a script in a pod with an image that nobody pulls.
async fn run(cri: &Cri, pod: &str, image: &str, script: &str) -> String {
    let pod = cri.run_pod(pod).await.or_fail("run a pod");
    let said = cri.output(&pod, shell("main", image, script)).await;
    cri.remove_pod(&pod).await.or_fail("remove the pod");
    said.stdout
}
