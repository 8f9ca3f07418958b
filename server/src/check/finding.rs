// SPDX-License-Identifier: Apache-2.0
//! One finding of `hull check`, and the line that shows it.

use std::borrow::Cow;
use unicode_width::UnicodeWidthStr as _;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// Pods run, except those that need what is missing. With a hint.
    Warning(String),
    /// No pod can run. With a hint.
    Missing(String),
}

/// One check: its subject, what was found, and the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(super) subject: Cow<'static, str>,
    pub(super) found: String,
    pub(super) verdict: Verdict,
}

impl Finding {
    pub(super) fn good(subject: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self { subject: subject.into(), found: found.into(), verdict: Verdict::Good }
    }

    pub(super) fn warning(
        subject: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            found: found.into(),
            verdict: Verdict::Warning(hint.into()),
        }
    }

    pub(super) fn missing(
        subject: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            found: found.into(),
            verdict: Verdict::Missing(hint.into()),
        }
    }

    /// Subject, verdict (ok, warning or missing), what was found, and the hint, which may be empty.
    pub(crate) fn parts(&self) -> (&str, &'static str, &str, &str) {
        let (verdict, hint) = match &self.verdict {
            Verdict::Good => ("ok", ""),
            Verdict::Warning(hint) => ("warning", hint.as_str()),
            Verdict::Missing(hint) => ("missing", hint.as_str()),
        };
        (&self.subject, verdict, &self.found, hint)
    }

    /// The lines to print: subject and finding, and the hint below; no wider than `width` where words allow that.
    pub(super) fn line(&self, width: Option<u16>) -> String {
        let (word, hint) = match &self.verdict {
            Verdict::Good => ("ok     ", None),
            Verdict::Warning(hint) => ("warning", Some(hint)),
            Verdict::Missing(hint) => ("MISSING", Some(hint)),
        };
        let hint = hint.map(|hint| {
            let hint = hanging(&text(hint), TEXT_AT + HINT.len(), width);
            format!("\n{:TEXT_AT$}{HINT}{hint}", "")
        });
        let found = hanging(&text(&self.found), TEXT_AT, width);
        format!("{word}  {:16} {found}{}\n", self.subject, hint.unwrap_or_default())
    }
}

/// The column at which findings begin, behind the verdict and the subject.
const TEXT_AT: usize = 26;
const HINT: &str = "hint: ";
/// Text is not broken into lines of fewer columns than this.
const TEXT_WIDTH_MIN: usize = 20;

/// The text that begins at column `at`, in lines that fit into the terminal, broken between words. Pure.
fn hanging(text: &str, at: usize, width: Option<u16>) -> String {
    let room = width.map(|width| usize::from(width).saturating_sub(at));
    let Some(room) = room.filter(|room| *room >= TEXT_WIDTH_MIN) else { return text.to_owned() };
    let (mut out, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        if used > 0 && used + 1 + word.width() > room {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', at));
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += word.width();
    }
    out
}

/// Escapes text for the terminal: paths and error messages come from outside.
fn text(message: &str) -> String {
    hull_sys::text::shown(message, hull_sys::text::MESSAGE_BYTES_MAX)
}
