// SPDX-License-Identifier: Apache-2.0
//! The parts of a release, as far as no release build is needed: packages with the same bytes each time, units that
//! systemd accepts, the spec of the rpm, the floor of libc, the image of the installer. `make release` makes them of
//! real builds, and `tests/vm/service.rs` installs one.

use hull_tests::shell::{Ran, finish, run};
use hull_tests::{ExpectExt as _, Node, debian, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn script(name: &str) -> Command {
    let mut command = Command::new(paths::root().join("scripts").join(name));
    // Compression is not what is tested, and takes longest.
    command.env("VERSION", "1.2.3").env("COMPRESSION", "none");
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

/// The file that the script `name` makes in a target directory of its own, and that directory.
fn made(name: &str, args: &[&Path]) -> (PathBuf, TempDir) {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let ran = finish(script(name).args(args).env("CARGO_TARGET_DIR", dir.path())).good();
    let path = dir.path().join(ran.lines().last().unwrap_or_default());
    (path, dir)
}

/// A static program that stands for Hull where only its bytes matter.
fn busybox() -> PathBuf {
    debian::unpacked("busybox-static").join("bin/busybox")
}

fn list(archive: &Path) -> String {
    run("tar", ["-tvf".as_ref(), archive.as_os_str()]).good()
}

fn lacks(test: &str, program: &str, package: &str) -> bool {
    let there = run("sh", ["-c", &format!("command -v {program}")]).code == 0;
    if !there {
        paths::cannot_run(test, &format!("{program} (apt-get install {package})"));
    }
    !there
}

#[test]
fn the_debian_package_has_the_same_bytes_each_time() {
    let (hull, speaker) = (busybox(), paths::hull());
    let (first, _dir) = made("deb", &[&hull, &speaker]);
    let (second, _other) = made("deb", &[&hull, &speaker]);
    assert!(fs::read(&first).or_fail("read a package") == fs::read(&second).or_fail("read it"));
    let field = |name: &str| {
        run("dpkg-deb", ["-f".as_ref(), first.as_os_str(), name.as_ref()]).good().trim().to_owned()
    };
    assert_eq!(field("Version"), "1.2.3");
    assert_eq!(field("Depends"), "kmod", "a static program needs no libc");
    let content = run("dpkg-deb", ["-c".as_ref(), first.as_os_str()]).good();
    for file in [
        "./usr/bin/hull",
        "./lib/systemd/system/hull.service",
        "./lib/systemd/system/hull.socket",
        "./usr/lib/modules-load.d/hull.conf",
        "./usr/share/man/man1/hull.1.gz",
        "./usr/share/bash-completion/completions/hull",
    ] {
        assert!(content.lines().any(|line| line.ends_with(file)), "{file}: {content}");
    }
    let foreign = content.lines().filter(|line| !line.contains(" root/root "));
    assert_eq!(foreign.count(), 0, "{content}");
}

#[test]
fn a_package_of_a_dynamic_program_names_the_libc_that_it_needs() {
    let (package, _dir) = made("deb", &[&paths::hull()]);
    let depends = run("dpkg-deb", ["-f".as_ref(), package.as_os_str(), "Depends".as_ref()]).good();
    assert!(depends.starts_with("libc6 (>= 2."), "{depends}");
}

#[test]
fn the_tarball_has_the_same_bytes_each_time() {
    let (hull, speaker) = (busybox(), paths::hull());
    let (first, _dir) = made("tarball", &[&hull, &speaker]);
    let (second, _other) = made("tarball", &[&hull, &speaker]);
    assert!(fs::read(&first).or_fail("read a tarball") == fs::read(&second).or_fail("read it"));
    let content = list(&first);
    for file in
        ["usr/bin/hull", "usr/lib/systemd/system/hull.service", "usr/share/man/man1/hull.1.gz"]
    {
        let whole = format!("hull-1.2.3-linux-{}/{file}", hull_tests::image::this_arch());
        assert!(content.lines().any(|line| line.ends_with(&whole)), "{whole}: {content}");
    }
    assert!(content.lines().all(|line| line.contains(" 0/0 ")), "{content}");
}

#[test]
fn the_rpm_has_the_same_bytes_each_time_and_the_scripts_of_the_deb() {
    if lacks("the_rpm_has_the_same_bytes_each_time_and_the_scripts_of_the_deb", "rpmbuild", "rpm") {
        return;
    }
    let (hull, speaker) = (busybox(), paths::hull());
    let (first, _dir) = made("rpm", &[&hull, &speaker]);
    let (second, _other) = made("rpm", &[&hull, &speaker]);
    assert!(fs::read(&first).or_fail("read a package") == fs::read(&second).or_fail("read it"));
    let asked =
        |option: &str| run("rpm", ["-qp".as_ref(), option.as_ref(), first.as_os_str()]).good();
    let files = asked("-l");
    for file in
        ["/usr/bin/hull", "/usr/lib/systemd/system/hull.socket", "/usr/share/man/man1/hull.1.gz"]
    {
        assert!(files.lines().any(|line| line == file), "{file}: {files}");
    }
    let scripts = asked("--scripts");
    for part in [
        "set -- configure",
        "systemctl restart hull.service",
        "hull rm --force --all",
        "rm -rf /run/hull",
    ] {
        assert!(scripts.contains(part), "{part}: {scripts}");
    }
    assert!(scripts.contains("printf '%s\\n'"), "a % stays one: {scripts}");
    assert!(asked("-i").contains("2023"), "the time is that of the commit: {}", asked("-i"));
}

/// Verifies `units`, with a program that is there in the place of Hull.
fn verify(units: &[(&str, String)]) -> Ran {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for (name, text) in units {
        let file = dir.path().join(name);
        fs::write(&file, text.replace("ExecStart=/usr/bin/hull", "ExecStart=/bin/true"))
            .or_fail("write a unit");
        command.arg(file);
    }
    finish(&mut command)
}

#[test]
fn systemd_accepts_the_units() {
    if lacks("systemd_accepts_the_units", "systemd-analyze", "systemd") {
        return;
    }
    let unit = |name: &str| {
        let path = paths::root().join("scripts/package").join(name);
        fs::read_to_string(&path).or_fail(format!("read {}", path.display()))
    };
    let (service, socket) = (unit("hull.service"), unit("hull.socket"));
    let ran = verify(&[("hull.service", service.clone()), ("hull.socket", socket.clone())]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    // systemd only warns of what it does not know.
    let wrong = service.replace("KillMode=process", "KillMode=everything\nKillMod=process");
    let ran = verify(&[("hull.service", wrong), ("hull.socket", socket)]);
    assert!(ran.stderr.contains("KillMod") && ran.stderr.contains("everything"), "{ran:?}");
}

#[test]
fn a_program_that_needs_a_newer_libc_is_refused_with_its_symbols() {
    let program = paths::hull();
    let ran = finish(script("libc-floor").arg(&program));
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = finish(script("libc-floor").arg(&program).arg("2.2"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("newer than 2.2"), "{ran:?}");
    assert!(ran.stderr.contains("  GLIBC_2.") && !ran.stderr.contains("GLIBC_2.2.5\n"), "{ran:?}");
    let ran = finish(script("libc-floor").arg(busybox()));
    assert!(ran.code == 0 && ran.stderr.contains("needs no glibc"), "{ran:?}");
}

/// Sources that git has packed know their commit without git.
#[test]
fn an_archive_of_the_sources_has_its_commit() {
    let git = |args: &[&str]| finish(Command::new("git").arg("-C").arg(paths::root()).args(args));
    let head = git(&["rev-parse", "HEAD"]);
    if head.code != 0 {
        paths::cannot_run("an_archive_of_the_sources_has_its_commit", "git with this repository");
        return;
    }
    let dir = tempfile::tempdir().or_fail("make a directory");
    let archive = dir.path().join("sources.tar");
    let output = format!("--output={}", archive.display());
    let _said = git(&["archive", &output, "HEAD", "scripts/package"]).good();
    let args = ["-xOf".as_ref(), archive.as_os_str(), "scripts/package/commit".as_ref()];
    let line = run("tar", args).good();
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((fields.len(), fields[0]), (3, head.stdout.trim()), "{line}");
    assert!(fields[1].parse::<u64>().is_ok() && fields[2].contains('T'), "{line}");
}

#[tokio::test]
async fn the_image_of_the_installer_is_reproducible_and_runs() {
    // A static build of Hull takes minutes. In this image its own static program is in that place.
    let hull = busybox();
    let (first, _dir) = made("installer-image", &[&hull]);
    let (second, _other) = made("installer-image", &[&hull]);
    assert!(fs::read(&first).or_fail("read an image") == fs::read(&second).or_fail("read it"));

    let node = Node::start().await;
    let archive = first.display().to_string();
    let _said = node.hull(&["import", &archive]).good();
    let run = |words: &[&str]| {
        let mut args = vec!["run", "--rm", "localhost/hull-installer:1.2.3"];
        args.extend(words);
        node.hull(&args)
    };
    let ran = run(&["/bin/sh", "/hull/installer", "help"]);
    assert!(ran.code == 1 && ran.stderr.contains("the commands are run, ready"), "{ran:?}");
    let ran = run(&["/bin/sh", "-c", "ls /hull; [ -x /hull/hull ] && echo executable"]);
    assert_eq!(
        ran.stdout,
        "hull\nhull.service\nhull.socket\ninstaller\nmodules.conf\nexecutable\n"
    );
    // What the installer calls is there, also where it is not a part of the shell.
    let ran = run(&[
        "/bin/sh",
        "-c",
        "for name in cp cut head nsenter sha256sum tail tr; do command -v $name || echo lacks $name; done",
    ]);
    assert!(!ran.stdout.contains("lacks"), "{ran:?}");
    let _said = node.hull(&["rmi", "localhost/hull-installer:1.2.3"]).good();
}
