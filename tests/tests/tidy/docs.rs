// SPDX-License-Identifier: Apache-2.0
//! Documents that name files and commands of make name those that are there.

use crate::report;
use crate::sources::{Source, prose};
use hull_tests::{ExpectExt as _, book, paths};
use std::fs;

/// Folders of the project that paths begin with.
const TOPS: [&str; 9] =
    ["docs/", "image/", "network/", "proto/", "runtime/", "scripts/", "server/", "tests/", ".ci/"];
/// Words that only look like a path: a seccomp profile.
const NO_PATH: &str = "runtime/default";

/// The pages for readers, but for the history of changes, which names what was there once.
fn pages() -> impl Iterator<Item = Source> {
    let is_page = |source: &Source| {
        source.path.extension().is_some_and(|of| of == "md")
            && !source.path.starts_with("tests")
            && !source.path.ends_with("CHANGELOG.md")
    };
    prose().into_iter().filter(is_page)
}

/// The code between backticks, and the lines of fenced blocks.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('`') {
        let line = before.rsplit('\n').next().unwrap_or_default();
        let is_block = after.starts_with("``") && line.trim_start().is_empty();
        let (content, next) = if is_block {
            let (_, block) = after.split_once('\n').unwrap_or_default();
            block.split_once("```").unwrap_or((block, ""))
        } else {
            after.split_once('`').unwrap_or((after, ""))
        };
        if is_block {
            found.extend(content.lines());
        } else {
            found.push(content);
        }
        rest = next;
    }
    found
}

/// The paths of the project in code.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let plain = |word: &&str| !word.contains(['*', '<', '{', ' ', '$', '\n', '…']);
    let is_path = |word: &&str| TOPS.iter().any(|top| word.starts_with(top)) && *word != NO_PATH;
    code(text).into_iter().filter(is_path).filter(plain)
}

/// The targets of make that code names: the first word behind `make` that is not a variable or an option.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let commands = code(text).into_iter().flat_map(|line| {
        let line = line.split(" #").next().unwrap_or_default();
        line.split([';', '&', '|'])
    });
    commands.filter_map(|command| {
        let command = command.trim_start();
        let command = command.strip_prefix("sudo ").unwrap_or(command);
        let mut words = command.strip_prefix("make ")?.split_whitespace();
        words.find(|word| !word.contains('=') && !word.starts_with('-'))
    })
}

#[test]
fn files_that_documents_name_are_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        for path in named(&page.text) {
            let place = path.split_once(':').map_or(path, |(path, _)| path);
            if !paths::root().join(place).try_exists().or_fail("look for a file") {
                let page = page.path.display();
                wrong.push(format!("{page}: {path} is not there: write where it is now"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn commands_of_make_that_documents_name_are_there() {
    let makefile = fs::read_to_string(paths::root().join("Makefile")).or_fail("read the Makefile");
    let known: Vec<&str> = makefile
        .lines()
        .filter(|line| !line.starts_with(['\t', '#', '.']))
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        // The lines of CONTRIBUTING's first block are indented, not fenced.
        let indented = page.text.lines().filter_map(|line| line.strip_prefix("    make "));
        let indented = indented.filter_map(|line| line.split_whitespace().next());
        for target in targets(&page.text).chain(indented) {
            seen += 1;
            if !known.contains(&target) {
                let page = page.path.display();
                wrong.push(format!("{page}: `make {target}` is not in the Makefile"));
            }
        }
    }
    report(&wrong);
    assert!(seen > 30, "tidy found only {seen} commands of make");
}

#[test]
fn only_paths_of_the_project_count() {
    let text = "`server/src/x.rs` and `cargo test`, `/etc/x`, `tests/<name>`, ``, `proto/`";
    assert_eq!(named(text).collect::<Vec<_>>(), ["server/src/x.rs", "proto/"]);
}

#[test]
fn targets_of_make_are_found_in_code() {
    let text = "make no\n`make test T=x`\n\n```sh\nsudo make A=b install  # make c\nmake deb && apt x\n```\n\nand \
                `make kind-vm NODES=1`, `cmake x`";
    assert_eq!(targets(text).collect::<Vec<_>>(), ["test", "install", "deb", "kind-vm"]);
    assert_eq!(book::links("`make x`"), []);
}
