// SPDX-License-Identifier: Apache-2.0
//! containerd on a machine, to compare Hull with: the programs of `scripts/baselines`, with their default paths.

use super::cgroups::RUNTIME;
use super::hull;
use super::layout::{CNI_BIN, CNI_CONF, DEBIAN_CNI, Runtime};
use super::machine::Machine;
use super::service::Service;
use crate::cri::Cri;
use crate::expect::ExpectExt;
use crate::paths;
use std::fs;
use std::path::Path;

/// Starts containerd and waits until it answers. `mirrors` is the directory of the hosts of registries.
pub async fn start(machine: &Machine, mirrors: &Path) -> Service {
    let programs = paths::root().join(".cache/baselines");
    let program = programs.join("containerd");
    assert!(program.is_file(), "{} is not there: `make baselines` builds it", program.display());
    let file = machine.dir().join("containerd.toml");
    fs::write(&file, configuration(machine, &programs, mirrors))
        .or_fail("write containerd's config");
    let mut command = machine.command(RUNTIME, program);
    command
        .arg("--config")
        .arg(file)
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()));
    let mut service = Service::start(machine, "containerd", command);
    let cri = Cri::at(&machine.path(Runtime::Containerd.socket()), &machine.dir().join("log/pods"));
    hull::wait(&mut service, &cri).await;
    service
}

/// The configuration; all else is containerd's default. The OOM score is left alone where it may not be lowered.
fn configuration(machine: &Machine, programs: &Path, mirrors: &Path) -> String {
    format!(
        r#"version = 3
[plugins.'io.containerd.internal.v1.opt']
path = "/var/lib/containerd/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = {mirrors:?}
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{CNI_BIN:?}, {DEBIAN_CNI:?}]
conf_dir = {CNI_CONF:?}
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = {runc:?}
Root = "/run/runc-{name}"
SystemdCgroup = false
"#,
        runc = programs.join("runc"),
        name = machine.cgroups().root().trim_start_matches('/'),
    )
}
