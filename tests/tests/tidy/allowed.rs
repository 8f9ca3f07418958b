// SPDX-License-Identifier: Apache-2.0
//! Lists of what a rule still lets pass, one line each, below `tests/tests/tidy/allowed`. `#` begins a comment.
//!
//! A list has to say what is there now: more fails, and so does less, or a list would let it come back.

use hull_tests::{Must as _, paths};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What is counted: a name, and how much of it there may be.
pub(crate) type Counts = BTreeMap<String, usize>;

fn path(list: &str) -> PathBuf {
    paths::root().join("tests/tests/tidy/allowed").join(list)
}

/// The lines of a list.
pub(crate) fn read(list: &str) -> Vec<String> {
    let path = path(list);
    let text = fs::read_to_string(&path).must(format!("read {}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// Writes a list as it is now where `HULL_BLESS` asks for that and nothing grew. Whether it did.
pub(crate) fn lower(list: &str, lines: &[String], before: &Counts, now: &Counts) -> bool {
    if std::env::var_os("HULL_BLESS").is_none() {
        return false;
    }
    let grown = now.iter().find(|(name, count)| before.get(*name).is_none_or(|had| had < count));
    if let Some((name, count)) = grown {
        hull_tests::shell::say(&format!("{list} is not rewritten: {name} grew to {count}"));
        return false;
    }
    let path = path(list);
    let text = fs::read_to_string(&path).must(format!("read {}", path.display()));
    let head: String = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .fold(String::new(), |head, line| head + line + "\n");
    fs::write(&path, head + &lines.join("\n") + "\n").must(format!("write {}", path.display()));
    true
}
