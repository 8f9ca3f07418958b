// SPDX-License-Identifier: Apache-2.0
//! File system calls on the threads of the async runtime, where a hung disk would stop all tasks of a thread.
//!
//! clippy's `disallowed-methods` cannot tell an async function from a thread that may block, so this is checked
//! here.

use crate::lexer;
use crate::modules::without_tests;
use crate::report;
use crate::sources::sources;

/// File system calls that block.
const FILE_CALLS: [&str; 5] =
    ["fs::", "File::open(", "File::options(", "OpenOptions::new(", ".canonicalize("];
/// Files whose async functions may block nevertheless, each with the reason.
const MAY_BLOCK: [(&str, &str); 2] = [
    ("server/src/cli", "a command has one task, and nothing else to do meanwhile"),
    ("server/src/daemon/run.rs", "the daemon binds its socket before it serves"),
];

#[test]
fn async_functions_do_not_block_on_files() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if MAY_BLOCK.iter().any(|(place, _)| source.path.starts_with(place)) {
            continue;
        }
        let code = without_tests(&lexer::split(&source.text).code);
        for call in blocking_calls(&code) {
            wrong.push(format!(
                "{}: an async function calls `{call}…`: move the file work to a thread that may block \
                 (`spawn_blocking`); exceptions:{}",
                source.path.display(),
                MAY_BLOCK.map(|(place, why)| format!("\n    {place}: {why}")).concat()
            ));
        }
    }
    report(&wrong);
}

/// The blocking calls in bodies of async functions and blocks. Closures of `spawn_blocking` in them are left out:
/// they run on another thread.
fn blocking_calls(code: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("async ") {
        let rest = &code[at + "async ".len()..];
        let is_body =
            ["fn ", "move {", "move |", "{", "|"].iter().any(|next| rest.starts_with(next));
        let Some(body) = is_body.then(|| block(rest)).flatten() else { continue };
        let body = without_blocking_threads(body);
        found.extend(FILE_CALLS.into_iter().filter(|call| has_call(&body, call)));
    }
    found
}

/// The text between the first `{` and its `}`; `None` for a declaration without a body.
fn block(text: &str) -> Option<&str> {
    let open = text.find('{')?;
    if text[..open].contains(';') {
        return None;
    }
    enclosed(&text[open..], '{', '}')
}

/// The text within the parentheses or braces with which `text` begins.
fn enclosed(text: &str, open: char, close: char) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(&text[1..at]);
            }
        }
    }
    None
}

/// The body without the arguments of calls that run a closure on a thread that may block.
fn without_blocking_threads(body: &str) -> String {
    let mut kept = String::new();
    let mut rest = body;
    while let Some(at) = rest.find("blocking(") {
        let open = at + "blocking".len();
        kept.push_str(&rest[..open]);
        let inside = enclosed(&rest[open..], '(', ')').map_or(0, |inside| inside.len() + 2);
        rest = &rest[(open + inside).max(open + 1)..];
    }
    kept.push_str(rest);
    kept
}

/// Whether the call is there by itself, and not as the end of another name such as `hull_sys::fs::`.
fn has_call(body: &str, call: &str) -> bool {
    body.match_indices(call).any(|(at, _)| {
        let before = body[..at].strip_suffix("std::").unwrap_or(&body[..at]);
        let before = before.chars().next_back();
        call.starts_with('.') || before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

#[test]
fn only_file_calls_in_async_bodies_count() {
    for (code, wanted) in [
        ("async fn a() { fs::read(x); }", 1),
        ("async fn a() -> X { let y = std::fs::metadata(x)?; }", 1),
        ("let task = async move { File::open(x) };", 1),
        ("async fn a() { b().await }\nfn c() { fs::read(x); }", 0),
        ("trait A { async fn a(); }\nfn c() { fs::read(x); }", 0),
        ("async fn a() { spawn_blocking(move || { fs::read(x) }).await }", 0),
        ("async fn a() { hull_sys::fs::read(x); rustix::fs::statat(x); }", 0),
    ] {
        assert_eq!(blocking_calls(code).len(), wanted, "{code}");
    }
}
