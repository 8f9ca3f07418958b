// SPDX-License-Identifier: Apache-2.0
//! The docs as a book: its pages (docs/SUMMARY.md), their headings and links, and where each link leads in the book.
//!
//! Markdown is read as far as this project writes it: fenced blocks, code between backticks, inline links. A page may
//! show a file of the root by `{{#include ../FILE}}`; its links are then those of that file.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// The folder of the book's pages.
pub const DOCS: &str = "docs";
/// The list of the book's pages, in `DOCS`.
pub const SUMMARY: &str = "SUMMARY.md";

/// A link, or an image, of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its place in the text, brackets included.
    pub range: Range<usize>,
    /// Its line, from 1.
    pub line: usize,
    /// The text that a reader sees.
    pub text: String,
    /// The address that it leads to.
    pub target: String,
    /// Whether it shows an image.
    pub is_image: bool,
}

/// A page of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its file, from the project's folder.
    pub file: PathBuf,
    /// The file whose text it shows, from the project's folder: its own, or the one that it includes.
    pub source: PathBuf,
}

/// The text with all code blanked: as long as before, line by line.
#[must_use]
pub fn without_code(text: &str) -> String {
    let mut bytes = without_blocks(text).into_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let ticks = run_of_ticks(&bytes, at);
        if ticks == 0 {
            at += 1;
            continue;
        }
        match closing(&bytes, at + ticks, ticks) {
            Some(end) => {
                blank(&mut bytes[at..end]);
                at = end;
            }
            None => at += ticks,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text with fenced blocks blanked.
fn without_blocks(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let (mut start, mut inside) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_fence = line.trim_start().starts_with("```");
        if inside || is_fence {
            blank(&mut bytes[start..start + line.len()]);
        }
        inside ^= is_fence;
        start += line.len();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn run_of_ticks(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().take_while(|byte| **byte == b'`').count()
}

/// The end of code that as many backticks close; code does not go on behind a paragraph.
fn closing(bytes: &[u8], from: usize, ticks: usize) -> Option<usize> {
    let mut at = from;
    while at < bytes.len() && !bytes[at..].starts_with(b"\n\n") {
        match run_of_ticks(bytes, at) {
            0 => at += 1,
            run if run == ticks => return Some(at + run),
            run => at += run,
        }
    }
    None
}

/// The links of a page, in their order.
#[must_use]
pub fn links(text: &str) -> Vec<Link> {
    let plain = without_code(text);
    let found = plain.match_indices("](").filter_map(|(middle, _)| {
        let open = opening(&plain[..middle])?;
        let end = middle + 2 + plain[middle + 2..].find(')')?;
        let is_image = plain[..open].ends_with('!');
        Some(Link {
            range: open - usize::from(is_image)..end + 1,
            line: plain[..open].matches('\n').count() + 1,
            text: text[open + 1..middle].to_owned(),
            target: text[middle + 2..end].to_owned(),
            is_image,
        })
    });
    found.collect()
}

/// The bracket that opens the text of a link which ends here.
fn opening(before: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in before.char_indices().rev() {
        match c {
            ']' => depth += 1,
            '[' if depth == 0 => return Some(at),
            '[' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The anchors of a page's headings, as GitHub and mdBook name them.
#[must_use]
pub fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let blocks = without_blocks(text);
    let headings = blocks.lines().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        let level = line.len() - heading.len();
        (1..=6).contains(&level).then(|| heading.strip_prefix(' ')).flatten()
    });
    let anchor = |heading: &str| {
        let name: String = heading.trim().chars().filter_map(in_anchor).collect();
        let before = seen.entry(name.clone()).or_default();
        *before += 1;
        if *before == 1 { name } else { format!("{name}-{}", *before - 1) }
    };
    headings.map(anchor).collect()
}

fn in_anchor(c: char) -> Option<char> {
    match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ if c.is_alphanumeric() => c.to_lowercase().next(),
        _ => None,
    }
}

/// Whether an address is not one of the project's files.
#[must_use]
pub fn is_elsewhere(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// An address in its two parts: the file, from the project's folder, and the anchor. The file is that of the link if
/// the address names none.
#[must_use]
pub fn resolved(source: &Path, target: &str) -> (PathBuf, Option<String>) {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
        None => (target, None),
    };
    if path.is_empty() {
        return (source.to_owned(), anchor);
    }
    let mut file = PathBuf::new();
    for part in source.parent().unwrap_or(Path::new("")).join(path).components() {
        match part {
            // A path that climbs out of the project is none of its files.
            Component::ParentDir if !file.pop() => return (PathBuf::from(target), anchor),
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => file.push(part),
        }
    }
    (file, anchor)
}

/// The pages of the book in their order, as `docs/SUMMARY.md` below `root` lists them.
///
/// # Errors
/// A sentence that names the file which cannot be read.
pub fn pages(root: &Path) -> Result<Vec<Page>, String> {
    let read = |file: &Path| {
        fs::read_to_string(root.join(file)).map_err(|err| format!("read {}: {err}", file.display()))
    };
    let summary = Path::new(DOCS).join(SUMMARY);
    let entries = links(&read(&summary)?);
    let page = |link: Link| {
        let (file, _) = resolved(&summary, &link.target);
        let text = read(&file)?;
        let source = match included(&text) {
            Some(path) => resolved(&file, path).0,
            None => file.clone(),
        };
        Ok(Page { file, source })
    };
    entries.into_iter().map(page).collect()
}

/// The file that a page includes.
#[must_use]
pub fn included(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("{{#include ")?;
    rest.split_once("}}").map(|(path, _)| path.trim())
}

/// The text of a page with its links as the book needs them: to pages of the book, and to files beside them. A link
/// to any other file of the project becomes its text and the file's name.
#[must_use]
pub fn for_book(text: &str, source: &Path, pages: &[Page]) -> String {
    let mut rewritten = text.to_owned();
    // From the last one on, so that the places of those before stay.
    for link in links(text).into_iter().rev().filter(|link| !is_elsewhere(&link.target)) {
        rewritten.replace_range(link.range.clone(), &in_book(&link, source, pages));
    }
    rewritten
}

fn in_book(link: &Link, source: &Path, pages: &[Page]) -> String {
    let (file, anchor) = resolved(source, &link.target);
    let anchor = anchor.map_or(String::new(), |anchor| format!("#{anchor}"));
    let mark = if link.is_image { "!" } else { "" };
    if link.target.starts_with('#') {
        return format!("{mark}[{}]({anchor})", link.text);
    }
    let page = pages.iter().find(|page| page.source == file).map(|page| &page.file);
    let own = page.or_else(|| (file.extension().is_some_and(|of| of == "svg")).then_some(&file));
    match own.and_then(|file| file.strip_prefix(DOCS).ok()) {
        Some(place) => format!("{mark}[{}]({}{anchor})", link.text, place.display()),
        None if link.text.trim_matches(['`', '/']) == file.to_string_lossy() => link.text.clone(),
        None => format!("{} (`{}`)", link.text, file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A `page` of it\n\nSee [the\nother](other.md#top-1), ![a](x.svg) and `[no](link)`.\n\n\
                        ```sh\n# no heading [no](link)\n```\n\n## Top\n\n## Top\n";

    #[test]
    fn links_and_anchors_are_found_outside_of_code() {
        let found = links(TEXT);
        let seen: Vec<_> = found
            .iter()
            .map(|link| (link.line, &*link.text, &*link.target, link.is_image))
            .collect();
        assert_eq!(seen, [(3, "the\nother", "other.md#top-1", false), (4, "a", "x.svg", true)]);
        assert_eq!(&TEXT[found[1].range.clone()], "![a](x.svg)");
        assert_eq!(anchors(TEXT), ["a-page-of-it", "top", "top-1"]);
        assert_eq!(without_code("a ``b ` c`` d ` e").len(), 17);
        assert_eq!(without_code("a `é` b"), "a      b");
    }

    #[test]
    fn an_address_leads_to_a_file_of_the_project() {
        let to = |source: &str, target: &str| {
            let (file, anchor) = resolved(Path::new(source), target);
            (file.to_string_lossy().into_owned(), anchor.unwrap_or_default())
        };
        assert_eq!(to("docs/a.md", "../README.md#x"), ("README.md".into(), "x".into()));
        assert_eq!(to("docs/a.md", "b.md"), ("docs/b.md".into(), String::new()));
        assert_eq!(to("docs/a.md", "#here"), ("docs/a.md".into(), "here".into()));
        assert_eq!(to("README.md", "../x").0, "../x");
        assert!(is_elsewhere("https://x/") && is_elsewhere("mailto:a@b") && !is_elsewhere("a.md"));
    }

    #[test]
    fn links_of_the_book_lead_to_its_pages() {
        let page = |file: &str, source: &str| Page { file: file.into(), source: source.into() };
        let pages = [page("docs/start.md", "README.md"), page("docs/a.md", "docs/a.md")];
        let text = "[a](docs/a.md#x) [tests](tests/) [scripts/x](scripts/x) ![c](docs/charts/c.svg) [t](#t) \
                    [e](https://e/) [r](README.md)";
        assert_eq!(
            for_book(text, Path::new("README.md"), &pages),
            "[a](a.md#x) tests scripts/x ![c](charts/c.svg) [t](#t) [e](https://e/) [r](start.md)"
        );
        assert_eq!(for_book("[b](../b.rs)", Path::new("docs/a.md"), &pages), "b (`b.rs`)");
        assert_eq!(included("<!-- x -->\n{{#include ../A.md}}\n"), Some("../A.md"));
        assert_eq!(included("{{include}}"), None);
    }
}
