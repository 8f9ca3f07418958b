// SPDX-License-Identifier: Apache-2.0
//! Programs of Kubernetes, at the versions that tests/kubernetes pins.

use crate::expect::ExpectExt;
use crate::{paths, shell};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder with all of `programs` (`kubelet`, `etcd`, …, or `cluster`); those that are not there are built, which
/// takes minutes.
#[must_use]
pub fn built(programs: &[&str]) -> PathBuf {
    let mut script = Command::new(paths::root().join("scripts/kubernetes"));
    // It reports on standard error which program it builds.
    script.args(programs).stderr(Stdio::inherit());
    let output = script.output().or_fail("run scripts/kubernetes");
    assert!(output.status.success(), "scripts/kubernetes {programs:?} failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().or_fail("read the folder that scripts/kubernetes prints");
    PathBuf::from(last)
}

/// The version of Kubernetes, such as `v1.37.2`: the name of the folder of its programs.
#[must_use]
pub fn version(programs: &Path) -> String {
    let name = programs.file_name().or_fail("read the version of Kubernetes");
    name.to_string_lossy().into_owned()
}

/// The folder of a Go module that the programs were built from.
#[must_use]
pub fn module(path: &str) -> PathBuf {
    let mut list = Command::new("go");
    let go = format!("/usr/local/go/bin:{}", std::env::var("PATH").unwrap_or_default());
    list.args(["list", "-m", "-f", "{{.Dir}}", path])
        .current_dir(paths::root().join("tests/kubernetes/kubernetes"))
        .env("PATH", go);
    PathBuf::from(shell::finish(&mut list).good().trim())
}
