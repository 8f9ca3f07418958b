// SPDX-License-Identifier: Apache-2.0
//! Text files that commands read, most of them YAML or JSON: bounded, and `-` is stdin where a command says so.

use super::error::{Error, Result};
use serde::de::DeserializeOwned;
use std::io::{self, Read as _};
use std::path::Path;

/// Longest file, in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Reads a file, or stdin for `-`.
pub(crate) fn text(path: &Path) -> Result<String> {
    if path == Path::new("-") { bounded(path, io::stdin()) } else { of_file(path) }
}

/// Reads a file, also one with the name `-`.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path);
    bounded(path, file.map_err(Error::io(format!("read {}", path.display())))?)
}

fn bounded(path: &Path, source: impl io::Read) -> Result<String> {
    let failed = || Error::io(format!("read {}", path.display()));
    let mut text = String::new();
    source.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed())?;
    if text.len() as u64 > BYTES_MAX {
        return Err(failed()(io::Error::other("it is longer than 4 MiB")));
    }
    Ok(text)
}

/// Parses one document of YAML, of which JSON is a part.
///
/// # Errors
/// The sentence says what is wrong, and where.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    // The whole error shows the lines around its place, too: messages are of one line.
    serde_saphyr::from_str(text).map_err(|err| with_nearest(&err.without_snippet().to_string()))
}

/// The message without words that are for programmers of the library.
fn plain(message: &str) -> String {
    let ranges = [
        ("u8", "0 to 255"),
        ("u16", "0 to 65535"),
        ("u32", "0 to 4294967295"),
        ("i32", "-2147483648 to 2147483647"),
        ("i64", "-9223372036854775808 to 9223372036854775807"),
    ];
    let place = message.find(" at line").and_then(|at| message.get(at..)).unwrap_or_default();
    for (name, range) in ranges {
        if message.strip_suffix(place) == Some(&*format!("invalid {name}")) {
            return format!("a whole number from {range} is needed{place}");
        }
    }
    if message.starts_with("budget breached: ") {
        return format!("the document is too large, or nested too deeply{place}");
    }
    if let Some((key, _)) = message
        .strip_prefix("duplicate mapping key: ")
        .and_then(|rest| rest.split_once(", set DuplicateKeyPolicy"))
    {
        return format!("the key `{key}` is there twice{place}");
    }
    if message.starts_with("cannot deserialize null into string") {
        return format!("a text is needed, and there is none{place}");
    }
    if message.starts_with("invalid boolean") {
        return format!("`true` or `false` is needed{place}");
    }
    message.to_owned()
}

/// The message, on one line; about an unknown field, with the known name that is meant, if one is near enough.
fn with_nearest(message: &str) -> String {
    let message = plain(&message.split_whitespace().collect::<Vec<_>>().join(" "));
    let nearest = message.split_once("unknown field `").and_then(|(_, rest)| {
        let (given, rest) = rest.split_once('`')?;
        let (_, known) = rest.split_once("expected ")?;
        let known = known.split_once(" at line").map_or(known, |(known, _)| known);
        let known = known.strip_prefix("one of ").unwrap_or(known);
        let names = known.split([',', ' ', '`']).filter(|name| !name.is_empty());
        let far = |name: &&str| strsim::levenshtein(given, name);
        names.min_by_key(far).filter(|name| far(name) <= 2)
    });
    match nearest {
        Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
        None => message,
    }
}

/// The documents of a YAML stream, without empty ones.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if let Some(rest) =
            line.strip_prefix("---").filter(|of| of.is_empty() || of.starts_with(' '))
        {
            documents.push(format!("{rest}\n"));
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let has_content =
        |text: &String| text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    documents.into_iter().filter(has_content).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_split_at_its_separators() {
        let all = split("# none\n---\na: 1\n--- \nb: |\n  ---x\n---\n\n");
        assert_eq!(all.len(), 2, "{all:?}");
        let value: serde_json::Value = parse(&all[1]).unwrap();
        assert_eq!(value["b"], "---x\n");
        parse::<serde_json::Value>("a: [").unwrap_err();
    }

    #[test]
    fn a_misspelt_field_is_said_once_with_its_place_and_what_is_meant() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Container {
            #[serde(rename = "name")]
            _name: String,
            #[serde(rename = "command", default)]
            _command: Vec<String>,
        }
        let said = parse::<Container>("name: web\ncomand: [sh]\n").unwrap_err();
        assert_eq!(said.matches("`comand`").count(), 1, "{said}");
        assert!(said.ends_with("did you mean `command`?"), "{said}");
        assert!(said.contains("line 2") && !said.contains('\n'), "{said}");
        let said = parse::<Container>("name: web\nentirely: [sh]\n").unwrap_err();
        assert!(!said.contains("did you mean"), "{said}");
        let said = parse::<Container>("name: [web\n").unwrap_err();
        assert!(!said.contains('\n'), "{said}");
    }

    #[test]
    fn no_message_is_for_programmers() {
        #[derive(Debug, serde::Deserialize)]
        struct Port {
            #[serde(rename = "port", default)]
            _port: u16,
            #[serde(rename = "name", default)]
            _name: String,
            #[serde(rename = "is", default)]
            _is: bool,
        }
        let large = format!("[{}0]", "0,".repeat(300_000));
        for (text, wanted) in [
            ("port: 70000\n", "a whole number from 0 to 65535 is needed at line 1"),
            ("port: 1\nport: 2\n", "the key `port` is there twice at line 2"),
            ("name: null\n", "a text is needed, and there is none at line 1"),
            ("is: 5\n", "`true` or `false` is needed at line 1"),
        ] {
            let said = parse::<Port>(text).unwrap_err();
            assert!(said.starts_with(wanted), "{wanted}: {said}");
        }
        let said = parse::<serde_json::Value>(&large).unwrap_err();
        assert!(said.starts_with("the document is too large, or nested too deeply"), "{said}");
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.yaml");
        let long = std::fs::File::options().write(true).create(true).truncate(true).open(&file);
        long.unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert!(text(&file).unwrap_err().lines().contains("4 MiB"));
    }
}
