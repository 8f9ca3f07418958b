// SPDX-License-Identifier: Apache-2.0
//! Documents that name files name files that are there.

use crate::report;
use hull_tests::{ExpectExt as _, paths};
use std::fs;

/// Folders of the project that paths begin with.
const TOPS: [&str; 9] =
    ["docs/", "image/", "network/", "proto/", "runtime/", "scripts/", "server/", "tests/", ".ci/"];

/// The paths between backticks.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split('`').skip(1).step_by(2);
    let plain = |word: &&str| !word.contains(['*', '<', '{', ' ', '$', '\n', '…']);
    code.filter(|word| TOPS.iter().any(|top| word.starts_with(top))).filter(plain)
}

#[test]
fn files_that_documents_name_are_there() {
    let mut wrong = Vec::new();
    for page in ["CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(paths::root().join(page)).or_fail(format!("read {page}"));
        for path in named(&text) {
            let place = path.split_once(':').map_or(path, |(path, _)| path);
            if !paths::root().join(place).try_exists().or_fail("look for a file") {
                wrong.push(format!("{page}: {path} is not there: write where it is now"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn only_paths_of_the_project_count() {
    let text = "`server/src/x.rs` and `cargo test`, `/etc/x`, `tests/<name>`, ``, `proto/`";
    assert_eq!(named(text).collect::<Vec<_>>(), ["server/src/x.rs", "proto/"]);
}
