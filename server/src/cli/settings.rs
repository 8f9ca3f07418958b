// SPDX-License-Identifier: Apache-2.0
//! `hull config`, `hull reload` and `hull log-level`: the settings in the files and in the daemon.

use super::args::{ConfigWhat, LogLevel};
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds, ListArgs, Row};
use super::ps::row;
use super::{output, parse};
use crate::config;
use hull_proto::admin;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The fields of a setting that differs.
const FIELDS: &[Field] = &[
    Field::always("setting", "SETTING", Kind::Text, "Key of the setting."),
    Field::always(
        "running",
        "DAEMON",
        Kind::Text,
        "Value in the daemon, as TOML; empty if it has none. After `hull reload`, the value before.",
    ),
    Field::always(
        "file",
        "FILES",
        Kind::Text,
        "Value in the files, as TOML; empty if it has none.",
    ),
    Field::always(
        "effect",
        "EFFECT",
        Kind::Word,
        "`reload`: the daemon takes the value of the files over at once; `restart`: when it is restarted.",
    ),
    Field::wide("origin", "FROM", Kind::Text, "File and line of the value, or the defaults."),
];

/// The settings that differ between the daemon and its files.
pub(crate) const DIFFERENCES: Kinds =
    Kinds { verb: "config diff", fields: FIELDS, id: "setting", name: "setting" };
/// The settings that differed when the daemon read its files.
pub(crate) const RELOADED: Kinds =
    Kinds { verb: "reload", fields: FIELDS, id: "setting", name: "setting" };

/// Prints configurations, or what differs between them.
pub(crate) async fn config(
    file: Option<&Path>,
    connected: impl AsyncFnOnce() -> Result<Client>,
    what: &ConfigWhat,
) -> Result<()> {
    match what {
        ConfigWhat::Default => output::print(&config::default_file()),
        ConfigWhat::Show { daemon: false } => {
            let loaded = config::load(file, &[]).map_err(|source| Error::Config { source })?;
            output::print(&loaded.shown())
        }
        ConfigWhat::Show { daemon: true } => {
            let mut client = connected().await?;
            output::print(&client.admin.config(admin::ConfigRequest {}).await?.into_inner().toml)
        }
        ConfigWhat::Diff { list } => {
            let request = admin::ReloadRequest { dry_run: true };
            let found = connected().await?.admin.reload(request).await?.into_inner();
            let same = "the daemon has the settings of its files\n";
            print(&DIFFERENCES, &found.changes, same, list)
        }
    }
}

/// Has the daemon read its files again, and prints what differed.
pub(crate) async fn reload(mut client: Client, list: &ListArgs) -> Result<()> {
    let found = client.admin.reload(admin::ReloadRequest { dry_run: false }).await?.into_inner();
    let same = if found.policy_edited {
        "no setting has changed; the image policy has other rules, which are in force\n"
    } else {
        "nothing has changed\n"
    };
    print(&RELOADED, &found.changes, same, list)?;
    if found.policy_edited && !found.changes.is_empty() {
        output::to_stderr("the image policy has other rules, which are in force\n");
    }
    let waiting = found.changes.iter().filter(|of| !of.at_once).map(|of| of.key.as_str());
    let waiting: Vec<&str> = waiting.collect();
    if !waiting.is_empty() {
        output::to_stderr(&format!(
            "warning: {} {} a restart of the daemon: `systemctl restart hull`; pods run on meanwhile\n",
            waiting.join(", "),
            if waiting.len() == 1 { "needs" } else { "need" }
        ));
    }
    Ok(())
}

fn print(
    kinds: &Kinds,
    changes: &[admin::SettingChange],
    same: &str,
    list: &ListArgs,
) -> Result<()> {
    // A table of nothing says nothing.
    if changes.is_empty() && list.output.output.is_none() && list.output.format.is_none() {
        output::to_stderr(same);
        return Ok(());
    }
    format::list(kinds, changes.iter().map(change_row).collect(), list)
}

fn change_row(of: &admin::SettingChange) -> Row {
    let value = |value: &Option<String>| Value::from(value.as_deref().unwrap_or_default());
    row(json!({
        "setting": of.key,
        "running": value(&of.running),
        "file": value(&of.file),
        "effect": if of.at_once { "reload" } else { "restart" },
        "origin": of.origin,
    }))
}

/// Shows or changes the level of the daemon's log.
pub(crate) async fn log_level(mut client: Client, args: &LogLevel) -> Result<()> {
    if args.reset && args.time.is_some() {
        let why =
            "`--reset` goes back to the configured level at once, so there is no time to wait";
        return Err(parse::bad("--for", args.time.as_deref().unwrap_or_default(), why));
    }
    let time = args.time.as_ref().map(|text| parse::duration("--for", text)).transpose()?;
    let time_ms = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let request = admin::LogLevelRequest {
        filter: args.filter.clone().unwrap_or_default(),
        reset: args.reset,
        for_ms: time_ms.unwrap_or_default(),
    };
    let now = client.admin.log_level(request).await?.into_inner();
    let until = match (now.temporary, now.left_ms) {
        (false, _) => "as configured".to_owned(),
        (true, 0) => {
            format!("until the daemon ends or `hull log-level --reset`, then {}", now.configured)
        }
        (true, left) => {
            let seconds = Duration::from_millis(left).as_secs_f64().ceil();
            format!("for {seconds} s, then {}", now.configured)
        }
    };
    output::line(&format!("{} ({until})", now.filter))
}
