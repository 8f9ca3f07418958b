// SPDX-License-Identifier: Apache-2.0
//! `--filter FIELD=VALUE`. Pure.

use super::super::error::{Error, Result};
use super::cell;
use super::fields::{Kind, Kinds, Row};
use serde_json::Value;

/// One filter of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    field: String,
    value: String,
}

/// Names of fields in the filters of other tools, and ours.
const SYNONYMS: [(&str, &str); 5] = [
    ("status", "state"),
    ("label", "labels"),
    ("annotation", "annotations"),
    ("ancestor", "image"),
    ("reference", "names"),
];

impl Filter {
    /// Whether it selects by state, and with it states that a list leaves out by default.
    pub(crate) fn is_of_state(&self) -> bool {
        matches!(self.field.as_str(), "state" | "status")
    }
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, value) = text.split_once('=').ok_or("it is not FIELD=VALUE")?;
        Ok(Self { field: field.to_owned(), value: value.to_owned() })
    }
}

/// The rows for which all filters hold.
pub(super) fn select(kind: &Kinds, rows: Vec<Row>, filters: &[Filter]) -> Result<Vec<Row>> {
    let mut by = Vec::new();
    for filter in filters {
        let own = |name: &str| kind.fields.iter().find(|of| of.key.eq_ignore_ascii_case(name));
        let synonym = SYNONYMS.iter().find(|(name, _)| *name == filter.field).map(|(_, own)| *own);
        let field = own(&filter.field).or_else(|| own(synonym?)).ok_or_else(|| {
            let keys: Vec<&str> = kind.fields.iter().map(|field| field.key).collect();
            Error::BadFlag {
                flag: "--filter",
                value: format!("{}={}", filter.field, filter.value),
                why: format!("`{}` is none of {}", filter.field, keys.join(", ")),
            }
        })?;
        by.push((field, filter.value.as_str()));
    }
    let holds =
        |row: &Row| by.iter().all(|(of, value)| matches(of.key, of.kind, row.get(of.key), value));
    Ok(rows.into_iter().filter(holds).collect())
}

/// Whether a value is the searched one: ids by their beginning, names by a part, maps by KEY or KEY=VALUE,
/// everything else as a whole.
fn matches(key: &str, kind: Kind, value: Option<&Value>, searched: &str) -> bool {
    match kind {
        Kind::Id => {
            let text = cell::plain(value);
            text.starts_with(searched) || text.trim_start_matches("sha256:").starts_with(searched)
        }
        Kind::Map => {
            let map = value.and_then(Value::as_object);
            let (key, wanted) = match searched.split_once('=') {
                Some((key, wanted)) => (key, Some(wanted)),
                None => (searched, None),
            };
            let found = map.and_then(|map| map.get(key));
            found
                .is_some_and(|found| wanted.is_none_or(|wanted| cell::plain(Some(found)) == wanted))
        }
        Kind::List => value.and_then(Value::as_array).is_some_and(|items| {
            items.iter().any(|item| has_part(&cell::plain(Some(item)), searched))
        }),
        Kind::Text if matches!(key, "name" | "image" | "container" | "pod") => {
            has_part(&cell::plain(value), searched)
        }
        Kind::Text
        | Kind::Word
        | Kind::Time
        | Kind::Bytes
        | Kind::Number
        | Kind::Decimal
        | Kind::Flag
        | Kind::Object => cell::plain(value).eq_ignore_ascii_case(searched),
    }
}

/// Whether a name has the searched part; with `*` and `?`, whether it, or its end after a `/`, is of that form. As docker
/// has it, an image matches without its tag, too.
fn has_part(name: &str, searched: &str) -> bool {
    if !searched.contains(['*', '?']) {
        return name.contains(searched);
    }
    let ends = name.match_indices('/').filter_map(|(at, _)| name.get(at + 1..));
    std::iter::once(name).chain(ends).any(|end| {
        let untagged = end.split_once('@').map_or(end, |(of, _)| of);
        let untagged = match untagged.rsplit_once(':') {
            Some((of, tag)) if !tag.contains('/') => of,
            _ => untagged,
        };
        is_of_form(end, searched) || is_of_form(untagged, searched)
    })
}

/// Whether a text is of a form in which `*` is any text, and `?` any character.
fn is_of_form(text: &str, form: &str) -> bool {
    let (text, form): (Vec<char>, Vec<char>) = (text.chars().collect(), form.chars().collect());
    let (mut at, mut next) = (0, 0);
    // The last `*`, and how much of the text it stands for.
    let mut star = None;
    while at < text.len() {
        match form.get(next) {
            Some('*') => {
                star = Some((next, at));
                next += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[at] => {
                at += 1;
                next += 1;
            }
            _ => {
                let Some((place, until)) = star else { return false };
                star = Some((place, until + 1));
                (at, next) = (until + 1, place + 1);
            }
        }
    }
    form.iter().skip(next).all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::super::fields::Field;
    use super::*;
    use serde_json::json;

    const KIND: Kinds = Kinds {
        verb: "test",
        fields: &[
            Field::always("id", "ID", Kind::Id, "Its id."),
            Field::always("name", "NAME", Kind::Text, "Its name."),
            Field::always("state", "STATE", Kind::Text, "Its state."),
            Field::never("labels", Kind::Map, "Its labels."),
        ],
        id: "id",
        name: "name",
    };

    fn selected(filter: &str) -> Result<usize> {
        let rows = [
            json!({"id": "sha256:ab12", "name": "web-1", "state": "running", "labels": {"a": "b"}}),
            json!({"id": "cd34", "name": "db", "state": "exited", "labels": {}}),
        ];
        let rows = rows.iter().filter_map(|row| row.as_object().cloned()).collect();
        let filter = filter.parse().map_err(|text| Error::Usage { text })?;
        Ok(select(&KIND, rows, &[filter])?.len())
    }

    #[test]
    fn a_reference_has_the_wildcards_of_docker() {
        const IMAGE: &str = "docker.io/library/busybox:1.36";
        for form in
            ["busy*", "*box", "busybox:1*", "library/b*", "docker.io/*", "b?sybox", "busy", "*"]
        {
            assert!(has_part(IMAGE, form), "{form}");
        }
        for form in ["sy*", "busy?", "*busy", "nginx*", "busybox:2*", "?"] {
            assert!(!has_part(IMAGE, form), "{form}");
        }
        assert!(has_part("localhost:5000/web@sha256:ab", "web"));
        assert!(has_part("localhost:5000/web@sha256:ab", "w*b"));
    }

    #[test]
    fn filters_use_our_names_and_those_of_docker() {
        for (filter, count) in [
            ("id=ab", 1),
            ("id=b1", 0),
            ("name=web", 1),
            ("status=running", 1),
            ("state=run", 0),
            ("label=a", 1),
            ("label=a=b", 1),
            ("label=a=c", 0),
        ] {
            assert_eq!(selected(filter).unwrap(), count, "{filter}");
        }
        let said = selected("colour=red").unwrap_err().to_string();
        assert!(said.contains("id, name, state, labels"), "{said}");
        assert!(selected("name").is_err());
    }
}
