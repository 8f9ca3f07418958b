// SPDX-License-Identifier: Apache-2.0
//! The installer of the chart on a real systemd, with Hull: it installs, points a kubelet at Hull, goes back from a
//! release that does not start while a pod runs, and gives the kubelet back. `tests/tests/installer` has every other way
//! that it can take. A script stands for the kubelet.

use super::{said, unit_is};
use hull_tests::shell::{Ran, finish, run};
use hull_tests::{ExpectExt as _, eventually, fixture, paths};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const KUBELET: &str = "#!/bin/sh\nwhile :; do sleep 1000; done\n";
const KUBELET_UNIT: &str = "[Service]\nExecStart=/usr/local/bin/kubelet $KUBELET_EXTRA_ARGS\n";
/// A release whose daemon does not start.
const BROKEN: &str = "#!/bin/sh\n[ \"$1\" = config ]\n";
const HULL: &str = "/usr/local/bin/hull";
const SOCKET: &str = "--container-runtime-endpoint=unix:///run/hull/hull.sock";

fn program(path: &Path, text: &str) {
    fs::write(path, text).or_fail(format!("write {}", path.display()));
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, executable).or_fail("make a program executable");
}

/// The directory of the image that the pod sees, without Hull.
fn image() -> TempDir {
    let image = tempfile::tempdir().or_fail("make a directory");
    for file in [
        "charts/hull/files/installer",
        "scripts/package/hull.service",
        "scripts/package/hull.socket",
        "scripts/package/modules.conf",
    ] {
        let from = paths::root().join(file);
        let name = from.file_name().or_fail("find a name");
        let _bytes = fs::copy(&from, image.path().join(name)).or_fail(format!("copy {file}"));
    }
    fs::write(image.path().join("chart.toml"), "[log]\nlevel = \"info\"\n")
        .or_fail("write settings");
    image
}

fn installer(image: &TempDir, command: &str) -> Ran {
    let mut pod = Command::new("sh");
    pod.arg(image.path().join("installer")).arg(command);
    pod.env("FILES", image.path()).env("CONFIG", image.path().join("chart.toml"));
    // The node's root is that of this machine, and its namespaces are these.
    pod.env("WORK", image.path()).env("HOST", "").env("ROOT", "").env("ONCE", "1");
    for (name, value) in [
        ("BIN_DIR", "/usr/local/bin"),
        ("SOCKET", "/run/hull/hull.sock"),
        ("GATE_SECONDS", "120"),
        ("WATCH_SECONDS", "2"),
        ("ATTEMPT", "1"),
        ("KUBELET", "true"),
        ("KUBELET_VARIABLE", "KUBELET_EXTRA_ARGS"),
        ("FORMER_SOCKET", ""),
        ("FORMER_UNIT", ""),
    ] {
        pod.env(name, value);
    }
    finish(&mut pod)
}

/// The command line of the kubelet.
fn kubelet() -> String {
    let pid = said("systemctl", &["show", "kubelet.service", "-p", "MainPID", "--value"]);
    fs::read_to_string(format!("/proc/{pid}/cmdline")).or_fail("read the kubelet's command line")
}

#[tokio::test]
async fn the_installer_of_the_chart_upgrades_goes_back_and_leaves() {
    program(Path::new("/usr/local/bin/kubelet"), KUBELET);
    fs::write("/etc/systemd/system/kubelet.service", KUBELET_UNIT).or_fail("write a unit");
    said("systemctl", &["daemon-reload"]);
    said("systemctl", &["start", "kubelet.service"]);
    assert!(!kubelet().contains(SOCKET));

    let image = image();
    let binary = image.path().join("hull");
    symlink(paths::hull(), &binary).or_fail("link hull");
    let ran = installer(&image, "run");
    let state = || run("journalctl", ["-n", "60", "--no-pager", "-o", "cat"]).stdout;
    assert!(ran.code == 0 && ran.stdout.contains("is installed"), "{ran:?} {}", state());
    unit_is("hull.service", "active").await;
    assert!(kubelet().contains(SOCKET), "{}", kubelet());
    let _ready = installer(&image, "ready").good();

    let busybox = fixture::busybox();
    said(HULL, &["pull", &busybox]);
    said(HULL, &["run", "--detach", "--name", "keeps", &busybox, "sleep", "100000"]);
    fs::remove_file(&binary).or_fail("remove a link");
    program(&binary, BROKEN);
    let ran = installer(&image, "run");
    assert!(ran.stdout.contains("the start of hull.service failed"), "{ran:?} {}", state());
    unit_is("hull.service", "active").await;
    assert!(said(HULL, &["exec", "keeps", "echo", "still"]).contains("still"));
    assert_ne!(installer(&image, "ready").code, 0);
    assert!(kubelet().contains(SOCKET), "the kubelet was not touched");

    let _ran = installer(&image, "uninstall").good();
    assert!(!kubelet().contains(SOCKET), "{}", kubelet());
    for left in [HULL, "/etc/systemd/system/hull.service", "/var/lib/hull-installer"] {
        assert!(!Path::new(left).try_exists().or_fail("look for a file"), "{left} is left");
    }
    assert!(!run("pgrep", ["-x", "hull-monitor"]).stdout.contains(char::is_numeric));
    eventually("hull.service has ended", || async {
        let is = run("systemctl", ["is-active", "hull.service"]).stdout;
        if is.trim() == "inactive" { Ok(()) } else { Err(is) }
    })
    .await;

    said("systemctl", &["stop", "kubelet.service"]);
    for file in ["/usr/local/bin/kubelet", "/etc/systemd/system/kubelet.service"] {
        fs::remove_file(file).or_fail(format!("remove {file}"));
    }
    fs::remove_dir_all("/var/lib/hull").or_fail("remove the images");
    fs::remove_dir_all("/etc/hull").or_fail("remove the settings");
    said("systemctl", &["daemon-reload"]);
}
