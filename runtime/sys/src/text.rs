// SPDX-License-Identifier: Apache-2.0
//! Text from outside (programs, images, registries, pods, the kernel's log) on its way into a
//! message that a person reads: on a terminal, in a log file, in a Kubernetes event.
//!
//! ```text
//! bytes ─▶ shown ──────▶ one line, for terminals and logs
//! lines ─▶ shown_lines ▶ the same for text whose line ends are its own
//! JSON ──▶ shown_json ─▶ the same document, hidden characters as \uXXXX
//! ```
//!
//! The rule: what is hidden or changes how other text is displayed is written out. That is every
//! control character (C0, DEL, C1), whatever is not UTF-8, line and paragraph separators, and the
//! invisible format characters of Unicode, among them those that reorder text (`ECMA-48`, UAX #9,
//! Unicode TR36). All else stays, also the backslash: text that was shown already stays the same.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Marks text that was cut.
const CUT: char = '…';

/// Bytes of one message at most, in its place in a longer text.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// `text` as one line without hidden characters, of at most `max_bytes` bytes; what is longer is cut
/// between two characters and ends with `…`. A newline becomes `\n`, ESC `\u{1b}`, a byte that is
/// not UTF-8 `\xff`.
#[must_use]
pub fn shown(text: impl AsRef<[u8]>, max_bytes: usize) -> String {
    let text = text.as_ref();
    let mut out = String::with_capacity(text.len().min(max_bytes));
    // How much of `out` may stay when there is more to come.
    let mut whole = 0;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut out, c);
            if !keep(&mut out, &mut whole, max_bytes) {
                return out;
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\x{byte:02x}");
            if !keep(&mut out, &mut whole, max_bytes) {
                return out;
            }
        }
    }
    out
}

/// Lines of our own making, with text from outside in them: as [`shown`], unlimited, and line ends
/// stay.
#[must_use]
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, push)
}

/// A JSON document that has hidden characters in its strings only as escapes (RFC 8259, section 7).
/// JSON itself allows DEL, C1 and all format characters as they are.
#[must_use]
pub fn shown_json(document: &str) -> Cow<'_, str> {
    escaped(document, |out, c| {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "\\u{unit:04x}");
        }
    })
}

/// `text` with every hidden character but line ends put through `escape`.
fn escaped(text: &str, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    let stands_out = |c: char| c != '\n' && is_hidden(c);
    if !text.chars().any(stands_out) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if stands_out(c) { escape(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

fn push(out: &mut String, c: char) {
    if is_hidden(c) {
        out.extend(c.escape_default());
    } else {
        out.push(c);
    }
}

/// Whether there is room for more; otherwise `out` is cut. `whole` is how much of it fits together
/// with the mark.
fn keep(out: &mut String, whole: &mut usize, max_bytes: usize) -> bool {
    if out.len() > max_bytes {
        out.truncate(*whole);
        if *whole + CUT.len_utf8() <= max_bytes {
            out.push(CUT);
        }
        return false;
    }
    if out.len() + CUT.len_utf8() <= max_bytes {
        *whole = out.len();
    }
    true
}

/// Whether a character shows nothing by itself, or changes how others are displayed.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        // Soft hyphen, grapheme joiner, Arabic letter mark, Hangul and Khmer fillers.
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        // Mongolian selectors; zero width and directional marks; separators; embeddings, overrides.
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        // Invisible operators, isolates; fillers; selectors; byte order mark.
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        // Shorthand and musical controls; tags and further selectors.
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGED: &str = "x\n2026-11-29T00:00:00Z  INFO forged\r\u{1b}[2J\u{9b}31m\u{202e}\u{200b}";

    #[test]
    fn nothing_hidden_is_left_and_what_is_seen_stays() {
        let text = shown(FORGED, 1000);
        assert_eq!(
            text,
            "x\\n2026-11-29T00:00:00Z  INFO forged\\r\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{200b}"
        );
        assert_eq!(shown(b"a\xff\xc3(", 100), "a\\xff\\xc3(");
        for seen in ["/bin/größe", "名前", "a\\nb", "tab to `x`", "🚀"] {
            assert_eq!(shown(seen, 1000), seen);
        }
        for hidden in [
            '\0',
            '\t',
            '\x7f',
            '\u{80}',
            '\u{85}',
            '\u{200e}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{2066}',
            '\u{2069}',
            '\u{2060}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let text = shown(format!("<{hidden}>"), 100);
            assert!(text.is_ascii() && text.contains('\\'), "{hidden:?}: {text:?}");
        }
    }

    #[test]
    fn what_was_shown_stays_the_same() {
        let once = shown(FORGED, 1000);
        assert_eq!(shown(&once, 1000), once);
        assert_eq!(shown_lines(&once), once);
    }

    #[test]
    fn long_text_is_cut_between_characters_and_escapes() {
        assert_eq!(shown("abcdef", 6), "abcdef");
        assert_eq!(shown("abcdefg", 6), "abc…");
        assert_eq!(shown("éééé", 7), "éé…");
        assert_eq!(shown("a\u{1b}\u{1b}", 9), "a…", "no half of an escape");
        assert_eq!(shown("abc", 2), "");
        for most in 0..40 {
            let text = shown("aé\n\u{202e}名\u{1b}".repeat(5), most);
            assert!(text.len() <= most, "{most}: {text}");
        }
    }

    #[test]
    fn lines_stay_lines_and_documents_stay_documents() {
        assert_eq!(shown_lines("a\nb\u{1b}c\n"), "a\nb\\u{1b}c\n");
        let document = "{\n  \"a\": \"\u{7f}\u{9b}\u{202e}\u{e0041}\"\n}\n";
        let safe = shown_json(document);
        assert_eq!(safe, "{\n  \"a\": \"\\u007f\\u009b\\u202e\\udb40\\udc41\"\n}\n");
        assert!(matches!(shown_json("{\"a\": 1}\n"), Cow::Borrowed(_)));
    }
}
