// SPDX-License-Identifier: Apache-2.0
//! Errors and warnings on their way out: to stderr, and to the file of `--log`, which callers read.

use crate::args::Global;
use crate::error::Error;
use crate::time;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;

/// Says why it failed; the code to end with.
pub(crate) fn report(global: Option<&Global>, err: &Error) -> ExitCode {
    let mut text = format!("cannot {err}");
    let mut source = std::error::Error::source(err);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    let hint = err.hint();
    let mut lines = format!("error: {text}\n");
    if let Some(hint) = &hint {
        lines = format!("{lines}hint: {hint}\n");
        text = format!("{text} (hint: {hint})");
    }
    write(global, "error", &text, &lines);
    ExitCode::from(err.code())
}

/// Says that something is off although we go on.
pub(crate) fn warn(global: &Global, text: &str) {
    write(Some(global), "warning", text, &format!("warning: {text}\n"));
}

fn write(global: Option<&Global>, level: &str, text: &str, lines: &str) {
    // With nobody at the other end there is nobody to be told so.
    let _gone = std::io::stderr().write_all(lines.as_bytes());
    let Some((global, path)) = global.and_then(|global| Some((global, global.log.as_ref()?)))
    else {
        return;
    };
    let now = time::now();
    let line = if global.log_json {
        format!("{}\n", json!({"level": level, "msg": text, "time": now}))
    } else {
        format!("time=\"{now}\" level={level} msg={}\n", json!(text))
    };
    let file = File::options().append(true).create(true).open(path);
    if let Err(err) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        let said = format!("warning: cannot write {}: {err}\n", path.display());
        let _gone = std::io::stderr().write_all(said.as_bytes());
    }
}
