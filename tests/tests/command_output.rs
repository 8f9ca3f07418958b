// SPDX-License-Identifier: Apache-2.0
//! Output of the command line: schemas, formats, usage errors, and the table of commands in docs/cli.md.

use hull_tests::shell::finish;
use hull_tests::{Node, fixture, paths};
use serde_json::Value;
use std::process::Command;

fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.hull(args).good()).unwrap_or_else(|err| panic!("{args:?}: {err}"))
}

/// Compares a value with the parts of JSON schema that `hull schema` uses.
fn check(value: &Value, schema: &Value, at: &str) {
    let is = |name: &str| match name {
        "array" => value.is_array(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: type {other}"),
    };
    let of = &schema["type"];
    let holds = match (of.as_str(), of.as_array()) {
        (Some(name), _) => is(name),
        (None, Some(names)) => names.iter().filter_map(Value::as_str).any(is),
        (None, None) => panic!("{at}: type {of}"),
    };
    assert!(holds, "{at}: {value} is not of type {}", schema["type"]);
    for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
        check(item, &schema["items"], &format!("{at}[]"));
    }
    let Some(map) = value.as_object() else { return };
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(map.contains_key(key), "{at} has no {key}: {value}");
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, inner) in map {
        let schema =
            properties.get(key).unwrap_or_else(|| panic!("{at}: {key} is not in the schema"));
        check(inner, schema, &format!("{at}.{key}"));
    }
}

#[tokio::test]
async fn every_command_prints_json_that_fits_its_schema() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "all", "-p", "9001", "-l", "a=b", &image, "sleep", "1000"];
    let _id = node.hull(&run).good();
    let _ran = node.hull(&["run", "--name", "done", &image, "false"]);
    let archive = node.host_dir().join("archive.tar").display().to_string();
    let _out = node.hull(&["export", "-o", &archive, &image]).good();
    let commands: &[(&str, &[&str])] = &[
        ("ps", &["ps", "-a"]),
        ("pods", &["pods"]),
        ("images", &["images"]),
        ("history", &["history", &image]),
        ("stats", &["stats"]),
        ("stats", &["statsp"]),
        ("top", &["top", "all"]),
        ("port", &["port", "all"]),
        ("df", &["df"]),
        ("metricsp", &["metricsp"]),
        ("inspect", &["inspect", "all"]),
        ("inspectp", &["inspectp", "all"]),
        ("inspecti", &["inspecti", &image]),
        ("imagefsinfo", &["imagefsinfo"]),
        ("info", &["info"]),
        ("version", &["version"]),
        ("audit", &["audit", "all"]),
        ("images verify", &["images", "verify"]),
        ("explain", &["explain", "all"]),
        ("trace", &["trace", "all"]),
        ("top --once", &["top", "--once"]),
        ("pull", &["pull", "-q", &image]),
        ("import", &["import", &archive]),
    ];
    // They have no other formats, or take a second each time.
    let only_json: [&[&str]; 3] = [&["audit", "all"], &["trace", "all"], &["top", "--once"]];
    for (schema, args) in commands {
        let schema = json(&node, &["schema", schema]);
        let value = json(&node, &[*args, &["-o", "json"]].concat());
        let is_empty = value.as_array().is_some_and(Vec::is_empty);
        assert!(!is_empty, "{args:?} prints nothing, so nothing is tested");
        check(&value, &schema, &args.join(" "));
        // The other formats have the same objects.
        for format in ["yaml", "jsonl", "name"] {
            if !only_json.contains(args) {
                let _text = node.hull(&[*args, &["-o", format]].concat()).good();
            }
        }
    }
    let _named = node.hull(&["rm", "-f", "all", "done"]).good();
}

#[tokio::test]
async fn tables_are_filtered_and_templates_are_those_of_docker() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id =
        node.hull(&["run", "-d", "--name", "one", "-l", "app=x", &image, "sleep", "1000"]).good();
    let _id = node.hull(&["run", "-d", "--name", "two", &image, "sleep", "1000"]).good();
    let good = |args: &[&str]| node.hull(args).good();
    assert_eq!(
        good(&["ps", "--format", "{{.Name}} {{.State}}", "--filter", "label=app=x"]),
        "one running\n"
    );
    assert_eq!(good(&["ps", "-o", "name", "--filter", "name=tw"]), "hull/two/two\n");
    assert_eq!(good(&["ps", "-n", "nothing", "-q"]), "");
    let wide = good(&["ps", "-o", "wide", "--no-trunc"]);
    assert!(wide.contains("IP") && wide.contains("10.213."), "{wide}");
    let bad = node.hull(&["ps", "--filter", "colour=red"]);
    assert!(bad.code == 1 && bad.stderr.contains("labels"), "{bad:?}");
    let bad = node.hull(&["ps", "-o", "xml"]);
    assert!(bad.code == 2 && bad.stderr.contains("yaml"), "{bad:?}");
    let inspected = good(&["inspect", "--format", "{{.status.state}}", "one", "two"]);
    assert_eq!(inspected, "CONTAINER_RUNNING\nCONTAINER_RUNNING\n");
    let several: Value = serde_json::from_str(&good(&["inspect", "one", "two"])).unwrap();
    let created = several[0]["status"]["createdAt"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
    let found = good(&["images", "busy"]);
    assert!(found.contains("busybox"), "a part of a name is enough: {found}");
    let _named = good(&["rm", "-f", "one", "hull/two"]);
}

#[tokio::test]
async fn logs_of_several_containers_have_prefixes_and_times_select_lines() {
    let node = Node::start().await;
    let image = fixture::busybox();
    for name in ["a", "b"] {
        let ran = node.hull(&["run", "--name", name, &image, "echo", name]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    assert_eq!(node.hull(&["logs", "a", "b"]).good(), "[a/a] a\n[b/b] b\n");
    assert_eq!(node.hull(&["logs", "--since", "1h", "a"]).good(), "a\n");
    assert_eq!(node.hull(&["logs", "--until", "1h", "a"]).good(), "");
    assert_eq!(node.hull(&["logs", "--all-containers", "a"]).good(), "a\n");
    let none = node.hull(&["logs", "--previous", "a"]);
    assert!(none.code == 1 && none.stderr.contains("previous"), "{none:?}");
    let _named = node.hull(&["start", "a"]).good();
    let _named = node.hull(&["rm", "-f", "a", "b"]).good();
}

#[test]
fn usage_errors_of_commands_with_the_code_of_a_container_are_125() {
    let hull = |args: &[&str]| finish(Command::new(paths::hull()).args(args));
    for args in [&["run", "--no-such"][..], &["exec", "web"], &["attach"], &["run"]] {
        assert_eq!(hull(args).code, 125, "{args:?}");
    }
    for args in [&["ps", "--no-such"][..], &["nothing"], &["rm"]] {
        let ran = hull(args);
        assert_eq!(ran.code, 2, "{args:?}");
        assert!(!ran.stderr.contains("--socket"), "{ran:?}");
    }
    assert_eq!(hull(&["run", "--help"]).code, 0);
}

#[test]
fn commands_that_hull_does_not_have_name_the_tool() {
    let page = std::fs::read_to_string(paths::root().join("docs/cli.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| *line != "## Commands that hull does not have")
        .skip(4)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        for name in row[0].split(", ").map(|name| name.trim_matches('`')) {
            let ran = finish(Command::new(paths::hull()).arg(name));
            assert_eq!(ran.code, 2, "{name}");
            assert!(ran.stderr.contains(row[1]), "{name}: {ran:?}");
            assert!(ran.stderr.contains(&format!("hint: {}", row[2])), "{name}: {ran:?}");
        }
    }
}

#[test]
fn every_command_of_the_page_exists() {
    let page = std::fs::read_to_string(paths::root().join("docs/cli.md")).unwrap();
    let rows = page
        .lines()
        .skip_while(|line| *line != "## Commands")
        .skip(4)
        .take_while(|line| line.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let names = row.trim_matches('|').split('|').next().unwrap_or_default();
        for name in names.split(", ").map(|name| name.trim().trim_matches('`')) {
            let ran = finish(Command::new(paths::hull()).args([name, "--help"]));
            assert!(ran.code == 0 && !ran.stdout.is_empty(), "{name}: {ran:?}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[tokio::test]
async fn completion_has_live_names() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let _id = node.hull(&["run", "-d", "--name", "live", &image, "sleep", "1000"]).good();
    assert_eq!(node.hull(&["__complete", "--", "exec"]).good(), "live\n");
    assert!(node.hull(&["__complete", "--", "rmi"]).good().contains("busybox"));
    assert_eq!(node.hull(&["__complete", "--", "check"]).good(), "");
    let _named = node.hull(&["rm", "-f", "live"]).good();
    // Without a daemon there is nothing, and no error in the middle of a line.
    let nowhere = ["--socket", "/nowhere", "__complete", "--", "exec"];
    let ran = finish(Command::new(paths::hull()).args(nowhere));
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
}
