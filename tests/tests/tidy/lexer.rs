// SPDX-License-Identifier: Apache-2.0
//! Splits Rust source into code, comments and string literals, each in its place: what is not of a part is
//! blank in it, so that lines and columns stay what they are in the file.

/// The three parts of a file, all as long as the file.
pub(crate) struct Parts {
    /// The code, without the text of literals.
    pub(crate) code: String,
    /// Doc comments (`///`, `//!`) and ordinary ones, with their slashes.
    pub(crate) comments: String,
    /// The text of string literals.
    pub(crate) strings: String,
}

/// The doc comments among `comments`: the line on which each begins, and its text without slashes, in one line.
pub(crate) fn docs(comments: &str) -> Vec<(usize, String)> {
    let mut docs = Vec::new();
    let mut doc: Option<(usize, String)> = None;
    for (number, line) in comments.lines().chain([""]).enumerate() {
        let line = line.trim();
        let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        match (text, &mut doc) {
            (Some(text), Some((_, all))) => *all = format!("{all} {}", text.trim()),
            (Some(text), None) => doc = Some((number + 1, text.trim().to_owned())),
            (None, _) => docs.extend(doc.take()),
        }
    }
    docs
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Text,
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    parts: [Vec<u8>; 3],
}

/// Splits a file that compiles.
pub(crate) fn split(source: &str) -> Parts {
    let mut lexer = Lexer { bytes: source.as_bytes(), at: 0, parts: [vec![], vec![], vec![]] };
    while lexer.at < lexer.bytes.len() {
        lexer.step();
    }
    let [code, comments, strings] =
        lexer.parts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Parts { code, comments, strings }
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            self.take(end, Part::Comment);
        } else if rest.starts_with(b"/*") {
            let end =
                rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len(), |at| at + 2);
            self.take(end, Part::Comment);
        } else if let Some(hashes) = self.raw_string() {
            self.take_raw(hashes);
        } else if rest[0] == b'"' {
            self.take_string();
        } else if rest[0] == b'\'' {
            let length = char_literal(rest);
            self.take(length, Part::Code);
        } else {
            self.take(1, Part::Code);
        }
    }

    /// Moves on by `count` bytes, which belong to `part`.
    fn take(&mut self, count: usize, part: Part) {
        for byte in &self.bytes[self.at..self.at + count] {
            for (index, of) in [Part::Code, Part::Comment, Part::Text].into_iter().enumerate() {
                let shown = if of == part || *byte == b'\n' { *byte } else { b' ' };
                self.parts[index].push(shown);
            }
        }
        self.at += count;
    }

    /// Number of hashes when a raw string begins here.
    fn raw_string(&self) -> Option<usize> {
        let before = self.at.checked_sub(1).map(|at| self.bytes[at]);
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let rest = rest.strip_prefix(b"b").or_else(|| rest.strip_prefix(b"c")).unwrap_or(rest);
        let rest = rest.strip_prefix(b"r")?;
        let hashes = rest.iter().take_while(|byte| **byte == b'#').count();
        (rest.get(hashes) == Some(&b'"')).then_some(hashes)
    }

    fn take_raw(&mut self, hashes: usize) {
        let open = self.bytes[self.at..].iter().position(|byte| *byte == b'"').unwrap_or(0) + 1;
        self.take(open, Part::Code);
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        let rest = &self.bytes[self.at..];
        let end = rest.windows(close.len()).position(|here| here == close).unwrap_or(rest.len());
        self.take(end, Part::Text);
        let close = close.len().min(self.bytes.len() - self.at);
        self.take(close, Part::Code);
    }

    fn take_string(&mut self) {
        self.take(1, Part::Code);
        let rest = &self.bytes[self.at..];
        let mut end = 0;
        while end < rest.len() && rest[end] != b'"' {
            end += if rest[end] == b'\\' { 2 } else { 1 };
        }
        self.take(end.min(rest.len()), Part::Text);
        let close = usize::from(self.at < self.bytes.len());
        self.take(close, Part::Code);
    }
}

/// Length of the character literal that begins here; 1 for the quote of a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(1, |at| at + 4);
    }
    // A character has at most four bytes.
    let close = rest.iter().take(6).skip(2).position(|byte| *byte == b'\'').map(|at| at + 2);
    let whole = |close: &usize| {
        std::str::from_utf8(&rest[1..*close]).is_ok_and(|text| text.chars().count() == 1)
    };
    close.filter(whole).map_or(1, |close| close + 1)
}

#[test]
fn a_file_is_split_into_code_comments_and_strings() {
    let source = "let a = 'x'; // it's\nf::<'a>(\"// no \\\" comment\", r#\"a \"raw\" one\"#, '\\'', b'\"');\n/* b */ g();\n";
    let parts = split(source);
    assert_eq!(parts.code.len(), source.len());
    assert!(parts.code.contains("let a = 'x'; ") && parts.code.contains(" g();"));
    assert!(
        !parts.code.contains("it's") && !parts.code.contains("no") && !parts.code.contains("raw")
    );
    assert!(parts.comments.contains("// it's") && parts.comments.contains("/* b */"));
    assert!(
        parts.strings.contains("// no \\\" comment") && parts.strings.contains("a \"raw\" one")
    );
    assert!(!parts.strings.contains('f') && !parts.comments.contains("no"));
}
