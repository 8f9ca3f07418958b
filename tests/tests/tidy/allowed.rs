// SPDX-License-Identifier: Apache-2.0
//! Lists of what a rule still lets pass, one line each, below `tests/tests/tidy/allowed`. `#` begins a comment.
//!
//! A list has to say what is there now: more fails, and so does less, or a list would let it come back.

use crate::report;
use hull_tests::{ExpectExt as _, paths};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Counts by name: of a crate, for example.
pub(crate) type Counts = BTreeMap<String, usize>;

/// Findings that are shown of each crate that has too many.
const SHOWN_MAX: usize = 20;

fn path(list: &str) -> PathBuf {
    paths::root().join("tests/tests/tidy/allowed").join(list)
}

/// The lines of a list.
pub(crate) fn read(list: &str) -> Vec<String> {
    let path = path(list);
    let text = fs::read_to_string(&path).or_fail(format!("read {}", path.display()));
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
    let text = fs::read_to_string(&path).or_fail(format!("read {}", path.display()));
    let head: String = text
        .lines()
        .filter(|line| line.starts_with('#'))
        .fold(String::new(), |head, line| head + line + "\n");
    fs::write(&path, head + &lines.join("\n") + "\n").or_fail(format!("write {}", path.display()));
    true
}

/// Holds findings, each with the crate that it is in, against a list of counts by crate.
#[track_caller]
pub(crate) fn compare(list: &str, what: &str, found: &[(String, String)]) {
    let mut now = Counts::new();
    for (part, _) in found {
        *now.entry(part.clone()).or_default() += 1;
    }
    let listed = read(list);
    let count = |line: &String| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    let before: Counts = listed.iter().filter_map(count).collect();
    let lines: Vec<String> =
        now.iter().map(|(part, count)| format!("{part:<18}{count:>5}")).collect();
    if now == before || lower(list, &lines, &before, &now) {
        return;
    }
    let mut wrong = Vec::new();
    for part in before.keys().chain(now.keys().filter(|part| !before.contains_key(*part))) {
        let (had, has) = (before.get(part).unwrap_or(&0), now.get(part).unwrap_or(&0));
        if has < had {
            wrong.push(format!(
                "{part} has {has} left: write that into allowed/{list}, it says {had} (or HULL_BLESS=1)"
            ));
        } else if has > had {
            wrong.push(format!("{part} has {has} {what}, at most {had} are allowed; some of:"));
            // The new ones are among them; git knows which.
            let of_part = found.iter().filter(|(of, _)| of == part);
            wrong.extend(of_part.take(SHOWN_MAX).map(|(_, text)| format!("  {text}")));
        }
    }
    report(&wrong);
}
