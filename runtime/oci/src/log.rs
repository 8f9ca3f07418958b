// SPDX-License-Identifier: Apache-2.0
//! Errors and warnings on their way out: to stderr, and to the file of `--log`, which callers read.
//!
//! Each is one line without hidden characters: ids, paths and programs are in it, and those are the
//! caller's or the image's words.

use crate::args::Global;
use crate::error::Error;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use hull_sys::time::rfc3339_now;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

/// An error with its causes.
pub(crate) fn chain(err: &Error) -> String {
    let mut text = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Says why it failed; the program then ends with `code`.
pub(crate) fn report(global: Option<&Global>, err: &Error, code: u8) -> ExitCode {
    let mut text = shown(format!("cannot {}", chain(err)), MESSAGE_BYTES_MAX);
    let hint = err.hint().map(|hint| shown(hint, MESSAGE_BYTES_MAX));
    let mut lines = format!("error: {text}\n");
    if let Some(hint) = &hint {
        lines = format!("{lines}hint: {hint}\n");
        text = format!("{text} (hint: {hint})");
    }
    write(global, "error", &text, &lines);
    ExitCode::from(code)
}

/// Says what is done, with --debug: in the file of --log, else on stderr.
pub(crate) fn debug(global: &Global, text: &str) {
    if global.debug {
        let text = shown(text, MESSAGE_BYTES_MAX);
        let lines = if global.log.is_some() { String::new() } else { format!("debug: {text}\n") };
        write(Some(global), "debug", &text, &lines);
    }
}

/// Says that something is off although we go on.
pub(crate) fn warn(global: &Global, text: &str) {
    let text = shown(text, MESSAGE_BYTES_MAX);
    write(Some(global), "warning", &text, &format!("warning: {text}\n"));
}

fn write(global: Option<&Global>, level: &str, text: &str, lines: &str) {
    // If nobody reads stderr, nobody can be notified of that.
    let _gone = std::io::stderr().write_all(lines.as_bytes());
    let Some((global, path)) = global.and_then(|global| Some((global, global.log.as_ref()?)))
    else {
        return;
    };
    let now = rfc3339_now();
    let line = if global.log_json {
        format!("{}\n", json!({"level": level, "msg": text, "time": now}))
    } else {
        format!("time=\"{now}\" level={level} msg={}\n", json!(text))
    };
    let file = File::options().append(true).create(true).open(path);
    if let Err(err) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        let message = format!("cannot write {}: {err}", path.display());
        let message = format!("warning: {}\n", shown(message, MESSAGE_BYTES_MAX));
        let _gone = std::io::stderr().write_all(message.as_bytes());
    }
}
