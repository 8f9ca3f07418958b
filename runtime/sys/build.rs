// SPDX-License-Identifier: Apache-2.0
//! The pause program brings its own entry point: no C start-up files, no libraries.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PAUSE").is_some() {
        for arg in
            ["-nostartfiles", "-nostdlib", "-static", "-Wl,-z,norelro", "-Wl,--build-id=none"]
        {
            println!("cargo:rustc-link-arg-bin=pause={arg}");
        }
    }
}
