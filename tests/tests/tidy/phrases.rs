// SPDX-License-Identifier: Apache-2.0
//! Plain, active English: words and phrases that docs, comments, messages and help texts do without, each with
//! what to write instead.
//!
//! How many a crate still has is in `allowed/phrases.txt`, and may only shrink.

use crate::allowed;
use crate::lexer;
use crate::sources::{prose, sources};

const LIST: &str = "phrases.txt";
/// The file that has to write the phrases down.
const THIS: &str = "tests/tests/tidy/phrases.rs";

/// Words, with what to write instead. One ending in `*` stands for all words that begin so.
const WORDS: [(&str, &str); 12] = [
    ("anew", "again"),
    ("mend", "`hint` for advice, `repair` or `fix` for the action"),
    ("mends", "`hint` for advice, `repairs` or `fixes` for the action"),
    ("mended", "repaired, fixed"),
    ("mending", "repairing, fixing"),
    ("likewise", "say it again, or `the same for …`"),
    ("farewell", "shutdown, close"),
    ("goodbye", "shutdown, close"),
    ("whomever", "name the one who acts"),
    ("whoever", "name the one who acts: `a client that …`"),
    ("hears", "receives, is notified of"),
    ("thereof", "of it"),
];

/// Phrases of several words.
const PHRASES: [(&str, &str); 13] = [
    ("is told", "is notified, receives; programs are not told"),
    ("are told", "are notified, receive"),
    ("was told", "was notified, received"),
    ("be told", "be notified, receive"),
    ("told of", "notified of"),
    ("hear of", "receive, learn of"),
    ("asked after", "queried, requested"),
    ("ask after", "query, request"),
    ("asks after", "queries, requests"),
    ("has its say", "was called"),
    ("had its say", "was called"),
    ("had their say", "were called"),
    ("needs not", "does not need to"),
];

/// Words that a doc comment does not begin with: a noun phrase says what the item is.
const HEADLESS: [&str; 6] = ["What", "Who", "Whose", "Whom", "Whoever", "Whatever"];

/// One place where a phrase stands.
#[derive(Debug)]
struct Found {
    line: usize,
    phrase: String,
    instead: String,
}

/// The phrases in running text; `text` is one paragraph or file, of which blanks and lines do not matter.
fn in_text(text: &str, found: &mut Vec<Found>) {
    let mut words: Vec<(usize, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line;
        // What stands between backticks is code.
        while let Some((before, after)) = rest.split_once('`') {
            split(before, number + 1, &mut words);
            words.push((number + 1, "`".into()));
            rest = after.split_once('`').map_or("", |(_, after)| after);
        }
        split(rest, number + 1, &mut words);
    }
    for (at, (line, word)) in words.iter().enumerate() {
        let next = words.get(at + 1).map_or("", |(_, word)| word.as_str());
        let single = WORDS.iter().find(|(phrase, _)| word == phrase);
        let double = PHRASES.iter().find(|(phrase, _)| {
            let mut parts = phrase.split(' ');
            parts.next() == Some(word) && {
                let rest = words[at + 1..].iter().map(|(_, word)| word.as_str());
                parts.clone().eq(rest.take(parts.count()))
            }
        });
        for (phrase, instead) in single.into_iter().chain(double) {
            found.push(Found { line: *line, phrase: (*phrase).into(), instead: (*instead).into() });
        }
        let before = at.checked_sub(1).map_or("", |at| words[at].1.as_str());
        if is_no_noun(before, word, next, words.get(at + 2).map_or("", |(_, word)| word)) {
            let noun = &words[at + 2].1;
            found.push(Found {
                line: *line,
                phrase: format!("{word} no {noun}"),
                instead: format!("{word} not a {noun}"),
            });
        }
    }
}

/// "`x` is no path"; "there is no path" and "is no longer" are plain.
fn is_no_noun(before: &str, word: &str, next: &str, after: &str) -> bool {
    let is = matches!(word, "is" | "are" | "was" | "were");
    let plain =
        before == "there" || before == "." || matches!(after, "" | "longer" | "more" | "`" | ".");
    is && next == "no" && !plain
}

/// The words of a line, in lower case; a full stop is one, since a phrase does not go past it.
fn split(text: &str, line: usize, words: &mut Vec<(usize, String)>) {
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '\'' || c == '_' {
            word.extend(c.to_lowercase());
            continue;
        }
        if !word.is_empty() {
            words.push((line, std::mem::take(&mut word)));
        }
        if matches!(c, '.' | ':' | ';' | ',' | '"' | '(' | ')' | '|') {
            words.push((line, ".".into()));
        }
    }
}

/// Doc comments that begin with a relative that has no head.
fn in_doc_comments(comments: &str, found: &mut Vec<Found>) {
    for (line, text) in lexer::docs(comments) {
        let first = text.split_whitespace().next().unwrap_or_default();
        if HEADLESS.contains(&first) {
            found.push(Found {
                line,
                phrase: format!("a doc comment that begins with {first}"),
                instead: "a noun or a verb: `The …`, `Returns …`".into(),
            });
        }
    }
}

/// The crate that a file belongs to, as the lists name it.
pub(crate) fn part(path: &str) -> String {
    let mut parts = path.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match (first, second) {
        ("runtime", name) | ("server", name @ ("nri" | "streaming")) => format!("{first}/{name}"),
        ("server" | "network" | "image" | "proto" | "tests", _) => first.into(),
        _ => "docs".into(),
    }
}

/// All places, by crate.
fn everywhere() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut note = |path: &str, found: Vec<Found>| {
        for one in found {
            let text = format!("{path}:{}: `{}`: write {}", one.line, one.phrase, one.instead);
            all.push((part(path), text));
        }
    };
    for source in sources() {
        let path = source.path.display().to_string();
        if path == THIS {
            continue;
        }
        let parts = lexer::split(&source.text);
        let mut found = Vec::new();
        in_text(&parts.comments, &mut found);
        in_text(&parts.strings, &mut found);
        in_doc_comments(&parts.comments, &mut found);
        note(&path, found);
    }
    for source in prose() {
        let mut found = Vec::new();
        in_text(&source.text, &mut found);
        note(&source.path.display().to_string(), found);
    }
    all
}

#[test]
fn docs_and_messages_are_in_plain_english() {
    allowed::compare(LIST, "phrases that are not plain English", &everywhere());
}

#[test]
fn phrases_are_found_where_they_stand_and_plain_words_are_not() {
    let phrases = |text: &str| {
        let mut found = Vec::new();
        in_text(text, &mut found);
        found.into_iter().map(|one| one.phrase).collect::<Vec<_>>()
    };
    assert_eq!(phrases("made anew, and Likewise\nmended"), ["anew", "likewise", "mended"]);
    assert_eq!(phrases("/// `x` is no absolute path"), ["is no absolute"]);
    assert_eq!(phrases("the kubelet is\n/// told. It has told"), ["is told"]);
    assert_eq!(
        phrases("there is no path; it is no longer one. Is no. No. recommend `mend`"),
        [""; 0]
    );
    let docs = |text: &str| {
        let mut found = Vec::new();
        in_doc_comments(text, &mut found);
        found.len()
    };
    assert_eq!(docs("/// Looks.\n\n/// What it is.\n\n    /// Whose\n    /// it is."), 2);
    assert_eq!(
        docs("/// The network.\n/// Why.\n\n/// [`Network`]\n// Looks.\n/// Whatsoever it is"),
        0
    );
}
