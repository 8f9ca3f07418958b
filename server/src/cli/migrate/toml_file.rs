// SPDX-License-Identifier: Apache-2.0
//! Configuration files of other runtimes: parsed with the line of an error, merged, and listed value by value.

use super::super::error::{Error, Result};
use super::root::Root;
use std::path::Path;
use toml::{Table, Value};

/// Reads and parses a file; `None` if it is not there.
///
/// # Errors
/// It cannot be read, or is not TOML.
pub(crate) fn read(root: &Root, path: &Path) -> Result<Option<Table>> {
    let Some(text) = root.text(path)? else { return Ok(None) };
    toml::from_str(&text).map(Some).map_err(|err| {
        let start = err.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let why = format!("line {line}: {}", err.message());
        Error::Peer { what: root.shown(path), why, hint: None }
    })
}

/// Merges a table over another: tables key by key, everything else as a whole.
pub(crate) fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Whether a value turns nothing on: false, zero, or empty.
pub(crate) fn is_off(value: &Value) -> bool {
    match value {
        Value::Boolean(on) => !on,
        Value::Integer(number) => *number == 0,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Table(all) => all.is_empty(),
        Value::Float(_) | Value::Datetime(_) => false,
    }
}

/// The strings of an array, or the one string.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Boolean(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Datetime(_)
        | Value::Table(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.toml"), "a = 1\nb = [\n").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let error = read(&root, Path::new("/c.toml")).unwrap_err().lines();
        assert!(error.contains("c.toml: line 2:") || error.contains("c.toml: line 3:"), "{error}");
        assert!(read(&root, Path::new("/none")).unwrap().is_none());
    }

    #[test]
    fn tables_are_merged_and_lists_replaced() {
        let mut below: Table = toml::from_str("[a]\nx = [1]\ny = 1\n[a.b]\nz = 1").unwrap();
        merge(&mut below, toml::from_str("[a]\nx = [2]\n[a.b]\nw = 2").unwrap());
        let wanted: Table = toml::from_str("[a]\nx = [2]\ny = 1\n[a.b]\nz = 1\nw = 2").unwrap();
        assert_eq!(below, wanted);
    }
}
