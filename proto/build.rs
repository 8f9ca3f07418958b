// SPDX-License-Identifier: Apache-2.0
//! Compiles the two interfaces with a protobuf compiler in Rust, so that a builder needs no protoc.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cri");
    if std::env::var_os("CARGO_FEATURE_CRI").is_none() {
        // The monitor links this crate without the gRPC half.
        return Ok(());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["cri"])?;
    compiler.open_files(["runtime_v1.proto", "hull_v1.proto"])?;
    std::fs::write(out.join("interface.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // A verb that is not written yet answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        // Records on disk and `hull inspect` hold CRI messages as JSON.
        .message_attribute(".runtime.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".runtime.v1", "#[serde(rename_all = \"camelCase\", default)]")
        // Their Debug would print passwords: lib.rs writes one that does not.
        .skip_debug([".runtime.v1.AuthConfig", ".hull.v1.PullRequest", ".hull.v1.VerifyRequest"])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
