// SPDX-License-Identifier: Apache-2.0
//! `state`, `list` and `ps`: what there is, as text.

use crate::args::{Global, List, Ps};
use crate::error::{Error, Result};
use crate::log::{self, chain};
use crate::record::Record;
use crate::state::Status;
use crate::status::{self, failed};
use crate::store::{self, Dir};
use hull_sys::text::{self, shown_json};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;

/// The state as the runtime spec has it, with runc's additions, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: String,
    bundle: &'a str,
    rootfs: &'a str,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'static str,
}

fn shown(record: &Record, status: Status) -> Shown<'_> {
    let lives = matches!(status, Status::Created | Status::Running | Status::Paused);
    Shown {
        oci_version: &record.oci_version,
        id: &record.id,
        pid: record.first.filter(|_| lives).map_or(0, |first| first.pid),
        status: status.to_string(),
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: &record.annotations,
        owner: "root",
    }
}

fn text_of(of: &impl Serialize, pretty: bool) -> String {
    let text = if pretty { serde_json::to_string_pretty(of) } else { serde_json::to_string(of) };
    // Texts and numbers: nothing that could fail.
    shown_json(&format!("{}\n", text.unwrap_or_default())).into_owned()
}

pub(crate) fn state(global: &Global, id: &str) -> Result<String> {
    let dir = Dir::open(&global.root, id)?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: id.into() })?;
    let (status, _) = status::of(&dir, &record)?;
    Ok(text_of(&shown(&record, status), true))
}

pub(crate) fn list(global: &Global, args: &List) -> Result<String> {
    let mut records = Vec::new();
    for id in store::ids(&global.root, global.is_root_given)? {
        let dir = match Dir::open(&global.root, &id) {
            // Deleted meanwhile.
            Err(Error::NoContainer { .. }) => continue,
            other => other?,
        };
        match dir.record() {
            Ok(Some(record)) => {
                let status = status::of(&dir, &record)?.0;
                records.push((record, status));
            }
            Ok(None) => {}
            // The others are listed all the same.
            Err(error) => {
                log::warn(global, &format!("container `{id}` is not listed: {}", chain(&error)))
            }
        }
    }
    let states: Vec<_> = records.iter().map(|(record, status)| shown(record, *status)).collect();
    if args.quiet {
        return Ok(states.iter().map(|of| format!("{}\n", cell(of.id))).collect());
    }
    if args.json {
        return Ok(text_of(&states, false));
    }
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from)];
    for of in &states {
        let pid = of.pid.to_string();
        table.push([of.id, &pid, &of.status, of.bundle, of.created, of.owner].map(cell));
    }
    Ok(in_columns(&table))
}

fn cell(text: &str) -> String {
    text::shown(text, text::MESSAGE_BYTES_MAX)
}

fn in_columns(table: &[[String; 6]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let mut lines = String::new();
    for row in table {
        for (column, cell) in row.iter().enumerate().take(5) {
            lines.push_str(&format!("{cell:<width$}   ", width = width(column)));
        }
        lines.push_str(&row[5]);
        lines.push('\n');
    }
    lines
}

pub(crate) fn processes(global: &Global, args: &Ps) -> Result<String> {
    let dir = Dir::open(&global.root, &args.id)?;
    let record = dir.record()?.ok_or_else(|| Error::NoContainer { id: args.id.clone() })?;
    let mut pids = status::cgroup(&record)?.procs().map_err(failed(&args.id))?;
    pids.sort_unstable();
    if args.json {
        return Ok(format!("{}\n", json!(pids)));
    }
    let mut ps = Command::new("ps");
    if args.options.is_empty() {
        ps.arg("-ef");
    } else {
        ps.args(&args.options);
    }
    let output =
        ps.output().map_err(hull_sys::Error::of_io(|| "execve(ps)")).map_err(Error::call)?;
    let output = String::from_utf8_lossy(&output.stdout);
    let title = output.lines().next().unwrap_or_default();
    let column = title.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or(Error::BadValue {
        value: args.options.join(" "),
        what: "options of ps: there is no column PID",
    })?;
    let ours = output.lines().skip(1).filter(|line| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.binary_search(&pid).is_ok())
    });
    let line = |line| format!("{}\n", text::shown(line, text::MESSAGE_BYTES_MAX));
    Ok([title].into_iter().chain(ours).map(line).collect())
}
