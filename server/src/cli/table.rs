// SPDX-License-Identifier: Apache-2.0
//! Tables, and how they fit into a terminal. Pure.
//!
//! The rule: a figure is never cut, as it would be another figure or lose its unit. Where a table is too wide, names
//! are shortened and end with `…`; where that is not enough, columns are left out: first those that are empty, then
//! those that only a wide table has, then the others; of each, figures first, from the right, then names, then words
//! such as states. The first column stays, since it says what a row is about.

use hull_sys::text::shown;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Longest cell of a table, in bytes: the longest image reference with a digest fits.
const CELL_BYTES_MAX: usize = 512;
/// Columns of a terminal between two columns of the table.
const GAP: usize = 2;
/// A name is not shortened to fewer columns of the terminal than this.
const NAME_WIDTH_MIN: usize = 8;

/// The content of a column, which decides what may happen to it in a narrow terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Numbers with or without a unit: never cut, left out first.
    Figures,
    /// Names and other text of any length, which may be shortened.
    Names,
    /// Words of a few, and ids: never cut, left out last.
    Words,
}

/// Rows under headings, in columns as wide as their widest cell on a terminal, two spaces between.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Content)>,
    /// The places of the columns that only a wide table has.
    extra: Vec<usize>,
    rows: Vec<Vec<String>>,
    /// The number of rows, the first ones, that are measured and not printed.
    measured: usize,
    /// Whether the line of headings is printed.
    headed: bool,
    /// The terminal's width.
    width: Option<usize>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(columns: &[(&str, Content)]) -> Self {
        let columns = columns.iter().map(|(heading, content)| ((*heading).to_owned(), *content));
        Self {
            columns: columns.collect(),
            extra: Vec::new(),
            rows: Vec::new(),
            measured: 0,
            headed: true,
            width: None,
        }
    }

    /// The same table without the line of headings.
    pub(crate) fn bare(self) -> Self {
        Self { headed: false, ..self }
    }

    /// The same table, of which these columns are the first to be left out, after empty ones.
    pub(crate) fn with_extra(self, extra: Vec<usize>) -> Self {
        Self { extra, ..self }
    }

    /// Prints none of the first `count` rows: they only make columns as wide as they need.
    pub(crate) fn only_measure(&mut self, count: usize) {
        self.measured = count;
    }

    /// Fits the table into this many columns of a terminal.
    pub(crate) fn fit(&mut self, width: u16) {
        self.width = Some(usize::from(width));
    }

    /// Adds a row of as many cells as the table has columns; each is escaped, and cut to 512 bytes.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(|cell| shown(cell, CELL_BYTES_MAX)).collect());
    }

    /// The headings of the columns for which there is no room.
    pub(crate) fn left_out(&self) -> Vec<&str> {
        let widths = self.widths();
        let columns = self.columns.iter().zip(&widths);
        columns.filter(|(_, width)| width.is_none()).map(|((heading, _), _)| &**heading).collect()
    }

    /// The table as lines, without blanks at their ends.
    pub(crate) fn shown(&self) -> String {
        let widths = self.widths();
        let headings: Vec<String> = self.columns.iter().map(|of| of.0.clone()).collect();
        let head = self.headed.then_some(&headings);
        let rows = self.rows.iter().skip(self.measured);
        head.into_iter().chain(rows).map(|cells| line(cells, &widths)).collect()
    }

    /// The width of each column; none if it is left out.
    fn widths(&self) -> Vec<Option<usize>> {
        let heading = |text: &str| if self.headed { text.width() } else { 0 };
        let needs: Vec<Need> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (text, content))| {
                let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|of| of.width());
                let full = cells.chain([heading(text)]).max().unwrap_or(0);
                let least = match content {
                    Content::Names => full.min(heading(text).max(NAME_WIDTH_MIN)),
                    Content::Figures | Content::Words => full,
                };
                let is_blank = |row: &Vec<String>| {
                    row.get(at).is_none_or(|cell| matches!(cell.as_str(), "" | "-"))
                };
                let worth = if self.rows.iter().all(is_blank) {
                    Worth::Empty
                } else if self.extra.contains(&at) {
                    Worth::Extra
                } else {
                    Worth::Usual
                };
                Need { content: *content, worth, full, least }
            })
            .collect();
        match self.width {
            Some(width) => fitted(&needs, width),
            None => needs.iter().map(|need| Some(need.full)).collect(),
        }
    }
}

/// The loss if a column of the table is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// No row has anything in it.
    Empty,
    /// Only a wide table has it.
    Extra,
    Usual,
}

/// The columns of a terminal that a column of the table needs.
#[derive(Debug, Clone, Copy)]
struct Need {
    content: Content,
    worth: Worth,
    /// To show everything.
    full: usize,
    /// To be of use.
    least: usize,
}

/// The widths of the columns that have room; none for the others.
fn fitted(needs: &[Need], width: usize) -> Vec<Option<usize>> {
    let mut kept = vec![true; needs.len()];
    let all = |kept: &[bool], level: usize| {
        let shown = needs.iter().zip(kept).filter(|(_, kept)| **kept);
        let widths = shown.map(|(need, _)| at_level(need, level) + GAP);
        widths.sum::<usize>().saturating_sub(GAP)
    };
    let order = [Worth::Empty, Worth::Extra, Worth::Usual]
        .into_iter()
        .flat_map(|worth| [Content::Figures, Content::Names, Content::Words].map(|of| (worth, of)));
    for (worth, content) in order {
        let is_next = |at: &usize| (needs[*at].worth, needs[*at].content) == (worth, content);
        for at in (1..needs.len()).rev().filter(is_next) {
            if all(&kept, 0) > width {
                kept[at] = false;
            }
        }
    }
    // The widest names are shortened first, all to one width.
    let widest = needs.iter().map(|need| need.full).max().unwrap_or(0);
    let level = (0..=widest).rev().find(|level| all(&kept, *level) <= width).unwrap_or(0);
    let only_one = kept.iter().filter(|kept| **kept).count() == 1;
    let of = |(need, kept): (&Need, &bool)| {
        let cut = need.content == Content::Names && only_one;
        let most = if cut { width } else { usize::MAX };
        kept.then(|| at_level(need, level).min(most))
    };
    needs.iter().zip(&kept).map(of).collect()
}

/// The width of a column if names have `level` columns at most.
fn at_level(need: &Need, level: usize) -> usize {
    match need.content {
        Content::Names => need.full.min(level.max(need.least)),
        Content::Figures | Content::Words => need.full,
    }
}

/// One line of a table.
fn line(cells: &[String], widths: &[Option<usize>]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let Some(width) = *width else { continue };
        let text = shortened(cell, width);
        line.push_str(&text);
        let blanks = width.saturating_sub(text.width()) + GAP;
        line.extend(std::iter::repeat_n(' ', blanks));
    }
    line.truncate(line.trim_end_matches(' ').len());
    line.push('\n');
    line
}

/// The text, or as much of its beginning as fits with `…`.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::Content::{Figures, Names, Words};
    use super::*;

    fn table(columns: &[(&str, Content)], rows: &[&[&str]]) -> Table {
        let mut table = Table::new(columns);
        for row in rows {
            table.cells(row.iter().map(|cell| (*cell).to_owned()).collect());
        }
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let columns = [("NAME", Names), ("STATE", Words)];
        let shown = table(&columns, &[&["longer name", "ready"], &["é", ""]]).shown();
        assert_eq!(shown, "NAME         STATE\nlonger name  ready\né\n");
        let shown = table(&columns, &[&["漢字漢字漢字", "wide"]]).bare().shown();
        assert_eq!(shown, "漢字漢字漢字  wide\n");
    }

    #[test]
    fn names_are_shortened_before_anything_is_left_out() {
        let columns = [("NAME", Names), ("STATE", Words), ("SIZE", Figures)];
        let mut table = table(&columns, &[&[&"a".repeat(60), "running", "12.34 MiB"]]);
        table.fit(40);
        let shown = table.shown();
        let cut = "a".repeat(19) + "…";
        assert_eq!(shown.lines().nth(1), Some(format!("{cut}  running  12.34 MiB").as_str()));
        assert!(table.left_out().is_empty());
        table.fit(24);
        assert_eq!(table.left_out(), ["SIZE"]);
        table.fit(10);
        assert_eq!(table.left_out(), ["STATE", "SIZE"]);
        assert_eq!(table.shown().lines().nth(1), Some("aaaaaaaaa…"));
    }

    #[test]
    fn empty_columns_and_those_of_wide_tables_are_left_out_first() {
        let columns =
            [("ID", Words), ("NAME", Names), ("EXIT", Words), ("IMAGE", Names), ("UID", Words)];
        let mut table =
            table(&columns, &[&["0123", "web", "", "nginx", "abcdefgh"]]).with_extra(vec![4]);
        table.fit(34);
        assert!(table.left_out().is_empty());
        table.fit(28);
        assert_eq!(table.left_out(), ["EXIT"]);
        table.fit(20);
        assert_eq!(table.left_out(), ["EXIT", "UID"]);
        assert_eq!(table.shown(), "ID    NAME  IMAGE\n0123  web   nginx\n");
        table.fit(12);
        assert_eq!(table.left_out(), ["EXIT", "IMAGE", "UID"]);
    }

    #[test]
    fn no_figure_is_cut_at_any_width() {
        let columns = [
            ("POD", Names),
            ("CONTAINER", Names),
            ("CPU %", Figures),
            ("MEMORY", Figures),
            ("LIMIT", Figures),
            ("LEFT", Figures),
            ("DISK", Figures),
            ("STATE", Words),
        ];
        let pod = "coredns-7c65d6cfc9-x7k2p";
        let row = [
            pod,
            "coredns",
            "12.5",
            "12.34 MiB",
            "170.00 MiB",
            "157.66 MiB",
            "1.02 GiB",
            "running",
        ];
        let mut table = table(
            &columns,
            &[&row, &["漢字".repeat(9).as_str(), "", "", "", "", "", "", "exited"]],
        );
        for width in 1..200 {
            table.fit(width);
            let shown = table.shown();
            let left_out = table.left_out();
            for line in shown.lines() {
                assert!(line.width() <= usize::from(width), "{width}: {shown}");
            }
            for (at, cell) in row.iter().enumerate().skip(2) {
                let is_there = !left_out.contains(&columns[at].0);
                assert_eq!(shown.contains(cell), is_there, "{width}: {cell}: {shown}");
            }
        }
        table.fit(80);
        assert!(table.left_out().is_empty() || !table.left_out().contains(&"STATE"));
    }

    #[test]
    fn a_name_cannot_make_rows_or_reach_the_terminal() {
        let long = "long".repeat(1000);
        let shown = table(
            &[("NAME", Names), ("STATE", Words)],
            &[&["x\nforged  running\u{1b}[2J\u{202e}", &long]],
        )
        .shown();
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(shown.contains("x\\nforged") && shown.len() < 2 << 10, "{shown}");
    }
}
