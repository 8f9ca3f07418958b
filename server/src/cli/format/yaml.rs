// SPDX-License-Identifier: Apache-2.0
//! Values as YAML: block style, and strings in JSON's quotes unless they are plain words. Pure.

use serde_json::Value;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr as _;

/// A value as a YAML document.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Array(items) if !items.is_empty() => list(items, 0, &mut out),
        Value::Object(map) if !map.is_empty() => object(map.iter(), 0, &mut out),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
    out
}

/// The same document, with strings that are wider than `width` broken at blanks: a reader of YAML makes each break in a
/// quoted string a blank again. A string without blanks stays as wide as it is.
pub(super) fn folded(document: &str, width: usize) -> String {
    document.lines().map(|line| folded_line(line, width)).collect()
}

fn folded_line(line: &str, width: usize) -> String {
    let Some((start, indent)) = quoted_value(line).filter(|_| line.width() > width) else {
        return format!("{line}\n");
    };
    let (mut out, value) = (line[..start].to_owned(), &line[start..]);
    let mut column = out.width();
    for (at, word) in value.split(' ').enumerate() {
        // Of several blanks in a row a reader would keep one.
        let is_single =
            !matches!(word, "" | "\"") && out.len() > start + 1 && !out.ends_with([' ', '\\']);
        if at > 0 && is_single && column + 1 + word.width() > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.width();
    }
    out.push('\n');
    out
}

/// Where the quoted string begins that is the value in a line, and how far its further lines are indented: more than
/// what contains it.
fn quoted_value(line: &str) -> Option<(usize, usize)> {
    let blanks = line.len() - line.trim_start_matches(' ').len();
    let mut at = blanks;
    while line[at..].starts_with("- ") {
        at += 2;
    }
    let indent = at + 2;
    let rest = &line[at..];
    if let Some(key) = rest.strip_prefix('"') {
        let end = closing_quote(key)? + 2;
        return match rest[end..].strip_prefix(": ") {
            Some(value) => value.starts_with('"').then_some((at + end + 2, indent)),
            None => (rest.len() == end).then_some((at, indent)),
        };
    }
    let colon = rest.find(": ")?;
    rest[colon + 2..].starts_with('"').then_some((at + colon + 2, indent))
}

/// Where a string in JSON's quotes ends, without its first quote.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

fn object<'v>(
    entries: impl Iterator<Item = (&'v String, &'v Value)>,
    depth: usize,
    out: &mut String,
) {
    for (at, (key, value)) in entries.enumerate() {
        // The first key of an object in a list is on the line of its dash.
        if at > 0 || out.is_empty() || out.ends_with('\n') {
            indent(depth, out);
        }
        out.push_str(&string(key));
        out.push(':');
        nested(value, depth, out);
    }
}

/// A value after its key.
fn nested(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            list(items, depth, out);
        }
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            object(map.iter(), depth + 1, out);
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            // Writing to a String cannot fail.
            let _ = writeln!(out, " {}", scalar(value));
        }
    }
}

fn list(items: &[Value], depth: usize, out: &mut String) {
    for item in items {
        indent(depth, out);
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                object(map.iter(), depth + 1, out);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                list(inner, depth + 1, out);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let _ = writeln!(out, " {}", scalar(item));
            }
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.to_string(),
    }
}

/// A string; every JSON string is one of YAML.
fn string(text: &str) -> String {
    let first = text.chars().next();
    let starts_plain = first.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '_'));
    let is_plain = starts_plain
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'))
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if is_plain { text.to_owned() } else { Value::String(text.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn documents_are_in_block_style() {
        let value = json!({"a": [{"b": 1, "c": []}, "x y"], "d": {"e": null, "f": "no"}});
        let expected = "a:\n- b: 1\n  c: []\n- \"x y\"\nd:\n  e: null\n  f: \"no\"\n";
        assert_eq!(text(&value), expected);
        assert_eq!(text(&json!([])), "[]\n");
        assert_eq!(text(&json!([{"a": {"b": "c"}}])), "- a:\n    b: c\n");
    }

    #[test]
    fn wide_strings_are_broken_at_blanks_and_mean_the_same() {
        let long = "one two three four \\ five \"six\" seven";
        let value =
            json!({"a": {"k y": long, "plain": [long, {"x": long}]}, "b": "/a/path/that/is/long"});
        let wide = text(&value);
        let narrow = folded(&wide, 24);
        assert!(narrow.lines().all(|line| line.width() <= 24), "{narrow}");
        assert!(narrow.lines().count() > wide.lines().count());
        let back: Value = serde_saphyr::from_str(&narrow).unwrap();
        assert_eq!(back, value);
        assert_eq!(folded(&wide, 200), wide);
        // Of several blanks none is lost, though that makes a line wider.
        let blanks = json!({"a": "one two three  four   five", "b": " x ", "c": "- d: e # f"});
        let back: Value = serde_saphyr::from_str(&folded(&text(&blanks), 8)).unwrap();
        assert_eq!(back, blanks);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            Just(Value::Null)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-z:# ]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reader_of_yaml_gets_the_same_value(value in value()) {
            let back: Value = serde_saphyr::from_str(&text(&value)).unwrap();
            prop_assert_eq!(back, value);
        }

        #[test]
        fn a_reader_of_broken_lines_gets_the_same_value(value in value(), width in 5_usize..40) {
            let back: Value = serde_saphyr::from_str(&folded(&text(&value), width)).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
