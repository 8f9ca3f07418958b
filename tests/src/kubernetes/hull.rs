// SPDX-License-Identifier: Apache-2.0
//! `hull serve` on a machine, with Hull's own default paths: the machine has them for itself.

use super::cgroups::RUNTIME;
use super::machine::Machine;
use super::service::Service;
use crate::cri::Cri;
use crate::eventually::{deadline, eventually_within};
use crate::expect::ExpectExt;
use std::fs;

/// Hull's socket on the machine.
pub const SOCKET: &str = "/run/hull/hull.sock";

/// Writes Hull's configuration. `more` is TOML that is merged into the default.
pub fn configure(machine: &Machine, more: &str) {
    let dir = machine.dir().join("hull.toml.d");
    fs::create_dir_all(&dir).or_fail("make the directory of more config");
    let text = format!(
        "[log]\nlevel = \"debug\"\n[cgroup]\nparent = \"{}/other\"\n",
        machine.cgroups().root()
    );
    fs::write(machine.dir().join("hull.toml"), text).or_fail("write Hull's config");
    fs::write(dir.join("more.toml"), more).or_fail("write more config");
}

/// Starts Hull and waits until it answers.
pub async fn start(machine: &Machine) -> Service {
    let mut command = machine.command(RUNTIME, machine.dir().join("hull"));
    command.args(["serve", "--config"]).arg(machine.dir().join("hull.toml"));
    let mut service = Service::start(machine, "hull", command);
    wait(&mut service, &client(machine)).await;
    service
}

/// Waits until a container runtime answers.
pub async fn wait(service: &mut Service, cri: &Cri) {
    eventually_within(deadline(), "the container runtime answers", || {
        service.assert_running();
        let mut runtime = cri.runtime.clone();
        async move {
            let asked = runtime.version(hull_proto::cri::VersionRequest::default()).await;
            asked.map(drop).map_err(|status| status.to_string())
        }
    })
    .await;
}

/// A client of the machine's Hull. Its pods have their logs where the kubelet puts them.
#[must_use]
pub fn client(machine: &Machine) -> Cri {
    Cri::at(&machine.path(SOCKET), &machine.dir().join("log/pods"))
}
