// SPDX-License-Identifier: Apache-2.0
//! Doc comments say what the caller needs: one or two words (`/// Why.`) repeat the name at best.
//!
//! How many a crate still has is in `allowed/short_docs.txt`, and may only shrink.

use crate::allowed;
use crate::lexer;
use crate::phrases::part;
use crate::sources::sources;

const LIST: &str = "short_docs.txt";
/// Fewest words of a doc comment.
const WORDS_MIN: usize = 3;

/// Whether a doc comment is too short. A link or a piece of code alone may say enough.
fn is_short(text: &str) -> bool {
    let count = text.split_whitespace().count();
    count > 0 && count < WORDS_MIN && !text.starts_with(['[', '`'])
}

#[test]
fn doc_comments_say_what_the_caller_needs() {
    let mut found = Vec::new();
    for source in sources() {
        let path = source.path.display().to_string();
        for (line, text) in lexer::docs(&lexer::split(&source.text).comments) {
            if is_short(&text) {
                let instead = "write a sentence with what the caller needs";
                found.push((part(&path), format!("{path}:{line}: `{text}`: {instead}")));
            }
        }
    }
    allowed::compare(LIST, "doc comments of one or two words", &found);
}

#[test]
fn only_doc_comments_of_one_or_two_words_are_short() {
    let short = |text: &str| {
        let docs = lexer::docs(&lexer::split(text).comments);
        docs.iter().filter(|(_, text)| is_short(text)).count()
    };
    assert_eq!(short("/// Why.\nfn f() {}\n/// Its name.\nfn g() {}\n"), 2);
    assert_eq!(short("/// [`Store`]\n\n/// `sha256:…`.\n\n// Why.\n\n/// Why it\n/// failed."), 0);
}
