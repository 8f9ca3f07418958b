// SPDX-License-Identifier: Apache-2.0
//! Looking at Rust source line by line, for `tidy`: where functions begin and end, and what is a
//! comment. It trusts rustfmt: a function's closing brace stands in the column of its `fn` line.

/// A function in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Name of the function.
    pub name: String,
    /// The line it begins on, from 1.
    pub line: usize,
    /// Lines from its `fn` line to its closing brace.
    pub lines: usize,
}

/// The functions of a file that rustfmt has formatted.
#[must_use]
pub fn functions(source: &str) -> Vec<Function> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closes = |candidate: &&str| {
            candidate.len() == indent + 1 && candidate.ends_with('}') && candidate.trim() == "}"
        };
        // One that is declared only, or stands on one line, has no closing line of its own.
        let declared_only =
            lines[at..].iter().position(|line| line.ends_with(';') || line.ends_with('}'));
        let opened = lines[at..].iter().position(|line| line.ends_with('{'));
        let Some(opened) = opened else { continue };
        if declared_only.is_some_and(|end| end < opened) {
            continue;
        }
        if let Some(end) = lines[at..].iter().position(closes) {
            found.push(Function { name, line: at + 1, lines: end + 1 });
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let code = line.trim_start();
    if code.starts_with("//") || code.starts_with('"') {
        return None;
    }
    let mut words = code.split(' ');
    let introduces = |word: &str| {
        matches!(
            word,
            "pub" | "pub(crate)" | "pub(super)" | "async" | "const" | "unsafe" | "extern" | "\"C\""
        )
    };
    let word = words.find(|word| !introduces(word))?;
    if word != "fn" {
        return None;
    }
    let rest = words.next()?;
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_head_to_brace() {
        let source = "\
fn one() {
    two();
}

impl X {
    /// fn not_this() {
    pub(crate) async fn two(
        a: u8,
    ) -> u8 {
        if a > 1 {
            a
        }
    }
    fn declared(&self);
    fn short(&self) -> u8 { 1 }
}
";
        let found: Vec<(String, usize, usize)> =
            functions(source).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_owned(), 1, 3), ("two".to_owned(), 7, 7)]);
    }
}
