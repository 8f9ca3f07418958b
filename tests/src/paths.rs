// SPDX-License-Identifier: Apache-2.0
//! Where the tests find what was built and keep what they make.
//!
//! ```text
//! <target>/debug/hull          the program under test, or $HULL_BIN
//! <target>/fixtures/           Debian packages unpacked, layers made of them
//! <target>/node-logs/<test>    the daemon's log of a test that failed
//! <root>/.cache/bin/crictl     made by `make tools`, or $CRICTL; also kubeclient, grpcclient, helm
//! <root>/.cache/criu/criu      made by `make criu`, or $CRIU
//! ```

use crate::expect::ExpectExt;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .or_fail("find the project's folder")
}

/// The folder that cargo builds into: this program lies somewhere below `<target>/<profile>`.
#[must_use]
pub fn target() -> PathBuf {
    let me = env::current_exe().or_fail("find this program");
    let profile = profile_dir(&me);
    profile.parent().or_fail("find the target folder").to_owned()
}

fn profile_dir(me: &Path) -> PathBuf {
    let dir = me.parent().or_fail("find this program's folder");
    let in_deps = dir.file_name().is_some_and(|name| name == "deps");
    if in_deps {
        dir.parent().or_fail("find the profile's folder").to_owned()
    } else {
        dir.to_owned()
    }
}

/// A folder for what is made once and kept.
#[must_use]
pub fn fixtures() -> PathBuf {
    made(target().join("fixtures"))
}

/// Where logs of failed tests stay.
#[must_use]
pub fn logs() -> PathBuf {
    made(target().join("node-logs"))
}

fn made(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).or_fail(format!("make {}", path.display()));
    path
}

/// The program under test.
#[must_use]
pub fn hull() -> PathBuf {
    let me = env::current_exe().or_fail("find this program");
    let path = env::var_os("HULL_BIN").map_or_else(|| profile_dir(&me).join("hull"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: build it first (`cargo build -p hull`, or run the tests by `make test`), or name it in HULL_BIN",
        path.display()
    );
    path
}

/// crictl, when it is there.
#[must_use]
pub fn crictl() -> Option<PathBuf> {
    let path =
        env::var_os("CRICTL").map_or_else(|| root().join(".cache/bin/crictl"), PathBuf::from);
    path.is_file().then_some(path)
}

/// kubectl's streaming client, when it is there.
#[must_use]
pub fn kubeclient() -> Option<PathBuf> {
    let path = env::var_os("KUBECLIENT")
        .map_or_else(|| root().join(".cache/bin/kubeclient"), PathBuf::from);
    path.is_file().then_some(path)
}

/// The client of CRI that connects in every way of programs in Go, when it is there.
#[must_use]
pub fn grpcclient() -> Option<PathBuf> {
    let path = env::var_os("GRPCCLIENT")
        .map_or_else(|| root().join(".cache/bin/grpcclient"), PathBuf::from);
    path.is_file().then_some(path)
}

/// Helm, when it is there.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    let path = env::var_os("HELM").map_or_else(|| root().join(".cache/bin/helm"), PathBuf::from);
    path.is_file().then_some(path)
}

/// The CRIU of `make criu`, when it is there.
#[must_use]
pub fn criu() -> Option<PathBuf> {
    let path = env::var_os("CRIU").map_or_else(|| root().join(".cache/criu/criu"), PathBuf::from);
    path.is_file().then_some(path)
}

/// Says loudly that a test could not run, and fails where every test must (`TESTS_MUST_RUN=1`).
pub fn cannot_run(test: &str, lacks: &str) {
    let must = env::var("TESTS_MUST_RUN").is_ok_and(|value| value == "1");
    assert!(!must, "{test} must run here but lacks {lacks}");
    crate::shell::say(&format!("NOT RUN: {test}: this machine lacks {lacks}"));
}
