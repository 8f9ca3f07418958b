// SPDX-License-Identifier: Apache-2.0
//! An error as the sentence that people read: the operation, its causes and the hint, escaped and bounded.

use super::{Chain, Error};
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::borrow::Cow;

/// Longest hint, in bytes. It has room of its own, so that a long message does not cost the hint.
pub(crate) const HINT_BYTES_MAX: usize = 2 << 10;

/// Stands for the middle of a long text.
const LEFT_OUT: &str = "[…]";
/// Longest word of a message, in bytes: longer than ids, digests and what else is to be copied from it.
const WORD_BYTES_MAX: usize = 400;

/// "cannot", the operation with its causes, and the hint.
pub(crate) fn message(error: &dyn std::error::Error, hint: Option<String>) -> String {
    let chain = shown_message(&Chain(error).to_string(), MESSAGE_BYTES_MAX);
    match hint {
        Some(hint) => {
            let hint = shown_message(&hint, HINT_BYTES_MAX);
            format!("cannot {chain} (hint: {hint})")
        }
        None => format!("cannot {chain}"),
    }
}

/// A message as [`shown`], with the middle of what is long left out: of a word, and of the whole. What failed stands at
/// a message's beginning and why at its end, with paths of any length between them.
fn shown_message(text: &str, max_bytes: usize) -> String {
    let whole = shown(text, usize::MAX);
    let mut out = String::with_capacity(whole.len().min(max_bytes));
    for word in whole.split_inclusive(' ') {
        out.push_str(&without_middle(word, WORD_BYTES_MAX));
    }
    without_middle(&out, max_bytes).into_owned()
}

/// The two ends of `text`, as much of each as fits.
fn without_middle(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let end = max_bytes.saturating_sub(LEFT_OUT.len()) / 2;
    let (head, tail) = (text.floor_char_boundary(end), text.ceil_char_boundary(text.len() - end));
    Cow::Owned([&text[..head], LEFT_OUT, &text[tail..]].concat())
}

/// The sentence that the kubelet shows, also kept as the reason of a container that never ran.
pub(crate) fn sentence(error: &Error) -> String {
    message(error, error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_what_failed_and_why() {
        let path = "/größe".repeat(1000);
        let message = format!("open log file `{path}`: openat({path}): ENAMETOOLONG");
        let text = shown_message(&message, 4096);
        assert!(text.starts_with("open log file `/größe") && text.ends_with("): ENAMETOOLONG"));
        assert!(text.len() < 2 * WORD_BYTES_MAX + 100, "{text}");
        let words = format!("begin {} end\n", "a b ".repeat(5000));
        for most in [20, 100, 101, 4096] {
            let text = shown_message(&words, most);
            assert!(text.len() <= most, "{most}: {text}");
            assert!(text.starts_with("begin") && text.ends_with("end\\n"), "{most}: {text}");
        }
        assert_eq!(shown_message("as it is", 4096), "as it is");
    }
}
