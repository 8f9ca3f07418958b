// SPDX-License-Identifier: Apache-2.0
//! Tests of the docs: each command line of hull in them is one that hull understands, and each setting is one that
//! there is. The same for the examples in the help.

use crate::cli;
use crate::config::{self, KEYS};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::fs;
use std::path::{Path, PathBuf};

/// A piece of code of a page.
#[derive(Debug)]
struct Code {
    /// The page and the line.
    place: String,
    /// The language of a block; `None` for code between backticks, which may be a part of a command.
    language: Option<String>,
    text: String,
}

/// The pages for readers, but for the history of changes.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = |dir: PathBuf| {
        let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|of| of == "md")).collect::<Vec<_>>()
    };
    let mut pages = [files(root.clone()), files(root.join("docs"))].concat();
    pages.retain(|path| !path.ends_with("CHANGELOG.md"));
    pages.sort();
    pages
}

/// All code of the docs.
fn documented() -> Vec<Code> {
    let mut all = Vec::new();
    for page in pages() {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        code(&name, &fs::read_to_string(&page).unwrap(), &mut all);
    }
    assert!(all.len() > 500, "{} pieces of code", all.len());
    all
}

/// The blocks of a page, and the code between backticks.
fn code(page: &str, text: &str, all: &mut Vec<Code>) {
    let (mut block, mut prose) = (None::<Code>, String::new());
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), block.as_mut()) {
            (Some(_), Some(_)) => all.extend(block.take()),
            (Some(language), None) => {
                let place = format!("{page}:{}", number + 1);
                let language = Some(language.trim().to_owned());
                block = Some(Code { place, language, text: String::new() });
            }
            (None, Some(open)) => {
                open.text.push_str(line);
                open.text.push('\n');
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    for paragraph in prose.split("\n\n") {
        all.extend(paragraph.split('`').skip(1).step_by(2).map(|text| Code {
            place: page.to_owned(),
            language: None,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        }));
    }
}

/// The commands of a line of a shell, in words. Those in `$(…)` are commands, too, and one word of the command around
/// them.
fn commands(line: &str, all: &mut Vec<Vec<String>>) {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '\'' | '"' => {
                let (quoted, next) = after.split_once(c).unwrap_or((after, ""));
                word.get_or_insert_default().push_str(quoted);
                rest = next;
            }
            '$' if after.starts_with('(') => {
                let (inner, next) = after[1..].split_once(')').unwrap_or((after, ""));
                commands(inner, all);
                word.get_or_insert_default().push_str(inner);
                rest = next;
            }
            '#' if word.is_none() => break,
            ';' | '|' | '&' => {
                words.extend(word.take());
                all.push(std::mem::take(&mut words));
            }
            // A file, and before it the number of a descriptor, are not words of the command.
            '<' | '>' => {
                words.extend(word.take().filter(|of| !of.bytes().all(|b| b.is_ascii_digit())));
                break;
            }
            _ if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    all.push(words);
}

/// The command lines of hull in a piece of code, each beginning with `hull`.
fn of_hull(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        commands(line, &mut all);
    }
    for words in &mut all {
        if words.first().is_some_and(|word| word == "sudo") {
            words.remove(0);
        }
        if let Some(first) = words.first_mut().filter(|first| first.ends_with("/hull")) {
            "hull".clone_into(first);
        }
    }
    all.retain(|words| words.len() > 1 && words[0] == "hull");
    all
}

/// The reason why hull does not understand a command line. `partly`: it may lack arguments, and words in capitals stand
/// for any others.
fn fault(words: &[String], partly: bool) -> Option<String> {
    let partly = partly || words.last().is_some_and(|word| word == "…");
    let words: Vec<String> = words.iter().filter(|word| *word != "…").cloned().collect();
    let err = cli::usage_fault(&words)?;
    let lacks = matches!(
        err.kind(),
        ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
    );
    let is_help = matches!(err.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let stands_for_any = [ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    let stands_for_any = stands_for_any.into_iter().any(
        |kind| matches!(err.get(kind), Some(ContextValue::String(word)) if is_placeholder(word)),
    );
    (!is_help && !(partly && (lacks || stands_for_any))).then(|| err.to_string())
}

/// Whether a value stands for any other; it is empty where an option has none.
fn is_placeholder(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || "_:[]".contains(c))
}

#[test]
fn hull_understands_the_commands_of_the_docs() {
    let (mut wrong, mut whole) = (Vec::new(), 0);
    for code in documented() {
        let partly = match code.language.as_deref() {
            Some("sh") => false,
            Some(_) => continue,
            None => true,
        };
        for words in of_hull(&code.text) {
            whole += usize::from(!partly);
            let why = fault(&words, partly);
            wrong.extend(why.map(|why| format!("{}: {}: {why}", code.place, words.join(" "))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(whole > 30, "{whole} commands in blocks");
}

#[test]
fn hull_understands_the_examples_of_its_help() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let root = cli::command();
    for command in std::iter::once(&root).chain(root.get_subcommands()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        // Examples are indented; the comment stands behind several blanks.
        for line in help.lines().filter(|line| line.starts_with("  ")) {
            let example = line.trim_start().split("   ").next().unwrap_or_default();
            for words in of_hull(example) {
                seen += 1;
                let why = fault(&words, false);
                wrong.extend(why.map(|why| format!("{}: {why}", words.join(" "))));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "{seen} examples");
}

/// Whether a block of TOML configures another program, or an image policy.
fn is_of_others(table: &toml::Table) -> bool {
    table.contains_key("plugins") || table.contains_key("repository")
}

#[test]
fn the_settings_of_the_docs_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let (mut wrong, mut blocks) = (Vec::new(), 0);
    for code in documented().iter().filter(|code| code.language.as_deref() == Some("toml")) {
        match toml::from_str::<toml::Table>(&code.text) {
            Err(err) => wrong.push(format!("{}: {err}", code.place)),
            Ok(table) if is_of_others(&table) => {}
            Ok(_) => {
                blocks += 1;
                fs::write(&file, &code.text).unwrap();
                let why = config::load(Some(&file), &[]).err();
                wrong.extend(why.map(|why| format!("{}: {why}", code.place)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks > 2, "{blocks} blocks");
}

/// Files of the kernel whose names look like settings.
const KERNEL_FILES: [&str; 3] = ["cgroup.freeze", "cgroup.max.depth", "cgroup.max.descendants"];

/// Whether a name in code is one of a setting, of a table of them, or of neither, like a file's.
fn is_setting(name: &str) -> Option<bool> {
    let (section, rest) = name.split_once('.')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
    let is_section = KEYS.iter().any(|key| key.name.starts_with(&format!("{section}.")));
    let is_file = ["md", "rs", "toml", "json"].contains(&rest) || KERNEL_FILES.contains(&name);
    (is_section && !is_file && rest.chars().all(is_name)).then(|| {
        let table = format!("{name}.");
        KEYS.iter().any(|key| key.name == name || key.name.starts_with(&table))
    })
}

#[test]
fn settings_between_backticks_are_there() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for code in documented().iter().filter(|code| code.language.is_none()) {
        let name = code.text.split([' ', '=']).next().unwrap_or_default();
        let Some(is_there) = is_setting(name) else { continue };
        seen += 1;
        if !is_there {
            wrong.push(format!("{}: `{name}` is not a setting", code.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 20, "{seen} settings");
}

#[test]
fn commands_are_found_in_lines_of_a_shell_and_wrong_ones_are_reported() {
    let found =
        |text: &str| -> Vec<String> { of_hull(text).iter().map(|words| words.join(" ")).collect() };
    assert_eq!(
        found(
            "sudo target/release/hull ps -a   # `hull no`\nmkdir x && hull a 'b; c' | jq .; hull rm\\\n d"
        ),
        ["hull ps -a", "hull a b; c", "hull rm d"]
    );
    assert_eq!(found("hull logs $(hull ps -lq) < in"), ["hull ps -lq", "hull logs hull ps -lq"]);
    assert_eq!(found("install hull /usr/bin/hull; systemctl stop hull"), [""; 0]);
    let words = |text: &str| of_hull(text).remove(0);
    assert_eq!(fault(&words("hull ps --all"), false), None);
    assert_eq!(fault(&words("hull stop -t SECONDS POD"), true), None);
    assert_eq!(fault(&words("hull run --rm …"), false), None);
    assert_eq!(fault(&words("hull run --restart"), true), None);
    for wrong in ["hull ps --everything", "hull no-such-command", "hull run", "hull stop -t x y"] {
        assert!(fault(&words(wrong), false).is_some(), "{wrong}");
    }
    for wrong in ["hull ps --everything", "hull no-such-command"] {
        assert!(fault(&words(wrong), true).is_some(), "{wrong}");
    }
    assert_eq!(is_setting("image.no_such"), Some(false));
    assert_eq!(is_setting("network.cni"), Some(true));
    for other in ["network.md", "memory.events", "cgroup.freeze"] {
        assert_eq!(is_setting(other), None, "{other}");
    }
}
