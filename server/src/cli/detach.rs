// SPDX-License-Identifier: Apache-2.0
//! The keys that end a session and leave its container running, as in docker: `ctrl-p,ctrl-q`. Pure.

/// The default keys.
pub(crate) const DEFAULT_DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// A sequence of bytes that a terminal sends for the keys; an empty one never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

/// Parses keys: a character, or `ctrl-` and a letter or one of `@ [ \ ] ^ _`, separated by commas. An empty text turns
/// detaching off.
pub(crate) fn detach_keys(text: &str) -> Result<DetachKeys, String> {
    if text.is_empty() {
        return Ok(DetachKeys(Vec::new()));
    }
    text.split(',').map(key).collect::<Result<_, _>>().map(DetachKeys)
}

fn key(text: &str) -> Result<u8, String> {
    let invalid = || {
        format!(
            "`{text}` is not a key: use a character, or ctrl- and a letter or one of @ [ \\ ] ^ _"
        )
    };
    let (control, name) = match text.strip_prefix("ctrl-") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let &[byte] = name.as_bytes() else { return Err(invalid()) };
    match (control, byte.to_ascii_uppercase()) {
        // A control character has the low five bits of its letter.
        (true, upper @ b'@'..=b'_') => Ok(upper & 0x1f),
        (false, _) if byte.is_ascii_graphic() || byte == b' ' => Ok(byte),
        _ => Err(invalid()),
    }
}

/// Finds the keys in the input. Bytes that may be the beginning of the keys are held back until the next byte.
#[derive(Debug)]
pub(crate) struct DetachFilter {
    keys: DetachKeys,
    /// Number of keys that were typed so far.
    matched: usize,
}

/// The input without detach keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    Input(Vec<u8>),
    /// The keys were typed, after this input.
    Detach(Vec<u8>),
}

impl DetachFilter {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// Passes on a chunk of input.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Filtered {
        let keys = &self.keys.0;
        if keys.is_empty() {
            return Filtered::Input(chunk.to_vec());
        }
        let mut input = Vec::with_capacity(chunk.len());
        for &byte in chunk {
            while self.matched > 0 && keys[self.matched] != byte {
                let (held, rest) = next_match(keys, self.matched);
                input.extend_from_slice(held);
                self.matched = rest;
            }
            if keys[self.matched] == byte {
                self.matched += 1;
            } else {
                input.push(byte);
            }
            if self.matched == keys.len() {
                self.matched = 0;
                return Filtered::Detach(input);
            }
        }
        Filtered::Input(input)
    }

    /// The bytes that are still held back when the input ends.
    pub(crate) fn rest(self) -> Vec<u8> {
        let mut held = self.keys.0;
        held.truncate(self.matched);
        held
    }
}

/// After `matched` keys and a byte that does not go on: the bytes that cannot belong to the keys, and how many of the
/// others still match.
fn next_match(keys: &[u8], matched: usize) -> (&[u8], usize) {
    let typed = &keys[..matched];
    let rest = (0..matched).rev().find(|&rest| typed.ends_with(&keys[..rest])).unwrap_or(0);
    (&typed[..matched - rest], rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_named_as_in_docker() {
        for (text, bytes) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("ctrl-@,a,ctrl-_", &[0, b'a', 31]),
            ("ctrl-P", &[16]),
            ("", &[]),
        ] {
            assert_eq!(detach_keys(text), Ok(DetachKeys(bytes.to_vec())), "{text}");
        }
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-pp", ",", "é"] {
            detach_keys(bad).unwrap_err();
        }
    }

    /// Feeds chunks to a filter; the input until the keys, and whether they were found.
    fn fed(keys: &[u8], chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut filter = DetachFilter::new(DetachKeys(keys.to_vec()));
        let mut input = Vec::new();
        for chunk in chunks {
            match filter.feed(chunk) {
                Filtered::Input(bytes) => input.extend(bytes),
                Filtered::Detach(bytes) => {
                    input.extend(bytes);
                    return (input, true);
                }
            }
        }
        input.extend(filter.rest());
        (input, false)
    }

    #[test]
    fn other_input_passes_whole() {
        assert_eq!(fed(b"pq", &[b"ap", b"pb", b"p"]), (b"appbp".to_vec(), false));
        assert_eq!(fed(b"pq", &[b"ap", b"q", b"rest"]), (b"a".to_vec(), true));
        assert_eq!(fed(b"aab", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(fed(b"", &[b"x"]), (b"x".to_vec(), false));
    }

    proptest! {
        #[test]
        fn the_first_occurrence_ends_the_input(
            keys in "[ab]{1,4}", input in "[abc]{0,30}", at in 0..30_usize,
        ) {
            let (first, second) = input.split_at(at.min(input.len()));
            let (passed, detached) = fed(keys.as_bytes(), &[first.as_bytes(), second.as_bytes()]);
            let expected = match input.find(&keys) {
                Some(found) => (input.as_bytes()[..found].to_vec(), true),
                None => (input.as_bytes().to_vec(), false),
            };
            prop_assert_eq!((passed, detached), expected);
        }
    }
}
