// SPDX-License-Identifier: Apache-2.0
//! A preprocessor of mdBook (book.toml): links between files of the project become links between pages of the book.
//! `make book` builds and runs it.

use hull_tests::{book, paths};
use serde_json::{Map, Value};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // mdBook asks for each form of the book whether it is supported.
    if std::env::args().nth(1).is_some_and(|word| word == "supports") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // A reader that has gone away is not a reason to fail twice.
            drop(writeln!(std::io::stderr(), "error: cannot prepare the book: {why}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads the context and the book from stdin, and writes the book to stdout.
fn run() -> Result<(), String> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|err| format!("read stdin: {err}"))?;
    let input = serde_json::from_str(&input).map_err(|err| format!("parse stdin: {err}"))?;
    let Value::Array(mut parts) = input else {
        return Err("stdin is not a pair of a context and a book".into());
    };
    let mut book = parts.pop().ok_or("stdin has no book")?;
    let pages = book::pages(&paths::root())?;
    rewrite(&mut book, &pages);
    let text = book.to_string();
    std::io::stdout().write_all(text.as_bytes()).map_err(|err| format!("write stdout: {err}"))
}

/// Rewrites each chapter, at any depth.
fn rewrite(value: &mut Value, pages: &[book::Page]) {
    match value {
        Value::Object(fields) => {
            chapter(fields, pages);
            fields.values_mut().for_each(|value| rewrite(value, pages));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rewrite(value, pages)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn chapter(fields: &mut Map<String, Value>, pages: &[book::Page]) {
    let file = fields.get("path").and_then(Value::as_str);
    let file = file.map(|path| Path::new(book::DOCS).join(path));
    let page = pages.iter().find(|page| Some(&page.file) == file.as_ref());
    if let (Some(page), Some(Value::String(content))) = (page, fields.get_mut("content")) {
        *content = book::for_book(content, &page.source, pages);
    }
}
