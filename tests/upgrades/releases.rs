// SPDX-License-Identifier: Apache-2.0
//! Programs of earlier releases, as `scripts/upgrades` builds them.

use hull_tests::{ExpectExt as _, paths};
use std::path::PathBuf;

/// Protocol versions and commits, as tests/upgrades/commits lists them.
pub(crate) fn listed() -> Vec<(u16, String)> {
    let path = paths::root().join("tests/upgrades/commits");
    let text = std::fs::read_to_string(&path).or_fail(format!("read {}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (version, commit) = line.split_once(' ').or_fail(format!("read line `{line}`"));
            (version.parse().or_fail(format!("read version `{version}`")), commit.to_owned())
        })
        .collect()
}

/// The program of the release with this version of the protocol.
pub(crate) fn program(protocol: u16) -> PathBuf {
    let all = listed();
    let found = all.iter().find(|(version, _)| *version == protocol);
    let (_, commit) = found.or_fail(format!("find protocol {protocol} in tests/upgrades/commits"));
    let path = paths::target().join("upgrades").join(commit).join("hull");
    assert!(
        path.is_file(),
        "the release with protocol {protocol} is not built: {} is not there (hint: `make test-upgrades` builds it from \
         commit {commit} of this repository, once, in some minutes)",
        path.display()
    );
    path
}
