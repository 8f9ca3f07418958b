// SPDX-License-Identifier: Apache-2.0
//! Rules for each source file: its first lines, its length and that of its functions, open ends, how tests
//! wait, where unsafe code may be.

use crate::lexer;
use crate::report;
use crate::sources::{Source, sources};
use hull_tests::rust_source::functions;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const SPDX: &str = "// SPDX-License-Identifier: Apache-2.0";

#[test]
fn every_file_begins_with_its_licence_and_says_what_it_is() {
    let mut wrong = Vec::new();
    for Source { path, text } in sources() {
        let path = path.display();
        let mut lines = text.lines();
        if lines.next() != Some(SPDX) {
            wrong.push(format!("{path}: make its first line `{SPDX}`"));
        } else if !lines.next().is_some_and(|line| line.starts_with("//! ") && line.len() > 12) {
            wrong.push(format!("{path}: begin with a module doc (`//! …`): what it owns, the rule it keeps, what it does not do"));
        }
    }
    report(&wrong);
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{path}: {lines} lines: split it by what its parts own (at most {FILE_LINES_MAX})"
            ));
        }
        for function in functions(&source.text) {
            if function.lines > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{path}:{}: `{}` is {} lines: name its parts as functions (at most {FUNCTION_LINES_MAX})",
                    function.line, function.name, function.lines
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    // Put together here, so that this file does not find itself.
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "XX".to_owned() + "X"];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let marked = marks.iter().find(|mark| comment.contains(mark.as_str()));
            if let Some(mark) = marked.filter(|_| !comment.contains('#')) {
                let at = format!("{}:{}", source.path.display(), number + 1);
                wrong
                    .push(format!("{at}: do it now, or open an issue and write `{mark}(#number)`"));
            }
        }
    }
    report(&wrong);
}

#[test]
fn tests_neither_sleep_nor_are_passed_over() {
    let mut wrong = Vec::new();
    for source in sources() {
        let waits_for_all = source.path.ends_with("tests/src/eventually.rs");
        let mut in_tests = source.is_test();
        for (number, line) in lexer::split(&source.text).code.lines().enumerate() {
            in_tests |= line.starts_with("#[cfg(test)]");
            let at = || format!("{}:{}", source.path.display(), number + 1);
            if line.contains("#[ignore") {
                wrong.push(format!(
                    "{}: let it run, or fail with what this machine lacks (`paths::cannot_run`)",
                    at()
                ));
            }
            if in_tests && !waits_for_all && line.contains("sleep(") {
                wrong.push(format!(
                    "{}: wait for a state with `eventually`, not for time to pass",
                    at()
                ));
            }
        }
    }
    report(&wrong);
}

#[test]
fn unsafe_code_is_only_in_sys() {
    let allows = "(unsafe".to_owned() + "_code";
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.path.starts_with("runtime/sys") && source.text.contains(&allows) {
            wrong.push(format!(
                "{}: move the call to runtime/sys, one wrapper with its SAFETY sentence",
                source.path.display()
            ));
        }
    }
    report(&wrong);
}
