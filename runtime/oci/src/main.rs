// SPDX-License-Identifier: Apache-2.0
//! Hull's OCI runtime alone: `hull oci …`, or this program by itself, with runc's command line.
//!
//! ```text
//! arguments ─ sealed copy ─ command ─ [plan] ─ hull-init
//!                        └─ one directory per container below --root; see `store`
//! ```
//!
//! The rule: a command runs and exits; only the container itself keeps running. Every command reads a
//! container's state from the kernel.

mod args;
mod beyond_plan;
mod cgroup_place;
mod console;
mod create;
mod default_spec;
mod delete;
mod documents;
mod error;
mod events;
mod exec;
mod features;
mod foreground;
mod home_dir;
mod hooks;
mod joined_maps;
mod kill;
mod list;
mod listener;
mod log;
mod net_devices;
mod record;
mod resources;
mod rootless;
mod sealed_copy;
mod seccomp;
mod setup;
mod start;
mod state;
mod status;
mod store;
mod systemd;

use args::{Command, Invocation};
use error::{Error, Result};
use std::io::Write as _;
use std::process::ExitCode;

/// The exit code of a command that failed, and of an exec whose process did not run: as runc's.
const FAILED: u8 = 1;
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(err) => return log::report(None, &err, FAILED),
    };
    // The caller's words, without those of the program that the container runs: they may be secrets.
    log::debug(&invocation.global, name(&invocation.command));
    match carry_out(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            // A code of the process itself is below.
            let of_exec = matches!(invocation.command, Command::Exec(_));
            let code = if of_exec { EXEC_FAILED } else { FAILED };
            log::report(Some(&invocation.global), &err, code)
        }
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Create(_) => "create",
        Command::Run(_) => "run",
        Command::Start { .. } => "start",
        Command::Exec(_) => "exec",
        Command::Kill(_) => "kill",
        Command::Delete { .. } => "delete",
        Command::State { .. } => "state",
        Command::List(_) => "list",
        Command::Ps(_) => "ps",
        Command::Pause { .. } => "pause",
        Command::Resume { .. } => "resume",
        Command::Update(_) => "update",
        Command::Events(_) => "events",
        Command::Features => "features",
        Command::Spec { .. } => "spec",
        Command::Text(_) => "help",
    }
}

fn carry_out(invocation: &Invocation) -> Result<u8> {
    let global = &invocation.global;
    match &invocation.command {
        Command::Create(args) => {
            sealed_copy::reexec()?;
            create::create(global, args).map(|()| 0)
        }
        Command::Run(args) => {
            sealed_copy::reexec()?;
            create::run(global, args)
        }
        Command::Exec(args) => {
            sealed_copy::reexec()?;
            exec::exec(global, args)
        }
        Command::Start { id } => start::start(global, id).map(|()| 0),
        Command::Kill(args) => kill::kill(global, args).map(|()| 0),
        Command::Delete { id, force } => delete::delete(global, id, *force).map(|()| 0),
        Command::State { id } => print(&list::state(global, id)?),
        Command::List(args) => print(&list::list(global, args)?),
        Command::Ps(args) => print(&list::processes(global, args)?),
        Command::Pause { id } => resources::pause(global, id).map(|()| 0),
        Command::Resume { id } => resources::resume(global, id).map(|()| 0),
        Command::Update(args) => resources::update(global, args).map(|()| 0),
        Command::Events(args) => events::events(global, args).map(|()| 0),
        Command::Features => print(&features::features()),
        Command::Spec { bundle, rootless } => {
            default_spec::write(bundle.as_deref(), *rootless).map(|()| 0)
        }
        Command::Text(text) => print(text),
    }
}

fn print(text: &str) -> Result<u8> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| 0)
        .map_err(|err| Error::Call { source: hull_sys::Error::of_io(|| "write(stdout)")(err) })
}
