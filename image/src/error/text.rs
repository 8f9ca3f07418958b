// SPDX-License-Identifier: Apache-2.0
//! Text from outside (registries, archives, callers) on its way into a message.
//!
//! The rule: what hides, or changes how other text is displayed, is written out. All else stays, so text
//! that was shown already stays the same.

/// Longest name, digest or host in a message, in bytes.
pub(crate) const NAME_MAX: usize = 512;
/// Longest reason in a message, in bytes.
pub(crate) const REASON_MAX: usize = 1024;

/// `text` as one line of at most `max` bytes; what is longer is cut and ends with `…`.
pub(crate) fn shown(text: impl AsRef<[u8]>, max: usize) -> String {
    const CUT: char = '…';
    let text = text.as_ref();
    let mut out = String::with_capacity(text.len().min(max));
    // How much may stay when more comes than there is room for.
    let mut whole = 0;
    let pieces = text.utf8_chunks().flat_map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        chunk.valid().chars().map(escaped).chain(invalid)
    });
    for piece in pieces {
        if out.len() + piece.len() > max {
            out.truncate(whole);
            if whole + CUT.len_utf8() <= max {
                out.push(CUT);
            }
            return out;
        }
        out.push_str(&piece);
        if out.len() + CUT.len_utf8() <= max {
            whole = out.len();
        }
    }
    out
}

fn escaped(c: char) -> String {
    match c {
        '\\' | '\'' | '"' => c.to_string(),
        // Controls, what is not printed, and what only changes the character before it.
        _ => c.escape_debug().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hidden_is_left_and_what_is_seen_stays() {
        let forged = "x\n2026 INFO forged\r\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\0";
        let text = shown(forged, 1000);
        assert_eq!(text, "x\\n2026 INFO forged\\r\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{200b}\\0");
        assert_eq!(shown(&text, 1000), text);
        assert_eq!(shown(b"a\xff\xc3(", 100), "a\\xff\\xc3(");
        for seen in ["`größe`", "名前", "a\\nb", "it's \"so\"", "🚀"] {
            assert_eq!(shown(seen, 1000), seen);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters_and_escapes() {
        assert_eq!(shown("abcdef", 6), "abcdef");
        assert_eq!(shown("abcdefg", 6), "abc…");
        assert_eq!(shown("a\u{1b}\u{1b}", 9), "a…", "no half of an escape");
        for max in 0..40 {
            let text = shown("aé\n\u{202e}名\u{1b}".repeat(5), max);
            assert!(text.len() <= max, "{max}: {text}");
        }
    }
}
