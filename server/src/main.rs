// SPDX-License-Identifier: Apache-2.0
//! Hull: a Kubernetes container runtime in one binary. `hull serve` is the daemon that a kubelet
//! points `--container-runtime-endpoint` at; the other commands talk to it.

mod apparmor;
mod assets;
mod audit;
mod blocking;
mod budget;
mod calls;
mod cdi;
mod check;
mod cli;
mod config;
mod container;
mod cri;
mod daemon;
mod deadline;
mod denials;
mod error;
mod events;
mod exec;
mod explain;
mod limits;
mod logging;
mod metrics;
mod monitors;
mod network_claim;
mod node;
mod nri;
mod oci;
mod pod;
mod recover;
mod service;
mod spec;
mod stats;
mod storage;
mod store;
mod streaming;
mod systemd;
mod upkeep;
mod waits;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(words) = oci::asked() {
        return cli::oci(&words);
    }
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, path, index, name] = args.as_slice()
        && word == hull_nri::GUARD
    {
        let err = hull_nri::guard(path, index, name);
        // Nobody listens where that cannot be written.
        let why = hull_sys::text::shown(
            format!("cannot start NRI plugin {path}: {err}"),
            hull_sys::text::MESSAGE_BYTES_MAX,
        );
        let _gone = writeln!(std::io::stderr(), "error: {why}");
        return ExitCode::FAILURE;
    }
    cli::main(|config| daemon::serve(config).map_err(|err| daemon::shown(&err)))
}
