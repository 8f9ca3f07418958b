// SPDX-License-Identifier: Apache-2.0
//! The commands that look for causes, and have exit codes of their own.

use super::args::Diagnose;
use super::args::place::{InPod, Place};
use super::client::Client;
use super::error::{Error, Result};
use super::names::{Objects, Prefer};
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
            let account =
                account(connected().await?, &args.name, (&args.place, &args.in_pod)).await?;
            explain::print(&account, &args.output)?;
            Ok(if account.is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Diagnose::Trace(args) => {
            let account =
                account(connected().await?, &args.name, (&args.place, &args.in_pod)).await?;
            trace::print(&account, args)?;
            Ok(ExitCode::SUCCESS)
        }
        Diagnose::Doctor(args) => doctor::doctor(connected().await, &config(), args).await,
    }
}

/// The daemon's account of what `name` stands for. What is not there any more is found by its full name alone.
async fn account(
    mut client: Client,
    name: &str,
    (place, in_pod): (&Place, &InPod),
) -> Result<Account> {
    let name = match (&place.namespace, &in_pod.container) {
        (None, None) => name.to_owned(),
        (_, None) => {
            let objects = Objects::fetch_in(&mut client, place).await?;
            match objects.find(name, Prefer::Container) {
                Ok(object) => object.id().to_owned(),
                Err(err @ Error::Ambiguous { .. }) => return Err(err),
                Err(_) => full(place, &[name]),
            }
        }
        (_, Some(container)) => {
            let objects = Objects::fetch_in(&mut client, place).await?;
            match objects.find_in(name, Some(container)) {
                Ok(found) => found.id.clone(),
                Err(err @ Error::Ambiguous { .. }) => return Err(err),
                Err(_) => full(place, &[name, container]),
            }
        }
    };
    let request = admin::ExplainRequest { name };
    let answer = client.admin.explain(request).await?.into_inner();
    serde_json::from_str(&answer.account).map_err(|source| Error::Json { source })
}

/// The full name of something that is not on the node any more.
fn full(place: &Place, names: &[&str]) -> String {
    let parts: Vec<&str> =
        place.namespace.as_deref().into_iter().chain(names.iter().copied()).collect();
    parts.join("/")
}
