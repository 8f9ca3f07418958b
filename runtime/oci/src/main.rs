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
mod console;
mod create;
mod default_spec;
mod delete;
mod error;
mod exec;
mod features;
mod foreground;
mod home_dir;
mod hooks;
mod kill;
mod list;
mod log;
mod record;
mod resources;
mod sealed_copy;
mod seccomp;
mod setup;
mod start;
mod state;
mod status;
mod store;

use args::{Command, Invocation};
use error::{Error, Result};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = match args::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(err) => return log::report(None, &err),
    };
    match carry_out(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(err) => log::report(Some(&invocation.global), &err),
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
        Command::Events { id } => print(&resources::stats(global, id)?),
        Command::Features => print(&features::features()),
        Command::Spec { bundle } => default_spec::write(bundle.as_deref()).map(|()| 0),
        Command::Text(text) => print(text),
    }
}

fn print(text: &str) -> Result<u8> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| 0)
        .map_err(|err| Error::Call { source: hull_sys::Error::of_io(|| "write(stdout)")(err) })
}
