// SPDX-License-Identifier: Apache-2.0
//! The table "What verbs wait for" of docs/security.md, as data. A test of the daemon holds it against the code, so
//! what is read here are the bounds that the code has.

use hull_tests::{ExpectExt as _, paths};
use std::fs;
use std::time::Duration;

/// One verb under one part that hangs.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) verb: String,
    pub(crate) part: String,
    /// Without what settings and the request add.
    pub(crate) fixed: Duration,
    /// Those that add to it, by name.
    pub(crate) settings: Vec<String>,
    /// The codes that the caller may read, in the table's words.
    pub(crate) reads: String,
}

impl Bound {
    /// The whole bound, where each setting and field has `each`.
    pub(crate) fn with(&self, each: Duration) -> Duration {
        self.fixed + each * u32::try_from(self.settings.len()).or_fail("count settings")
    }

    /// Whether an answer with this code is one that the table has: `OK`, `UNAVAILABLE` and so on.
    pub(crate) fn allows(&self, code: tonic::Code) -> bool {
        let name = format!("{code:?}").to_uppercase();
        self.reads.split([' ', ',']).any(|word| word.replace('_', "") == name)
    }
}

/// All that the table says of `part`.
pub(crate) fn of(part: &str) -> Vec<Bound> {
    let path = paths::root().join("docs/security.md");
    let text = fs::read_to_string(&path).or_fail(format!("read {}", path.display()));
    let rows = text.lines().skip_while(|line| !line.starts_with("| Verb | What hangs |")).skip(2);
    let mut found = Vec::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [verbs, of, bounds, _then, reads] = cells[..] else { panic!("five cells in {row}") };
        if of != part {
            continue;
        }
        let (settings, fixed): (Vec<&str>, Vec<&str>) =
            bounds.split(" + ").partition(|bound| bound.starts_with('`'));
        let seconds = |text: &&str| text.trim_end_matches(" s").parse().map(Duration::from_secs);
        let fixed: Result<Vec<Duration>, _> = fixed.iter().map(seconds).collect();
        let fixed = fixed.or_fail(format!("read the bounds in {row}")).iter().sum();
        found.extend(verbs.split(", ").map(|verb| Bound {
            verb: verb.to_owned(),
            part: part.to_owned(),
            fixed,
            settings: settings.iter().map(|name| name.trim_matches('`').to_owned()).collect(),
            reads: reads.to_owned(),
        }));
    }
    assert!(!found.is_empty(), "docs/security.md says nothing of {part}");
    found
}
