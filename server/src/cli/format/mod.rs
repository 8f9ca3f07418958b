// SPDX-License-Identifier: Apache-2.0
//! Output of the commands that print objects: one list of fields per kind of object makes its table, its JSON, its
//! filters and its documentation.
//!
//! The rule: a table, JSON, YAML and a template show the same objects; a column is a field of the JSON document.

mod cell;
mod colour;
mod fields;
mod filter;
pub(crate) mod schema;
mod template;
mod yaml;

pub(crate) use cell::time;
pub(crate) use fields::{Field, Kind, Kinds, Row};
pub(crate) use filter::Filter;

use super::error::{Error, Result};
use super::output;
use super::table::Table;
use clap::Args;
use fields::Show;
use hull_sys::text::shown_lines;
use serde_json::Value;
use template::Template;

/// The form in which objects are printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Format {
    #[default]
    Table,
    Wide,
    Json,
    /// One JSON object per line.
    JsonLines,
    Yaml,
    Name,
    Template(Template),
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::JsonLines),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            _ => match text.split_once('=') {
                Some(("go-template" | "template", template)) => {
                    Template::parse(template).map(Self::Template)
                }
                _ => {
                    Err("it is none of table, wide, json, jsonl, yaml, name, go-template=TEMPLATE"
                        .into())
                }
            },
        }
    }
}

/// The value of `--format`: a template, or the name of a format, as docker has it.
pub(crate) fn docker_format(text: &str) -> Result<Format, String> {
    match text {
        "json" => Ok(Format::JsonLines),
        "table" => Ok(Format::Table),
        _ => Template::parse(text).map(Format::Template),
    }
}

/// The options of the commands that print one kind of objects.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct OutputArgs {
    /// Output format: table, wide, json, jsonl, yaml, name, or go-template=TEMPLATE [default: table]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Print each object by a template, as in '{{.name}} {{.id}}'; or `json` for one object per line
    #[arg(long, value_name = "TEMPLATE", value_parser = docker_format, conflicts_with = "output")]
    pub(crate) format: Option<Format>,
    /// Do not shorten ids and digests in tables
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print tables without the line of headings
    #[arg(long)]
    pub(crate) no_headers: bool,
}

impl OutputArgs {
    /// The selected format.
    pub(crate) fn selected(&self) -> Format {
        self.output.clone().or_else(|| self.format.clone()).unwrap_or_default()
    }

    /// The same options with `format` in place of the table, if no format was selected.
    pub(crate) fn or(&self, format: Format) -> Self {
        let output = Some(self.output.clone().or_else(|| self.format.clone()).unwrap_or(format));
        Self { output, format: None, ..self.clone() }
    }
}

/// The options that select among listed objects.
#[derive(Debug, Args, Clone, Default)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Print only full ids
    #[arg(short, long, conflicts_with_all = ["output", "format"])]
    pub(crate) quiet: bool,
    /// List only objects with this value of a field, as in state=running or label=KEY=VALUE; may be repeated
    #[arg(short, long, value_name = "FIELD=VALUE")]
    pub(crate) filter: Vec<Filter>,
}

/// Prints the rows that the filters select. A filter of a field that the objects do not have is an error.
pub(crate) fn list(kind: &Kinds, rows: Vec<Row>, args: &ListArgs) -> Result<()> {
    let rows = filter::select(kind, rows, &args.filter)?;
    if args.quiet {
        let ids = rows.iter().map(|row| cell::plain(row.get(kind.id)));
        // A step of an image without a layer has none.
        let ids = ids.filter(|id| !id.is_empty());
        return output::print(&ids.map(|id| id + "\n").collect::<String>());
    }
    print(kind, &rows, &args.output)
}

/// Whether the filters select this row.
pub(crate) fn selects(kind: &Kinds, row: &Row, args: &ListArgs) -> Result<bool> {
    Ok(!filter::select(kind, vec![row.clone()], &args.filter)?.is_empty())
}

/// Prints one row of a list whose rows come one by one: the columns are as wide as those of a table that has the rows of
/// `measured`, too.
pub(crate) fn live(kind: &Kinds, measured: &[Row], row: Row, args: &ListArgs) -> Result<()> {
    let is_wide = args.output.selected() == Format::Wide;
    if args.quiet || !(is_wide || args.output.selected() == Format::Table) {
        return list(kind, vec![row], args);
    }
    let rows: Vec<Row> = measured.iter().cloned().chain([row]).collect();
    let mut table = table(kind, &rows, &args.output, is_wide, output::terminal_width());
    table.only_measure(measured.len());
    print_table(&table, is_wide && !args.output.no_headers, &args.output)
}

/// Prints a table. With `says_left_out`, columns without room are named: they were asked for.
fn print_table(table: &Table, says_left_out: bool, args: &OutputArgs) -> Result<()> {
    coloured(&table.shown(), args)?;
    if let left_out @ [_, ..] = table.left_out().as_slice()
        && says_left_out
    {
        let left_out = left_out.join(", ");
        let text = format!("no room for {left_out}; --no-trunc prints all columns");
        output::to_stderr(&wrapped(&text, output::terminal_width()));
    }
    Ok(())
}

/// Prints rows in the selected format.
pub(crate) fn print(kind: &Kinds, rows: &[Row], args: &OutputArgs) -> Result<()> {
    match args.selected() {
        format @ (Format::Table | Format::Wide) => {
            let is_wide = format == Format::Wide;
            print_table(&table(kind, rows, args, is_wide, output::terminal_width()), is_wide, args)
        }
        Format::Json => {
            let all = Value::Array(rows.iter().cloned().map(Value::Object).collect());
            output::json(&format!("{all:#}\n"))
        }
        Format::JsonLines => rows
            .iter()
            .try_for_each(|row| output::json(&format!("{}\n", Value::Object(row.clone())))),
        Format::Yaml => {
            let all = Value::Array(rows.iter().cloned().map(Value::Object).collect());
            output::json(&yaml::text(&all))
        }
        Format::Name => {
            rows.iter().filter_map(|row| name(kind, row)).try_for_each(|name| output::line(&name))
        }
        Format::Template(template) => {
            let text = template.all(rows);
            output::raw(&text.map_err(|text| Error::Usage { text })?)
        }
    }
}

/// The name of an object, or its id if it has no name; none if it has neither, as a step of an image without a layer.
fn name(kind: &Kinds, row: &Row) -> Option<String> {
    let texts = [kind.name, kind.id].map(|key| cell::plain(row.get(key)));
    // An image without a name has a dash for it.
    texts.into_iter().find(|text| !matches!(text.as_str(), "" | "-"))
}

/// Prints a table, on a terminal with bold headings and states in colours.
fn coloured(text: &str, args: &OutputArgs) -> Result<()> {
    if !output::has_colours() || args.no_headers {
        return output::print(text);
    }
    output::raw(&colour::table(&shown_lines(text)))
}

/// Prints one document, which is not a list, or its names. A table is printed as YAML, which people read more easily.
pub(crate) fn document(value: &Value, names: &[String], args: &OutputArgs) -> Result<()> {
    match args.selected() {
        Format::Json => output::json(&format!("{value:#}\n")),
        Format::JsonLines => output::json(&format!("{value}\n")),
        Format::Table | Format::Wide => {
            let width = output::terminal_width().filter(|_| !args.no_trunc).map(usize::from);
            output::json(
                &width.map_or_else(
                    || yaml::text(value),
                    |width| yaml::folded(&yaml::text(value), width),
                ),
            )
        }
        Format::Yaml => output::json(&yaml::text(value)),
        Format::Name => names.iter().try_for_each(|name| output::line(name)),
        Format::Template(template) => {
            let text = template.one(value).map_err(|text| Error::Usage { text })?;
            output::print(&format!("{text}\n"))
        }
    }
}

/// The text in lines that fit into the terminal, broken between words.
fn wrapped(text: &str, width: Option<u16>) -> String {
    let width = width.map_or(usize::MAX, usize::from);
    let (mut lines, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        if used > 0 && used + 1 + word.len() > width {
            lines.push('\n');
            used = 0;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines.push_str(word);
        used += word.len();
    }
    lines + "\n"
}

/// The cell of a table for a field of a row.
pub(crate) fn cell(field: &Field, row: &Row) -> String {
    cell::text(field, row.get(field.key), false, hull_sys::time::now_ns())
}

fn table(kind: &Kinds, rows: &[Row], args: &OutputArgs, wide: bool, width: Option<u16>) -> Table {
    let shown = |field: &&Field| match field.show {
        Show::Never => false,
        Show::Wide => wide,
        Show::Always => true,
    };
    let fields: Vec<&Field> = kind.fields.iter().filter(shown).collect();
    let is_extra = |(at, field): (usize, &&Field)| (field.show == Show::Wide).then_some(at);
    let extra = fields.iter().enumerate().filter_map(is_extra).collect();
    let mut table = empty_table(&fields).with_extra(extra);
    if args.no_headers {
        table = table.bare();
    }
    if let (Some(width), false) = (width, args.no_trunc) {
        table.fit(width);
    }
    let now = hull_sys::time::now_ns();
    for row in rows {
        let cell = |field: &&Field| cell::text(field, row.get(field.key), args.no_trunc, now);
        table.cells(fields.iter().map(cell).collect());
    }
    table
}

/// A table with these fields as its columns, without rows.
pub(crate) fn empty_table(fields: &[&Field]) -> Table {
    let columns: Vec<_> =
        fields.iter().map(|field| (field.heading, field.kind.content())).collect();
    Table::new(&columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KIND: Kinds = Kinds {
        verb: "test",
        fields: &[
            Field::always("id", "ID", Kind::Id, "Its id."),
            Field::always("name", "NAME", Kind::Text, "Its name."),
            Field::wide("size", "SIZE", Kind::Bytes, "Its size."),
            Field::never("labels", Kind::Map, "Its labels."),
        ],
        id: "id",
        name: "name",
    };

    fn row() -> Row {
        let row =
            json!({"id": "0123456789abcdef", "name": "web", "size": 1024, "labels": {"a": "b"}});
        row.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_table_has_the_fields_of_its_width() {
        let args = OutputArgs::default();
        assert_eq!(
            table(&KIND, &[row()], &args, false, None).shown(),
            "ID            NAME\n0123456789ab  web\n"
        );
        let args = OutputArgs { no_trunc: true, no_headers: true, ..args };
        assert_eq!(
            table(&KIND, &[row()], &args, true, None).shown(),
            "0123456789abcdef  web  1.00 KiB\n"
        );
    }

    #[test]
    fn a_line_about_a_table_fits_into_the_terminal() {
        assert_eq!(wrapped("no room for A, B; C", Some(8)), "no room\nfor A,\nB; C\n");
        assert_eq!(wrapped("no room for A", None), "no room for A\n");
    }

    #[test]
    fn an_object_without_a_name_has_its_id() {
        assert_eq!(name(&KIND, &row()).as_deref(), Some("web"));
        let unnamed =
            Row::from_iter([("id".to_owned(), json!("01")), ("name".to_owned(), json!(""))]);
        assert_eq!(name(&KIND, &unnamed).as_deref(), Some("01"));
        assert_eq!(name(&KIND, &Row::new()), None);
    }

    #[test]
    fn formats_are_parsed_by_name() {
        for (text, format) in
            [("table", Format::Table), ("yaml", Format::Yaml), ("json", Format::Json)]
        {
            assert_eq!(text.parse::<Format>().unwrap(), format);
        }
        assert!(matches!("go-template={{.id}}".parse().unwrap(), Format::Template(_)));
        "xml".parse::<Format>().unwrap_err();
        "go-template={{.id".parse::<Format>().unwrap_err();
    }
}
