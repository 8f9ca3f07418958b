// SPDX-License-Identifier: Apache-2.0
//! The commands that look for causes, and have exit codes of their own.

use super::args::Diagnose;
use super::client::Client;
use super::error::{Error, Result};
use super::{doctor, explain, trace};
use crate::config::Config;
use crate::observe::account::Account;
use hull_proto::admin;
use std::process::ExitCode;

/// Runs one of them. `connected` connects to the daemon, `config` reads the configuration.
pub(crate) async fn run(
    connected: impl AsyncFnOnce() -> Result<Client>,
    config: impl FnOnce() -> Config,
    command: &Diagnose,
) -> Result<ExitCode> {
    match command {
        Diagnose::Explain(args) => {
            let account = account(connected().await?, &args.name).await?;
            explain::print(&account, &args.output)?;
            Ok(if account.is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Diagnose::Trace(args) => {
            let account = account(connected().await?, &args.name).await?;
            trace::print(&account, args)?;
            Ok(ExitCode::SUCCESS)
        }
        Diagnose::Doctor(args) => doctor::doctor(connected().await, &config(), args).await,
    }
}

/// The daemon's account of what `name` stands for.
async fn account(mut client: Client, name: &str) -> Result<Account> {
    let request = admin::ExplainRequest { name: name.to_owned() };
    let answer = client.admin.explain(request).await?.into_inner();
    serde_json::from_str(&answer.account).map_err(|source| Error::Json { source })
}
