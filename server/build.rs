// SPDX-License-Identifier: Apache-2.0
//! Builds the programs beside the daemon, the monitor and pause of every pod and the OCI runtime alone,
//! and hands their paths to `src/embedded`, which embeds them. They are built by a cargo of their own because they need another
//! target (static musl, where it is installed) and another profile than the daemon.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set to `none`, nothing is built and empty files are embedded: for `cargo check` for a machine of another
/// architecture, where nothing is linked and the C libraries of that machine are not there.
const SWITCH: &str = "HULL_POD_PROGRAMS";

/// The directory of libseccomp.a for the target, where it is not this machine's (scripts/build).
const LIBSECCOMP: &str = "HULL_LIBSECCOMP_PATH";

/// Commit, time and date of the sources; git writes them when it makes an archive.
const ARCHIVED_COMMIT: &str = "../scripts/package/commit";

fn main() -> Result<(), Box<dyn Error>> {
    version()?;
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for folder in
        ["proto/src", "proto/Cargo.toml", "runtime", "network/netlink", "Cargo.lock", "Cargo.toml"]
    {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
    println!("cargo:rerun-if-env-changed={SWITCH}");
    println!("cargo:rerun-if-env-changed={LIBSECCOMP}");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("pod-programs");
    if env::var(SWITCH).is_ok_and(|value| value == "none") {
        return embed_nothing(&out);
    }
    let target = env::var("TARGET")?;
    let monitor =
        build(&root, &out, &monitor_target(&target)?, "hull-monitor", "hull-monitor", &[])?;
    let gnu = format!("{}-unknown-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH")?);
    // Pause links to no library at all. rustc adds musl's own start-up files, so not that target.
    let pause = build(&root, &out, &gnu, "hull-sys", "pause", &["--features", "pause"])?;
    // libseccomp.a is glibc's; static too, so that no loader runs at each start.
    let oci = build(&root, &out, &gnu, "hull-oci", "hull-oci", &[])?;
    embed(&monitor, &pause, &oci);
    Ok(())
}

/// Sets the target for `hull --version`, and of a release build the commit and its date: those of an archive that git
/// made, else those of git. Other builds do not run git, so that a commit does not rebuild them; HULL_COMMIT and
/// HULL_COMMIT_DATE override both.
fn version() -> Result<(), Box<dyn Error>> {
    println!("cargo:rustc-env=HULL_TARGET={}", env::var("TARGET")?);
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let archive = std::fs::read_to_string(ARCHIVED_COMMIT)?;
    println!("cargo:rerun-if-changed={ARCHIVED_COMMIT}");
    for (name, format, field) in [("HULL_COMMIT", "%H", 0), ("HULL_COMMIT_DATE", "%cI", 2)] {
        println!("cargo:rerun-if-env-changed={name}");
        let of_archive = || {
            // In a work tree the file has the placeholders still.
            let fields = Some(archive.trim()).filter(|line| !line.starts_with('$'));
            fields?.split(' ').nth(field).map(str::to_owned)
        };
        let of_git = || {
            let format = format!("--format={format}");
            let shown = Command::new("git").args(["log", "-1", &format]).output().ok()?;
            let text = String::from_utf8(shown.stdout).ok()?.trim().to_owned();
            (shown.status.success() && !text.is_empty()).then_some(text)
        };
        let given = env::var(name)
            .ok()
            .or_else(of_archive)
            .or_else(|| if is_release { of_git() } else { None });
        println!("cargo:rustc-env={name}={}", given.as_deref().unwrap_or("unknown"));
    }
    if is_release {
        println!("cargo:rerun-if-changed=../.git/logs/HEAD");
    }
    Ok(())
}

fn embed(monitor: &Path, pause: &Path, oci: &Path) {
    println!("cargo:rustc-env=HULL_MONITOR_PROGRAM={}", monitor.display());
    println!("cargo:rustc-env=HULL_PAUSE_PROGRAM={}", pause.display());
    println!("cargo:rustc-env=HULL_OCI_PROGRAM={}", oci.display());
}

fn embed_nothing(out: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(out)?;
    let empty = out.join("empty");
    std::fs::write(&empty, "")?;
    embed(&empty, &empty, &empty);
    Ok(())
}

/// The musl target of the same architecture where its standard library is installed, else the daemon's own
/// target with a static libc.
fn monitor_target(target: &str) -> Result<String, Box<dyn Error>> {
    let rustc = env::var("RUSTC")?;
    let musl = format!("{}-unknown-linux-musl", env::var("CARGO_CFG_TARGET_ARCH")?);
    let shown =
        Command::new(rustc).args(["--print", "target-libdir", "--target", &musl]).output()?;
    let libs = String::from_utf8(shown.stdout)?;
    if Path::new(libs.trim()).is_dir() {
        return Ok(musl);
    }
    println!(
        "cargo:warning=no {musl} target: the monitor is linked with static glibc and takes more memory per pod (hint: rustup target add {musl})"
    );
    Ok(target.to_owned())
}

fn build(
    root: &Path,
    out: &Path,
    target: &str,
    package: &str,
    bin: &str,
    more: &[&str],
) -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--profile", "monitor", "-p", package, "--bin", bin, "--target", target])
        .args(more)
        .arg("--target-dir")
        .arg(out)
        // What this cargo was started with (clippy's wrapper, the coverage flags) is not for them.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS")
        // The flags take the place of those in `.cargo/config.toml`, which name the folder of libseccomp for arm64.
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, out)?.join("\u{1f}"))
        .env("LIBSECCOMP_LIB_PATH", libseccomp(target));
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("cannot build {bin} for {target}: {status}").into());
    }
    Ok(out.join(target).join("monitor").join(bin))
}

/// Static programs, in which no path of this machine is: the same sources give the same bytes wherever they lie.
fn flags(root: &Path, out: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var("HOME")?).join(".cargo"),
    };
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    Ok(vec![
        "-Ctarget-feature=+crt-static".into(),
        "-Crelocation-model=static".into(),
        remap(&cargo_home, "/cargo"),
        remap(&root.canonicalize()?, "/hull"),
        // It may lie below the root: the last prefix that fits is used.
        remap(out, "/hull/target"),
    ])
}

/// The directory of libseccomp.a for `target`.
fn libseccomp(target: &str) -> String {
    let arch = target.split('-').next().unwrap_or_default();
    env::var(LIBSECCOMP).unwrap_or_else(|_| format!("/usr/lib/{arch}-linux-gnu"))
}
