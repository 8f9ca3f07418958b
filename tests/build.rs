// SPDX-License-Identifier: Apache-2.0
//! Builds the auditor, a static program that `tests/escape` embeds and puts into images, by a cargo of
//! its own: it needs another target (static musl, where it is installed).

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for path in ["tests/auditor", "tests/build.rs", "runtime/sys", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let target = target()?;
    let built = out.join("build");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(&root)
        .args(["build", "--profile", "monitor", "-p", "hull-auditor", "--target", &target])
        .arg("--target-dir")
        .arg(&built)
        // Small matters less here than that it is there soon.
        .env("CARGO_PROFILE_MONITOR_LTO", "off")
        .env("CARGO_PROFILE_MONITOR_CODEGEN_UNITS", "16")
        // What this cargo was started with (clippy's wrapper, the coverage flags) is not for it.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("cannot build the auditor for {target}: {status}").into());
    }
    let program = built.join(target).join("monitor/hull-auditor");
    println!("cargo:rustc-env=HULL_AUDITOR_PROGRAM={}", program.display());
    Ok(())
}

/// The musl target of this architecture where its standard library is installed, else glibc's, static too.
fn target() -> Result<String, Box<dyn Error>> {
    let musl = format!("{}-unknown-linux-musl", env::var("CARGO_CFG_TARGET_ARCH")?);
    let shown = Command::new(env::var("RUSTC")?)
        .args(["--print", "target-libdir", "--target", &musl])
        .output()?;
    let libs = String::from_utf8(shown.stdout)?;
    Ok(if Path::new(libs.trim()).is_dir() { musl } else { env::var("TARGET")? })
}
