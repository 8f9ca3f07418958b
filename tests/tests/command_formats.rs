// SPDX-License-Identifier: Apache-2.0
//! Every command that prints objects, in each of its formats; and tables at terminals of several widths.

use hull_tests::terminal::Terminal;
use hull_tests::{ExpectExt as _, Node, eventually, fixture, node};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::process::{Command, Stdio};

/// All formats of `-o` that print objects.
const FORMATS: [&str; 7] = ["table", "wide", "json", "jsonl", "yaml", "name", "go-template={{.}}"];

/// A command by the name of its schema, its words, and the lines that `-o name` begins with; none for those of its JSON.
struct Case {
    schema: &'static str,
    words: Vec<String>,
    names: Option<Vec<String>>,
}

fn case(schema: &'static str, words: &[&str], names: Option<&[&str]>) -> Case {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Case { schema, words: owned(words), names: names.map(owned) }
}

/// The documents of a command, and the lists, with something to print in each.
fn cases(image: &str, archive: &str, manifest: &str) -> Vec<Case> {
    let container = "hull/all/all";
    vec![
        case("ps", &["ps"], Some(&[container])),
        case("pods", &["pods"], Some(&["hull/all"])),
        case("images", &["images"], Some(&[image])),
        case("history", &["history", image], None),
        case("stats", &["stats", "--over-ms", "10"], Some(&["hull/all", container])),
        case("stats", &["statsp", "--over-ms", "10"], Some(&["hull/all"])),
        case("top", &["top", "all"], None),
        case("port", &["port", "all"], None),
        case("df", &["df"], Some(&["images", "containers"])),
        case("metricsp", &["metricsp"], None),
        case("inspect", &["inspect", "all"], Some(&[container])),
        case(
            "inspect",
            &["inspect", "all", "hull/all", image],
            Some(&[container, "hull/all", image]),
        ),
        case("inspectp", &["inspectp", "all"], Some(&["hull/all"])),
        case("inspecti", &["inspecti", image], Some(&[image])),
        case("imagefsinfo", &["imagefsinfo"], None),
        case("info", &["info"], None),
        case("version", &["version"], Some(&[concat!("hull ", env!("CARGO_PKG_VERSION"))])),
        case("images verify", &["images", "verify"], None),
        case("explain", &["explain", "all"], Some(&["hull/all"])),
        case("top --once", &["top", "--once"], Some(&[container])),
        case("pull", &["pull", "-q", image], Some(&[image])),
        case("import", &["import", archive], Some(&[image])),
        case("play kube", &["play", "kube", "--replace", manifest], Some(&["default/played"])),
        case("check", &["check"], None),
        case("audit", &["audit", "all"], Some(&["all/all"])),
        case("trace", &["trace", "all"], Some(&["hull/all"])),
    ]
}

/// Commands with a schema: one that waits; one that finds nothing on a node without leaks; and
/// those of changed settings, which `reload` tests.
const OTHERS: [&str; 4] = ["events", "doctor", "config diff", "reload"];

#[tokio::test]
async fn every_command_prints_something_in_each_of_its_formats() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let run = ["run", "-d", "--name", "all", "-p", "9001", "-l", "a=b", &image, "sleep", "1000"];
    let _id = node.hull(&run).good();
    let archive = node.host_dir().join("archive.tar").display().to_string();
    let _out = node.hull(&["export", "-o", &archive, &image]).good();
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: played}}\nspec:\n  restartPolicy: Never\n  containers:\n  - {{name: app, image: '{image}', command: ['true']}}\n"
    );
    let manifest = node::write(&node.host_dir(), "played.yaml", &manifest).display().to_string();
    let full = full_name(&node, &image);
    let cases = cases(&full, &archive, &manifest);
    let schemas: Value = serde_json::from_str(&node.hull(&["schema"]).good()).or_fail("read JSON");
    let with_schema: BTreeSet<&str> =
        schemas.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let tested: BTreeSet<&str> = cases.iter().map(|case| case.schema).chain(OTHERS).collect();
    assert_eq!(with_schema, tested, "a command with objects that is not tested here");
    for case in &cases {
        let words: Vec<&str> = case.words.iter().map(String::as_str).collect();
        for format in FORMATS {
            let ran = node.hull(&[&words[..], &["-o", format]].concat());
            // `check` and `explain` exit with 1 if something is wrong.
            assert!(ran.code <= 1 && !ran.stderr.contains("error:"), "{words:?} {format}: {ran:?}");
            check(case, format, &ran.stdout);
        }
        // The pod of the manifest is not among those of the lists.
        let _named = node.hull(&["rm", "-f", "default/played"]);
    }
    let _named = node.hull(&["rm", "-f", "all"]).good();
}

/// The name of an image in full, as lists have it.
fn full_name(node: &Node, image: &str) -> String {
    let all: Value = serde_json::from_str(&node.hull(&["images", image, "-o", "json"]).good())
        .or_fail("read JSON");
    all[0]["name"].as_str().unwrap_or_default().to_owned()
}

/// Checks the output of a command in one format.
fn check(case: &Case, format: &str, text: &str) {
    let at = format!("{:?} -o {format}: {text}", case.words);
    let lines: Vec<&str> = text.lines().collect();
    assert!(!lines.is_empty() && lines.iter().any(|line| !line.trim().is_empty()), "{at}");
    match format {
        "json" => {
            drop(serde_json::from_str::<Value>(text).unwrap_or_else(|err| panic!("{err}: {at}")))
        }
        "jsonl" => {
            for line in lines {
                let value: Value =
                    serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {at}"));
                assert!(value.is_object(), "{at}");
            }
        }
        "name" => {
            assert!(lines.iter().all(|line| !line.is_empty() && *line != "-"), "{at}");
            if let Some(names) = &case.names {
                assert_eq!(&lines, names, "{at}");
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn tables_at_terminals_have_figures_with_their_units_and_no_line_that_wraps() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let name = "a-name-as-long-as-deployments-make-them-7c65d6cfc9-x7k2p";
    let run = ["run", "-d", "--name", name, "-m", "170m", &image, "sleep", "1000"];
    let _id = node.hull(&run).good();
    for width in [60, 80, 120] {
        for words in [
            &["stats", "--over-ms", "10"][..],
            &["ps", "-a"],
            &["ps", "-a", "-o", "wide"],
            &["pods", "-o", "wide"],
            &["images", "-o", "wide"],
            &["df"],
            &["top", name],
            &["history", &image],
            &["top", "--once"],
        ] {
            let shown = at_terminal(&node, words, width).await;
            let table: Vec<&str> =
                shown.lines().filter(|line| !line.starts_with("no room")).collect();
            assert!(table.len() >= 2, "{words:?} at {width}: {shown}");
            for line in &table {
                let at = format!("{words:?} at {width}: {line}\n{shown}");
                assert!(line.chars().count() <= usize::from(width), "{at}");
                figures_have_units(line, &at);
            }
        }
        let shown = at_terminal(&node, &["stats", "--over-ms", "10"], width).await;
        assert!(shown.contains("170.00 MiB") || !shown.contains("LIMIT"), "{shown}");
        assert!(shown.contains("MEMORY"), "there is room for it at {width}: {shown}");
        let shown = at_terminal(&node, &["ps"], width).await;
        assert!(shown.contains("running") && shown.contains('…'), "{width}: {shown}");
    }
    let _named = node.hull(&["rm", "-f", name]).good();
}

#[tokio::test]
async fn checks_and_facts_of_a_node_fit_into_a_terminal() {
    let node = Node::start().await;
    for words in [&["check"][..], &["info"]] {
        // `check` exits with 1 if the node lacks something.
        let shown = at_terminal_with(&node, words, 80, "|| [ $? = 1 ]").await;
        assert!(shown.lines().count() > 10, "{words:?}: {shown}");
        for line in shown.lines() {
            let has_long_word = line.split(' ').any(|word| word.chars().count() > 50);
            assert!(line.chars().count() <= 80 || has_long_word, "{words:?}: {line}\n{shown}");
        }
    }
    let template = node.hull(&["trace", "-o", "nothing", "x"]);
    assert!(template.stderr.contains("text, svg, json, jsonl, yaml, name"), "{template:?}");
}

#[tokio::test]
async fn events_that_come_one_by_one_are_in_columns() {
    let node = Node::start().await;
    let image = fixture::busybox();
    let mut command = node.hull_command(&["events", "--count", "12"]);
    let mut events = command.stdout(Stdio::piped()).spawn().or_fail("read events");
    let mut out = events.stdout.take().or_fail("take its output");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    let names = ["a", "of-some-more-length", "b"];
    let mut number = 0;
    eventually("enough events have come", || {
        number += 1;
        let name = format!("{}-{number}", names[number % names.len()]);
        let ran = node.hull(&["run", "--rm", "--name", &name, &image, "true"]);
        let ended = events.try_wait();
        async move {
            match (ran.code, ended) {
                (0, Ok(Some(_))) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let text = reader.join().unwrap().or_fail("read events");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 13, "the headings, and twelve events: {text}");
    let begins = |line: &str| -> Vec<usize> {
        let is_begin = |at: &usize| *at == 0 || line[..*at].ends_with("  ");
        let words = line.char_indices().filter(|(_, c)| *c != ' ').map(|(at, _)| at);
        words.filter(is_begin).collect()
    };
    for line in &lines {
        assert_eq!(begins(line), begins(lines[0]), "{text}");
    }
}

/// The output of a command at a terminal of this width.
async fn at_terminal(node: &Node, words: &[&str], width: u16) -> String {
    at_terminal_with(node, words, width, "").await
}

/// As [`at_terminal`], with more of a shell's command behind it.
async fn at_terminal_with(node: &Node, words: &[&str], width: u16, more: &str) -> String {
    const END: &str = "the code is ";
    let hull = node.hull_command(words);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("\"$0\" \"$@\" {more}; echo {END}$?")]);
    command.arg(hull.get_program()).args(hull.get_args()).env("NO_COLOR", "1");
    command.envs(hull.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let terminal = Terminal::start(&command, (width, 50));
    // Everything before it has been read then.
    terminal.wait_for(&format!("{END}0")).await;
    terminal.screen().replace('\r', "").replace(&format!("{END}0\n"), "")
}

/// A number with two decimals is one of bytes, and is followed by its unit.
fn figures_have_units(line: &str, at: &str) {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    for (place, word) in words.iter().enumerate() {
        let decimals = word.split_once('.').filter(|(whole, part)| {
            part.len() == 2 && [whole, part].iter().all(|of| of.bytes().all(|b| b.is_ascii_digit()))
        });
        if decimals.is_some() {
            let unit = words.get(place + 1).copied().unwrap_or_default();
            assert!(["KiB", "MiB", "GiB", "TiB"].contains(&unit), "{word} has no unit: {at}");
        }
        let is_cut_figure = word.strip_suffix('…').is_some_and(|cut| cut.parse::<f64>().is_ok());
        assert!(!is_cut_figure, "{word} is cut: {at}");
    }
}
