// SPDX-License-Identifier: Apache-2.0
//! Whether a line reports an error phrase, or only contains its words (pure): a phrase is reported at the end of a
//! line, or between a colon and its object.

use super::phrases::Phrase;

/// How a line contains a phrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    /// It is the error that the line reports.
    Reported,
    /// The line may be about something else.
    Mentioned,
    /// The line says that it did not happen, or had no effect: a counter, a test, a usage text.
    Absent,
}

/// The statement of a line about the phrase at `start..end`.
pub(super) fn of(raw: &str, phrase: Phrase, start: usize, end: usize) -> Statement {
    let (Some(head), Some(tail)) = (raw.get(..start), raw.get(end..)) else {
        return Statement::Mentioned;
    };
    let line = raw.to_ascii_lowercase();
    if is_text(&line) || is_denied(head) || is_value(tail) || is_overcome(phrase, &line) {
        return Statement::Absent;
    }
    if phrase != Phrase::ForkRefused && is_retried(&line) {
        return Statement::Mentioned;
    }
    // Of errno, or of a Java class.
    let is_error_name = raw.get(start..end).is_some_and(|words| {
        let is_errno = words.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        is_errno || words.starts_with("java.")
    });
    let is_reported = has_object(phrase)
        || is_end(tail)
        || closes_quote(head, tail)
        || (is_error_name || is_start(head)) && is_object(tail, is_error_name);
    if is_reported { Statement::Reported } else { Statement::Mentioned }
}

/// Phrases that say enough wherever they are in a line, as the name of what is missing follows.
fn has_object(phrase: Phrase) -> bool {
    matches!(
        phrase,
        Phrase::LibraryMissing
            | Phrase::SymbolMissing
            | Phrase::CommandMissing
            | Phrase::SetuidIneffective
            | Phrase::WatchLimit
            | Phrase::ForkRefused
            | Phrase::HostUnknown
            | Phrase::Certificate
            | Phrase::NoAccount
    )
}

/// Whether a line in lower case is a usage text, a trace of a shell, or the result of a test.
fn is_text(line: &str) -> bool {
    const STARTS: [&str; 12] =
        ["--", "+ ", "usage", "ok ", "pass ", "pass:", "passed", "✓", "[ ok ]", "[ok]", "#!", "# "];
    const CONTAINS: [&str; 6] =
        ["usage:", " e.g. ", "for example", "non-fatal", "nonfatal", "not fatal"];
    const ENDS: [&str; 5] = [" ok", "passed", "[ ok ]", "[ok]", " pass"];
    let line = line.trim();
    // A login shell is named `-sh`.
    let mut option = line.strip_prefix('-').unwrap_or_default().chars().skip(1);
    let is_option = option.next().is_some_and(|c| c.is_whitespace() || c == ',');
    is_option
        || STARTS.iter().any(|start| line.starts_with(start) && !line.starts_with("--- fail"))
        || CONTAINS.iter().any(|part| line.contains(part))
        || ENDS.iter().any(|end| line.ends_with(end))
}

/// Whether the words before a phrase deny it, or make it a condition.
fn is_denied(head: &str) -> bool {
    const CONDITIONS: [&str; 14] = [
        "codes",
        "if",
        "unless",
        "expected",
        "expects",
        "expect",
        "expecting",
        "ignore",
        "ignores",
        "ignored",
        "ignoring",
        "simulate",
        "simulated",
        "simulating",
    ];
    // As the first word of the line.
    const FIRST: [&str; 9] = [
        "documentation",
        "fixed",
        "fixes",
        "handled",
        "handles",
        "handling",
        "recovered",
        "supported",
        "without",
    ];
    // And the codes of HTTP.
    const NEGATIONS: [&str; 9] = ["no", "not", "never", "any", "on", "0", "zero", "401", "403"];
    const ERRORS: [&str; 4] = ["error", "errors", "failure", "failures"];
    let head = head.to_ascii_lowercase();
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned();
    let words: Vec<String> =
        head.split_whitespace().map(bare).filter(|word| !word.is_empty()).collect();
    let plain: Vec<&str> = head.split_whitespace().collect();
    let is_zero = plain.windows(2).any(|pair| {
        matches!(pair, ["0" | "no" | "zero", of] if ERRORS.contains(&of.trim_end_matches([':', ','])))
    });
    let is_negated = !head.trim_end().ends_with([':', ')', ']', '.', ','])
        && words.last().is_some_and(|word| NEGATIONS.contains(&word.as_str()));
    let is_first = words.first().is_some_and(|word| FIRST.contains(&word.as_str()));
    is_zero
        || is_negated
        || is_first
        || words.iter().any(|word| CONDITIONS.contains(&word.as_str()))
}

/// Whether the phrase is the name of a value, as in `address already in use = false`.
fn is_value(tail: &str) -> bool {
    const NOTHING: [&str; 13] = [
        "false", "true", "no", "yes", "none", "null", "nil", "0", "off", "on", "never", "ok", "n/a",
    ];
    let tail = tail.trim_start_matches(['"', '\'', '`', ')', ']', ' ']);
    if tail.starts_with('=') || tail.starts_with("->") || tail.starts_with('?') {
        return true;
    }
    let Some(value) = tail.strip_prefix(':') else { return false };
    let value = value.split([',', ';', '}']).next().unwrap_or_default().trim().to_ascii_lowercase();
    NOTHING.contains(&value.trim_matches(['"', ')', ']', '.']))
}

/// Whether a line in lower case says that the program goes on without what failed.
fn is_overcome(phrase: Phrase, line: &str) -> bool {
    const OVERCOME: [&str; 17] = [
        "using defaults",
        "use defaults",
        "using default",
        "use default",
        "using the default",
        "falling back",
        "fallback",
        "fall back",
        "ignoring",
        "ignored",
        "continuing",
        "skipping",
        "skipped",
        "reverting to",
        "harmless",
        "proceeding",
        "will be disabled",
    ];
    phrase != Phrase::CommandMissing && OVERCOME.iter().any(|word| has_words(line, word))
}

/// Whether a line in lower case says that the program tries once more.
fn is_retried(line: &str) -> bool {
    ["retrying", "will retry", "try again in", "trying again", "trying next", "reconnecting"]
        .iter()
        .any(|word| has_words(line, word))
}

/// Whether a line has these words, and not as a part of a path or of other words.
fn has_words(line: &str, words: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "/_-".contains(c));
    line.match_indices(words).any(|(start, _)| {
        let before = line.get(..start).and_then(|text| text.chars().next_back());
        let mut after = line.get(start.saturating_add(words.len())..).unwrap_or_default().chars();
        let next = after.next();
        let is_file = next == Some('.') && is_part(after.next());
        !is_part(before) && !is_part(next) && !is_file
    })
}

/// Whether a phrase may begin after `head`: the start of the line, a colon, a bracket or a quote.
fn is_start(head: &str) -> bool {
    let head = head.trim_end();
    head.is_empty() || head.ends_with([':', '(', ')', '[', ']', '"', '\'', '`', '-', '.', ',', '='])
}

/// Whether nothing but brackets, quotes, and the number of an error follow.
fn is_end(tail: &str) -> bool {
    let rest = tail.trim_start_matches(|c: char| ".!)]}\"'`>,;… ".contains(c));
    let number = rest.trim_start_matches("(os error ").trim_start_matches('(');
    let number = number.trim_end_matches(|c: char| ".!)]}\"'`>,; ".contains(c));
    rest.is_empty() || rest.starts_with('(') && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a quote that `head` opened ends after the phrase, and a further field or nothing follows: JSON, logfmt.
fn closes_quote(head: &str, tail: &str) -> bool {
    let tail = tail.trim_start_matches(['.', '\'', ')', ']', '\\']);
    let Some(rest) = tail.strip_prefix('"') else { return false };
    let rest = rest.trim_start_matches(['}', ')', ']']);
    let is_field = rest.split_whitespace().next().is_some_and(|word| word.contains('='));
    head.matches('"').count() % 2 == 1 && (rest.is_empty() || rest.starts_with(',') || is_field)
}

/// Whether the rest of a line is what the error is about: a path, an address, a call, a detail.
fn is_object(tail: &str, is_error_name: bool) -> bool {
    const CALLS: [&str; 20] = [
        "open", "mkdir", "unlink", "rmdir", "scandir", "access", "stat", "lstat", "read", "write",
        "watch", "listen", "connect", "spawn", "exec", "rename", "symlink", "chmod", "chown",
        "copyfile",
    ];
    const VERBS: [&str; 5] = ["retry", "ignore", "skip", "fail", "error"];
    let rest = tail.trim_start_matches(['"', '\'', '`', ')', ']', '.']);
    let is_one_word = rest.split_whitespace().count() == 1;
    if let Some(object) = rest.strip_prefix(' ') {
        let is_address = is_one_word && object.contains([':', '/']);
        let is_place =
            ["in /", "at /", "- ", "@ ", "(", "["].iter().any(|of| object.starts_with(of));
        let is_sentence = rest.len() != tail.len()
            && tail.starts_with('.')
            && object.starts_with(|c: char| c.is_ascii_uppercase());
        return is_address
            || is_place
            || is_sentence
            || is_error_name && is_one_word && !VERBS.contains(&object);
    }
    if let Some(detail) = rest.strip_prefix(':') {
        // A number here counts something.
        return !detail.trim().bytes().all(|byte| byte.is_ascii_digit());
    }
    match rest.strip_prefix(", ") {
        Some(clause) => {
            let call = clause.split([' ', ',', '.']).next().unwrap_or_default();
            CALLS.contains(&call) || super::transcript::is_closing(clause)
        }
        None => rest.is_empty(),
    }
}
