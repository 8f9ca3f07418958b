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

/// The message, on one line; about an unknown field, with the known name that is meant, if one is near enough.
fn with_nearest(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
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
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.yaml");
        let long = std::fs::File::options().write(true).create(true).truncate(true).open(&file);
        long.unwrap().set_len(BYTES_MAX + 1).unwrap();
        assert!(text(&file).unwrap_err().lines().contains("4 MiB"));
    }
}
