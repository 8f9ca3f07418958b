// SPDX-License-Identifier: Apache-2.0
//! Templates for output: the part of Go's templates that people use with docker and kubectl. Pure.
//!
//! ```text
//! {{.name}}  {{.status.state}}  {{json .}}  {{json .labels}}  {{index .labels "a"}}  {{len .names}}
//! {{range .items}}…{{end}}  {{if .name}}…{{else}}…{{end}}  {{join .names ","}}  {{upper .x}} {{lower .x}}
//! table {{.id}}\t{{.name}}        \t and \n are a tab and a newline
//! ```
//!
//! Names of fields may be in any case: `{{.Names}}` is `{{.names}}`.

use super::super::table::{Content, Table};
use super::cell::plain;
use super::fields::Row;
use hull_sys::text::shown_lines;
use serde_json::Value;

/// Deepest nesting of `range` and `if`.
const DEPTH_MAX: usize = 16;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// Whether it began with `table`.
    table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Print(Expression),
    Range(Path, Vec<Part>),
    If(Path, Vec<Part>, Vec<Part>),
}

/// Keys below the current value; none is the value itself.
type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    Field(Path),
    Json(Path),
    Index(Path, String),
    Len(Path),
    Join(Path, String),
    Upper(Path),
    Lower(Path),
}

impl Template {
    /// Parses a template; the error says which part is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (rest, table) = match text.strip_prefix("table ") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let mut tokens = tokens(&unescape(rest))?.into_iter();
        let (parts, end) = block(&mut tokens, 0)?;
        match end {
            Closing::Text => Ok(Self { parts, table }),
            Closing::Else | Closing::End => {
                Err("it has an {{end}} or {{else}} without {{if}}".into())
            }
        }
    }

    /// The text for all rows, a line each.
    pub(super) fn all(&self, rows: &[Row]) -> Result<String, String> {
        let lines: Vec<String> = rows
            .iter()
            .map(|row| self.one(&Value::Object(row.clone())))
            .collect::<Result<_, _>>()?;
        if !self.table {
            return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
        }
        let headings: Vec<String> = self.headings();
        let columns: Vec<(&str, Content)> =
            headings.iter().map(|heading| (heading.as_str(), Content::Names)).collect();
        let mut table = Table::new(&columns);
        for line in &lines {
            let mut cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            cells.resize(headings.len(), String::new());
            table.cells(cells);
        }
        Ok(table.shown())
    }

    /// The text for one value.
    pub(super) fn one(&self, value: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.parts, value, &mut out)?;
        Ok(out)
    }

    /// The headings of a table: the names of the fields between tabs.
    fn headings(&self) -> Vec<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Print(
                    Expression::Field(path)
                    | Expression::Json(path)
                    | Expression::Index(path, _)
                    | Expression::Len(path)
                    | Expression::Join(path, _)
                    | Expression::Upper(path)
                    | Expression::Lower(path),
                ) => text.push_str(&path.last().map_or_else(String::new, |key| key.to_uppercase())),
                Part::Range(..) | Part::If(..) => {}
            }
        }
        text.split('\t').map(str::to_owned).collect()
    }
}

/// Replaces `\t` and `\n`, which shells pass on as two characters.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

enum Token {
    Text(String),
    Action(Vec<String>),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            out.push(Token::Text(before.to_owned()));
        }
        let (action, after) =
            after.split_once("}}").ok_or_else(|| "it has {{ without }}".to_owned())?;
        out.push(Token::Action(words(action)?));
        rest = after;
    }
    if !rest.is_empty() {
        out.push(Token::Text(rest.to_owned()));
    }
    Ok(out)
}

/// The words of an action; a string in double quotes is one word, with its first quote.
fn words(action: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = action.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (inside, after) = quoted
                    .split_once('"')
                    .ok_or_else(|| format!("a quote in `{}` is not closed", action.trim()))?;
                (format!("\"{inside}"), after)
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                (word.to_owned(), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// The end of a block.
enum Closing {
    Text,
    Else,
    End,
}

fn block(
    tokens: &mut impl Iterator<Item = Token>,
    depth: usize,
) -> Result<(Vec<Part>, Closing), String> {
    if depth > DEPTH_MAX {
        return Err(format!("it is nested more than {DEPTH_MAX} times"));
    }
    let mut parts = Vec::new();
    while let Some(token) = tokens.next() {
        let words = match token {
            Token::Text(text) => {
                parts.push(Part::Text(text));
                continue;
            }
            Token::Action(words) => words,
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["end"] => return Ok((parts, Closing::End)),
            ["else"] => return Ok((parts, Closing::Else)),
            ["range", of] => match block(tokens, depth + 1)? {
                (inner, Closing::End) => parts.push(Part::Range(path(of)?, inner)),
                _ => return Err("{{range}} has no {{end}}".into()),
            },
            ["if", of] => {
                let (then, end) = block(tokens, depth + 1)?;
                let otherwise = match end {
                    Closing::End => Vec::new(),
                    Closing::Else => block(tokens, depth + 1)?.0,
                    Closing::Text => return Err("{{if}} has no {{end}}".into()),
                };
                parts.push(Part::If(path(of)?, then, otherwise));
            }
            other => parts.push(Part::Print(expression(other)?)),
        }
    }
    Ok((parts, Closing::Text))
}

fn expression(words: &[&str]) -> Result<Expression, String> {
    match words {
        [of] if of.starts_with('.') => Ok(Expression::Field(path(of)?)),
        ["json", of] => Ok(Expression::Json(path(of)?)),
        ["len", of] => Ok(Expression::Len(path(of)?)),
        ["upper", of] => Ok(Expression::Upper(path(of)?)),
        ["lower", of] => Ok(Expression::Lower(path(of)?)),
        ["index", of, key] => {
            Ok(Expression::Index(path(of)?, key.trim_start_matches('"').to_owned()))
        }
        ["join", of, with] => {
            Ok(Expression::Join(path(of)?, with.trim_start_matches('"').to_owned()))
        }
        other => Err(format!(
            "`{}` is none of .FIELD, json, index, len, join, upper, lower, range, if",
            other.join(" ")
        )),
    }
}

fn path(text: &str) -> Result<Path, String> {
    let keys =
        text.strip_prefix('.').ok_or_else(|| format!("`{text}` does not begin with a dot"))?;
    Ok(keys.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect())
}

fn render(parts: &[Part], value: &Value, out: &mut String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            // Values come from images and containers; what is between them is the user's.
            Part::Print(expression) => out.push_str(&shown_lines(&printed(expression, value)?)),
            Part::Range(of, inner) => match find(value, of)? {
                Value::Array(items) => {
                    items.iter().try_for_each(|item| render(inner, item, out))?;
                }
                Value::Object(map) => {
                    map.values().try_for_each(|item| render(inner, item, out))?;
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    return Err(format!("`.{}` is neither a list nor an object", of.join(".")));
                }
            },
            Part::If(of, then, otherwise) => {
                let parts = if is_set(find(value, of)?) { then } else { otherwise };
                render(parts, value, out)?;
            }
        }
    }
    Ok(())
}

fn printed(expression: &Expression, value: &Value) -> Result<String, String> {
    Ok(match expression {
        Expression::Field(of) => plain(Some(find(value, of)?)),
        Expression::Json(of) => find(value, of)?.to_string(),
        Expression::Index(of, key) => {
            let of = find(value, of)?;
            let item = match key.parse::<usize>() {
                Ok(number) => of.get(number),
                Err(_) => of.get(key.as_str()),
            };
            plain(item)
        }
        Expression::Len(of) => match find(value, of)? {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(text) => text.len(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
        .to_string(),
        Expression::Join(of, with) => {
            let found = find(value, of)?;
            match found.as_array() {
                Some(items) => {
                    items.iter().map(|item| plain(Some(item))).collect::<Vec<_>>().join(with)
                }
                None => plain(Some(found)),
            }
        }
        Expression::Upper(of) => plain(Some(find(value, of)?)).to_uppercase(),
        Expression::Lower(of) => plain(Some(find(value, of)?)).to_lowercase(),
    })
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Names of fields in docker's templates, and ours.
const ELSEWHERE: [(&str, &str); 4] = [
    ("Status", "state"),
    ("CreatedAt", "created"),
    ("RunningFor", "created"),
    ("Repository", "name"),
];

fn find<'v>(value: &'v Value, path: &Path) -> Result<&'v Value, String> {
    let mut at = value;
    for key in path {
        let Value::Object(map) = at else {
            return Err(format!("there is no field `{key}` in a value that is not an object"));
        };
        let found = map.get(key).or_else(|| {
            map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
        });
        let found = found.or_else(|| {
            let other = ELSEWHERE.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            other.and_then(|(_, own)| map.get(*own))
        });
        at = found.ok_or_else(|| {
            let names: Vec<&str> = map.keys().map(String::as_str).collect();
            format!("there is no field `{key}`; there are {}", names.join(", "))
        })?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text(template: &str) -> Result<String, String> {
        let value = json!({
            "id": "ab", "names": ["x", "y"], "labels": {"k": "v"}, "up": true, "n": {"in": 5}
        });
        Template::parse(template)?.one(&value)
    }

    #[test]
    fn the_forms_of_docker_and_kubectl_are_understood() {
        for (template, expected) in [
            ("{{.id}} {{ .Names }}", "ab x,y"),
            ("{{.n.in}}", "5"),
            ("{{json .labels}}", "{\"k\":\"v\"}"),
            ("{{index .labels \"k\"}}{{index .names 1}}", "vy"),
            ("{{range .names}}<{{.}}>{{end}}", "<x><y>"),
            ("{{if .up}}yes{{else}}no{{end}}", "yes"),
            ("{{join .names \"; \"}} {{len .names}} {{upper .id}}", "x; y 2 AB"),
            ("a\\tb\\n", "a\tb\n"),
        ] {
            assert_eq!(text(template).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for template in [
            "{{.id",
            "{{printf .id}}",
            "{{id}}",
            "{{if .id}}",
            "{{end}}",
            "{{.none}}",
            "{{.id.x}}",
            "{{range .id}}{{end}}",
        ] {
            assert!(text(template).is_err(), "{template}");
        }
        assert!(text(&"{{if .id}}".repeat(100)).is_err());
    }

    #[test]
    fn a_table_has_headings() {
        let template = Template::parse("table {{.ID}}\\t{{.name}}").unwrap();
        let row = json!({"id": "1", "name": "web"}).as_object().cloned().unwrap();
        assert_eq!(template.all(&[row]).unwrap(), "ID  NAME\n1   web\n");
        let template = Template::parse("{{.Status}} {{.Repository}}").unwrap();
        let row = json!({"state": "running", "name": "web"}).as_object().cloned().unwrap();
        assert_eq!(template.all(&[row]).unwrap().trim_end(), "running web");
    }

    proptest! {
        #[test]
        fn no_template_panics(template in "[{}.a-z\" ]{0,40}") {
            let _either = text(&template);
        }
    }
}
