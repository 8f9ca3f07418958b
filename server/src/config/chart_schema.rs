// SPDX-License-Identifier: Apache-2.0
//! The schema of the Helm chart's values: its part for the settings is generated from the table of settings, so the
//! chart refuses what the daemon would refuse. Only a test writes and compares it.

use super::keys::{ANY_HANDLER, KEYS, Key, REGISTRY, value_at};
use super::reference::defaults;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/hull/values.schema.json")
}

/// The schema of one setting: its kind is that of its default, or of its example.
fn setting(key: &Key, defaults: &toml::Table) -> Value {
    let default = value_at(defaults, key.name);
    let example: toml::Table =
        toml::from_str(&format!("value = {}", key.example())).unwrap_or_default();
    let value = default.or_else(|| example.get("value"));
    let mut schema = match value {
        Some(toml::Value::String(_)) => json!({"type": "string"}),
        Some(toml::Value::Integer(_)) => json!({"type": "integer", "minimum": 0}),
        Some(toml::Value::Boolean(_)) => json!({"type": "boolean"}),
        Some(toml::Value::Array(_)) => json!({"type": "array", "items": {"type": "string"}}),
        other => panic!("{}: a setting of the kind {other:?} has no schema yet", key.name),
    };
    schema["description"] = json!(key.doc);
    match default {
        Some(default) => schema["default"] = json!(default),
        None => schema["examples"] = json!([value]),
    }
    schema
}

fn object() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {}})
}

/// The properties of the table with this dotted name, which is created if it is not there.
fn properties<'s>(schema: &'s mut Value, table: &str) -> &'s mut Map<String, Value> {
    let mut at = schema;
    let mut path = String::new();
    for part in table.split('.').filter(|part| !part.is_empty()) {
        path = if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
        if path == ANY_HANDLER {
            // Any name that a RuntimeClass may have in `handler`.
            at["propertyNames"] = json!({"pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"});
            if !at["additionalProperties"].is_object() {
                at["additionalProperties"] = object();
            }
            at = &mut at["additionalProperties"];
            continue;
        }
        let entry = || match path.as_str() {
            REGISTRY => {
                let mut items = object();
                items["required"] = json!(["host"]);
                json!({"type": "array", "items": items})
            }
            _ => object(),
        };
        let inside = at["properties"].as_object_mut().expect("a table has properties");
        at = inside.entry(part).or_insert_with(entry);
        if path == REGISTRY {
            at = &mut at["items"];
        }
    }
    at["properties"].as_object_mut().expect("a table has properties")
}

/// The schema of the whole configuration.
fn configuration() -> Value {
    let defaults = defaults();
    let mut schema = object();
    schema["description"] = json!(
        "Settings of Hull, with the names and nesting of docs/config.md; they become a file in /etc/hull/config.toml.d."
    );
    for key in KEYS {
        let (table, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        properties(&mut schema, table).insert(name.to_owned(), setting(key, &defaults));
    }
    schema
}

#[test]
fn the_schema_of_the_chart_has_every_setting() {
    let text = fs::read_to_string(place()).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["properties"]["config"] = configuration();
    let fresh = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
    if std::env::var_os("HULL_BLESS").is_some() {
        fs::write(place(), &fresh).unwrap();
    }
    let have = fs::read_to_string(place()).unwrap();
    assert!(
        have == fresh,
        "charts/hull/values.schema.json is stale: run this test with HULL_BLESS=1"
    );
}

#[test]
fn a_setting_is_found_in_the_schema_by_its_name() {
    let schema = configuration();
    let config = &schema["properties"];
    assert_eq!(config["log"]["properties"]["format"]["default"], "text");
    assert_eq!(
        config["network"]["properties"]["cni"]["properties"]["networks_max"]["type"],
        "integer"
    );
    assert_eq!(config["network"]["properties"]["pod_cidr"]["items"]["type"], "string");
    let handlers = &config["runtime"]["properties"]["handlers"];
    assert_eq!(
        handlers["additionalProperties"]["properties"]["cgroup_writable"]["type"],
        "boolean"
    );
    assert_eq!(handlers["additionalProperties"]["additionalProperties"], false);
    let entry = &config["image"]["properties"]["registry"]["items"];
    assert_eq!(entry["properties"]["plain_http"]["type"], "boolean");
    assert_eq!(entry["additionalProperties"], false);
}
