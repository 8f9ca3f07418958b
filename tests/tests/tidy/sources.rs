// SPDX-License-Identifier: Apache-2.0
//! The project's files, as the rules read them.

use hull_tests::{ExpectExt as _, paths, shell};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const NOT_OURS: [&str; 4] = ["target", ".git", ".cache", "node_modules"];

/// One file of the project.
pub(crate) struct Source {
    /// From the project's folder.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// Whether it holds tests, or what they run.
    pub(crate) fn is_test(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "tests")
    }
}

/// All Rust sources of the project.
pub(crate) fn sources() -> Vec<Source> {
    let found = files(&|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(found.len() > 20, "tidy found hardly any source below {}", paths::root().display());
    found
}

/// Text for people that is not Rust: the docs, and the scripts with what they print.
pub(crate) fn prose() -> Vec<Source> {
    files(&|path| {
        let docs = path.extension().is_some_and(|extension| extension == "md");
        let script =
            path.extension().is_none() && path.parent().is_some_and(|dir| dir.ends_with("scripts"));
        docs || script || path.ends_with("Makefile")
    })
}

fn files(wanted: &dyn Fn(&Path) -> bool) -> Vec<Source> {
    let root = paths::root();
    let mut found = Vec::new();
    walk(&root, wanted, &mut found);
    let read = |file: PathBuf| Source {
        text: fs::read_to_string(&file).or_fail(format!("read {}", file.display())),
        path: file.strip_prefix(&root).or_fail("shorten a path").to_owned(),
    };
    found.into_iter().map(read).collect()
}

fn walk(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for name in shell::names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) && !name.starts_with("target-") {
                walk(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}
