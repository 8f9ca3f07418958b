// SPDX-License-Identifier: Apache-2.0
//! Links of the docs lead to files and headings that are there, and the book has all pages.

use crate::report;
use crate::sources::{Source, prose};
use hull_tests::{ExpectExt as _, book, paths, shell};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The project's Markdown files.
fn pages() -> impl Iterator<Item = Source> {
    prose().into_iter().filter(|source| source.path.extension().is_some_and(|of| of == "md"))
}

/// Why a link leads nowhere.
fn fault(source: &Path, target: &str) -> Option<String> {
    if book::is_elsewhere(target) {
        return None;
    }
    let (file, anchor) = book::resolved(source, target);
    let there = paths::root().join(&file);
    if !there.try_exists().or_fail("look for a file") {
        return Some(format!("{} is not there: write where it is now", file.display()));
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&there).or_fail(format!("read {}", file.display()));
    let anchors = book::anchors(&text);
    (!anchors.contains(&anchor)).then(|| {
        format!("{} has no heading `#{anchor}`: it has {}", file.display(), anchors.join(", "))
    })
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for link in book::links(&page.text) {
            seen += 1;
            let why = fault(&page.path, &link.target);
            wrong.extend(why.map(|why| format!("{}:{}: {why}", page.path.display(), link.line)));
        }
    }
    report(&wrong);
    assert!(seen > 30, "tidy found only {seen} links");
}

#[test]
fn a_link_to_a_missing_file_or_heading_is_found() {
    let from = Path::new("docs/security.md");
    assert_eq!(fault(from, "../SECURITY.md#reporting"), None);
    assert_eq!(fault(from, "https://example.org/x#y"), None);
    assert!(fault(from, "../SECURITY.md#nowhere").or_fail("find it").contains("reporting"));
    assert!(fault(from, "nowhere.md").or_fail("find it").contains("docs/nowhere.md"));
}

#[test]
fn every_page_is_in_the_summary_of_the_book_once() {
    let root = paths::root();
    let listed = book::pages(&root).unwrap_or_else(|why| panic!("docs/SUMMARY.md: {why}"));
    let names: Vec<String> =
        listed.iter().map(|page| page.file.to_string_lossy().into_owned()).collect();
    let docs = shell::names(&root.join(book::DOCS));
    let docs = docs.iter().filter(|name| name.ends_with(".md") && *name != book::SUMMARY);
    let mut wrong: Vec<String> = docs
        .map(|name| format!("{}/{name}", book::DOCS))
        .filter(|file| !names.contains(file))
        .map(|file| format!("{file} is not in docs/SUMMARY.md: add a line for it"))
        .collect();
    let unique: BTreeSet<&String> = names.iter().collect();
    if unique.len() != names.len() {
        wrong.push("docs/SUMMARY.md lists a page twice".into());
    }
    // A page that includes a file has that file's links, so it has no text of its own.
    for page in listed.iter().filter(|page| page.file != page.source) {
        let text = fs::read_to_string(root.join(&page.file)).or_fail("read a page");
        let own = text.lines().filter(|line| {
            !line.is_empty() && !line.starts_with("<!--") && book::included(line).is_none()
        });
        wrong.extend(own.map(|line| {
            format!("{}: `{line}`: write it in {}", page.file.display(), page.source.display())
        }));
    }
    report(&wrong);
}

#[test]
fn links_of_the_book_lead_to_its_pages() {
    let root = paths::root();
    let pages = book::pages(&root).unwrap_or_else(|why| panic!("docs/SUMMARY.md: {why}"));
    let mut wrong = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(root.join(&page.source)).or_fail("read a page");
        for link in book::links(&book::for_book(&text, &page.source, &pages)) {
            let (file, _) = book::resolved(&page.file, &link.target);
            let is_page = pages.iter().any(|of| of.file == file);
            let is_there = root.join(&file).is_file();
            if !book::is_elsewhere(&link.target) && !(is_there && (is_page || link.is_image)) {
                wrong.push(format!("{}: {} is not in the book", page.file.display(), link.target));
            }
        }
    }
    report(&wrong);
}
