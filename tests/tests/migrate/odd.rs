// SPDX-License-Identifier: Apache-2.0
//! Odd and hostile files of other runtimes: each ends in an error that names the file, and nothing is written.

use crate::{files, write};
use hull_tests::paths;
use hull_tests::shell::{self, Ran};
use std::os::unix::fs::symlink;
use std::path::Path;

fn migrate(root: &Path, from: &str) -> Ran {
    let place = root.display().to_string();
    shell::run(paths::hull(), ["migrate", "--from", from, "--only", "config", "--root", &place])
}

#[test]
fn odd_files_are_errors_and_nothing_is_written() {
    let long = "x".repeat(2 << 20);
    for (from, name, bytes, why) in [
        ("containerd", "etc/containerd/config.toml", &b"version = 3\n[plugins\n"[..], "line 2"),
        ("containerd", "etc/containerd/config.toml", &b"version = 1\n"[..], "version 1"),
        ("containerd", "etc/containerd/config.toml", &b"\xff\xfe"[..], "not UTF-8"),
        ("containerd", "etc/containerd/config.toml", long.as_bytes(), "larger than"),
        (
            "containerd",
            "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
            &b"not a database"[..],
            "not a bbolt database",
        ),
        ("crio", "etc/crio/crio.conf", &b"a = \n"[..], "crio.conf: line 1"),
        ("crio", "etc/crio/crio.conf.d/1", &b"]"[..], "crio.conf.d/1: line 1"),
        (
            "crio",
            "etc/containers/registries.conf",
            &b"[[registry]\n"[..],
            "registries.conf: line 1",
        ),
        (
            "crio",
            "var/lib/containers/storage/overlay-images/images.json",
            &b"{}"[..],
            "images.json",
        ),
        ("crio", "var/lib/kubelet/config.yaml", &b"a: [\n"[..], "config.yaml"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), name, bytes);
        let ran = migrate(dir.path(), from);
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        assert!(
            ran.stderr.starts_with("error: cannot read ") && ran.stderr.contains(why),
            "{ran:?}"
        );
        assert_eq!(files(dir.path()).len(), 1, "{name}: something was written");
    }
}

#[test]
fn a_link_out_of_the_root_is_not_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(outside.path(), "config.toml", "version = 1\n");
    std::fs::create_dir_all(dir.path().join("etc")).unwrap();
    symlink(outside.path(), dir.path().join("etc/containerd")).unwrap();
    symlink(outside.path(), dir.path().join("etc/hull")).unwrap();
    // Below the root that path leads nowhere, so there is no configuration, and nowhere to write one.
    let ran = migrate(dir.path(), "containerd");
    assert!(ran.stdout.contains("no configuration of containerd"), "{ran:?}");
    assert_eq!(files(outside.path()).len(), 1, "something was written outside of the root");
}

#[test]
fn a_root_that_is_not_there_and_an_unknown_runtime_are_errors() {
    let ran = migrate(Path::new("/nowhere"), "containerd");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("cannot open /nowhere"), "{ran:?}");
    let ran = migrate(Path::new("/"), "docker");
    assert!(ran.code != 0 && ran.stderr.contains("docker"), "{ran:?}");
}
