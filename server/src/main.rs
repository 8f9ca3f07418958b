// SPDX-License-Identifier: Apache-2.0
//! Hull: a Kubernetes container runtime in one binary. `hull serve` is the daemon that a kubelet
//! points `--container-runtime-endpoint` at; the other commands talk to it.

mod apparmor;
mod audit;
mod check;
mod cli;
mod config;
mod container;
mod cri;
mod daemon;
mod diagnostics;
mod doctor;
#[cfg(test)]
mod documented;
mod embedded;
mod error;
mod history;
mod limits;
mod metrics;
mod monitors;
mod node;
mod nri;
mod observe;
mod oci_spec;
mod pod;
mod records;
mod storage;
mod streaming;
mod systemd;
mod tracer;
mod userns;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(words) = embedded::oci::requested() {
        return cli::oci(&words);
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let words: Vec<Option<&str>> = args.iter().map(|word| word.to_str()).collect();
    if let [_, Some(word), Some(path), Some(index), Some(name)] = *words
        && word == hull_nri::START_PLUGIN
    {
        let err = hull_nri::exec_plugin(path, index, name);
        // Nobody listens where that cannot be written.
        let why = hull_sys::text::shown(
            format!("cannot start NRI plugin {path}: {err}"),
            hull_sys::text::MESSAGE_BYTES_MAX,
        );
        let _gone = writeln!(std::io::stderr(), "error: {why}");
        return ExitCode::FAILURE;
    }
    cli::main(|loaded, log_level| {
        daemon::serve(loaded, log_level).map_err(|err| daemon::shown(&err))
    })
}
