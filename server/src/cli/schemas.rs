// SPDX-License-Identifier: Apache-2.0
//! `hull schema`: JSON schemas of the output of commands.

use super::error::{Error, Result};
use super::format::{Kinds, schema};
use super::{
    disk, doctor, events, host_check, images, info, live, output, play, ports, processes, ps,
    settings, stats, stored, verify,
};
use serde_json::{Map, Value, json};

/// All kinds of listed objects.
pub(crate) const KINDS: &[&Kinds] = &[
    &ps::CONTAINERS,
    &ps::PODS,
    &images::IMAGES,
    &images::STEPS,
    &stats::STATS,
    &processes::PROCESSES,
    &ports::PORTS,
    &events::EVENTS,
    &disk::USAGE,
    &info::METRICS,
    &play::PLAYED,
    &host_check::FINDINGS,
    &doctor::FINDINGS,
    &live::LOAD,
    &settings::DIFFERENCES,
    &settings::RELOADED,
    &verify::LAYERS,
    &stored::PULLED,
    &stored::IMPORTED,
];

/// The commands that print one document, and the keys that it always has.
const DOCUMENTS: &[(&str, &[&str])] = &[
    ("inspect", &["status", "info"]),
    ("inspectp", &["status", "info"]),
    ("inspecti", &["image", "info"]),
    ("imagefsinfo", &["imageFilesystems", "containerFilesystems"]),
    (
        "info",
        &[
            "name",
            "version",
            "kernel",
            "architecture",
            "hostname",
            "cpus",
            "cgroup",
            "cgroupDriver",
            "conditions",
            "pods",
            "containers",
            "images",
            "features",
            "handlers",
            "config",
        ],
    ),
    ("version", &["client", "daemon"]),
    (
        "explain",
        &["version", "kind", "id", "name", "state", "isWell", "findings", "timelines", "atNs"],
    ),
    ("trace", &["name", "id", "beganNs", "tookUs", "stages"]),
    ("audit", &["pod", "containers"]),
];

/// Prints the schema of one command, or those of all by command.
pub(crate) fn print(command: Option<&str>) -> Result<()> {
    let mut all = schemas();
    let document = match command {
        None => Value::Object(all),
        Some(name) => all.remove(name).ok_or_else(|| Error::NotFound {
            kind: "a schema for command",
            name: name.to_owned(),
        })?,
    };
    output::json(&format!("{document:#}\n"))
}

/// The schema of the output of each command with `-o json`, by command.
fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for kind in KINDS {
        all.insert(kind.verb.to_owned(), json!({"type": "array", "items": schema::of(kind)}));
    }
    for (verb, keys) in DOCUMENTS {
        let document = json!({"type": "object", "required": keys});
        all.insert((*verb).to_owned(), document);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::usage;
    use super::*;

    #[test]
    fn every_command_with_objects_has_a_schema() {
        let known = schemas();
        for command in usage::command().get_subcommands() {
            let has_output = command.get_arguments().any(|arg| arg.get_id() == "output");
            let is_other = ["statsp", "export"].contains(&command.get_name());
            let name = command.get_name();
            assert!(!has_output || is_other || known.contains_key(name), "{name} has no schema");
        }
    }
}
