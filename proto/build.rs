// SPDX-License-Identifier: Apache-2.0
//! Compiles the interfaces with a protobuf compiler in Rust, so that a builder needs no protoc.

#![allow(clippy::print_stdout, reason = "how a build script speaks to cargo")]

use prost_types::FileDescriptorSet;
use std::fmt::Write as _;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cri");
    println!("cargo:rerun-if-changed=nri");
    println!("cargo:rerun-if-changed=containerd");
    if std::env::var_os("CARGO_FEATURE_NRI").is_some() {
        plugins()?;
    }
    if std::env::var_os("CARGO_FEATURE_CRI").is_none() {
        // The monitor links this crate without the gRPC half.
        return Ok(());
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut compiler = protox::Compiler::new(["cri"])?;
    compiler.open_files(["runtime_v1.proto", "hull_v1.proto"])?;
    std::fs::write(out.join("interface.bin"), compiler.encode_file_descriptor_set())?;
    let mut methods = methods(&compiler.file_descriptor_set())?;
    tonic_prost_build::configure()
        // A verb that is not written yet answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        // Records on disk and `hull inspect` hold CRI messages as JSON.
        .message_attribute(".runtime.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".runtime.v1", "#[serde(rename_all = \"camelCase\", default)]")
        // Their Debug would print passwords: lib.rs writes one that does not.
        .skip_debug([".runtime.v1.AuthConfig", ".hull.v1.PullRequest", ".hull.v1.VerifyRequest"])
        .compile_fds(compiler.file_descriptor_set())?;
    methods.push_str(&containerd()?);
    std::fs::write(out.join("methods.rs"), format!("&[\n{methods}]"))?;
    Ok(())
}

/// The methods of all services, each as a line of Rust: path, interface and name.
fn methods(set: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut lines = String::new();
    for file in &set.file {
        let interface = match file.package() {
            "runtime.v1" => "cri",
            "hull.v1" => "hull",
            _ => "containerd",
        };
        for service in &file.service {
            for method in &service.method {
                let (package, service, name) = (file.package(), service.name(), method.name());
                writeln!(
                    lines,
                    "Method {{ path: \"/{package}.{service}/{name}\", interface: \"{interface}\", name: \"{name}\" }},"
                )?;
            }
        }
    }
    Ok(lines)
}

/// The methods of containerd that cAdvisor calls. Returns their list.
fn containerd() -> Result<String, Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["containerd"])?;
    compiler.open_files(["version_v1.proto", "containers_v1.proto", "tasks_v1.proto"])?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(methods(&compiler.file_descriptor_set())?)
}

/// The messages of the plugins' interface. Its services are not gRPC.
fn plugins() -> Result<(), Box<dyn std::error::Error>> {
    let mut compiler = protox::Compiler::new(["nri"])?;
    compiler.open_files(["nri_v1alpha1.proto", "ttrpc.proto"])?;
    tonic_prost_build::configure()
        // What plugins asked for is kept in a container's record.
        .message_attribute(".nri.v1alpha1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".nri.v1alpha1", "#[serde(rename_all = \"camelCase\", default)]")
        // Sorted, so that what is sent and logged does not depend on chance.
        .btree_map(".nri.v1alpha1")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
