// SPDX-License-Identifier: Apache-2.0
//! Cgroups by name, wherever they are: the parent of a pod's cgroup may be the kubelet's.

use hull_cgroup::CgroupFs;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Levels that are searched: slices and pods nest a few deep, and containers may make some of their own.
const DEPTH_MAX: usize = 16;

/// The paths of all cgroups with one of these names, below the root of any hierarchy, inner ones first. Blocks.
pub(super) fn named(host: &CgroupFs, names: &BTreeSet<String>) -> Vec<String> {
    let roots = host.hierarchies().iter().map(|of| of.mountpoint.clone());
    let roots: BTreeSet<PathBuf> = roots.chain(host.unified().map(Path::to_owned)).collect();
    let mut found = BTreeSet::new();
    for root in roots {
        search(&root, "", names, DEPTH_MAX, &mut found);
    }
    // What lies in another one has a longer path.
    let mut found: Vec<String> = found.into_iter().collect();
    found.sort_by_key(|path| std::cmp::Reverse(path.len()));
    found
}

fn search(
    dir: &Path,
    path: &str,
    names: &BTreeSet<String>,
    depth: usize,
    found: &mut BTreeSet<String>,
) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // cgroupfs has no links.
        if !entry.file_type().is_ok_and(|of| of.is_dir()) {
            continue;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{path}/{name}");
        if names.contains(&name) {
            found.insert(path.clone());
        }
        search(&entry.path(), &path, names, depth, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_found_wherever_they_are_inner_ones_first() {
        let root = tempfile::tempdir().unwrap();
        for path in ["kubepods/pod1/aa/deep", "kubepods/pod1/bb", "other/aa", "aa/aa"] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let host = CgroupFs::v2_at(root.path());
        let found = named(&host, &BTreeSet::from(["aa".to_owned()]));
        assert_eq!(found, ["/kubepods/pod1/aa", "/other/aa", "/aa/aa", "/aa"]);
        assert!(named(&host, &BTreeSet::new()).is_empty());
    }
}
