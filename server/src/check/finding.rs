// SPDX-License-Identifier: Apache-2.0
//! One finding of `hull check`, and the line that shows it.

use std::borrow::Cow;

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

    /// The lines to print: subject and finding, and the hint below.
    pub(super) fn line(&self) -> String {
        let (word, hint) = match &self.verdict {
            Verdict::Good => ("ok     ", None),
            Verdict::Warning(hint) => ("warning", Some(hint)),
            Verdict::Missing(hint) => ("MISSING", Some(hint)),
        };
        let hint = hint
            .map(|hint| format!("\n         {:16} hint: {}", "", text(hint)))
            .unwrap_or_default();
        format!("{word}  {:16} {}{hint}\n", self.subject, text(&self.found))
    }
}

/// Escapes text for the terminal: paths and error messages come from outside.
fn text(message: &str) -> String {
    hull_sys::text::shown(message, hull_sys::text::MESSAGE_BYTES_MAX)
}
