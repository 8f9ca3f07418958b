// SPDX-License-Identifier: Apache-2.0
//! One finding of `hull check`, and the line that shows it.

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// Pods run; something that some of them want is missing. With a hint.
    Lacking(String),
    /// Pods cannot run. With a hint.
    Missing(String),
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) verdict: Verdict,
}

impl Finding {
    pub(super) fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Good }
    }

    pub(super) fn lacking(
        what: &'static str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Lacking(hint.into()) }
    }

    pub(super) fn missing(
        what: &'static str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { what, found: found.into(), verdict: Verdict::Missing(hint.into()) }
    }

    pub(super) fn line(&self) -> String {
        let (word, hint) = match &self.verdict {
            Verdict::Good => ("ok     ", None),
            Verdict::Lacking(hint) => ("lacking", Some(hint)),
            Verdict::Missing(hint) => ("MISSING", Some(hint)),
        };
        let hint = hint
            .map(|hint| format!("\n         {:16} hint: {}", "", text(hint)))
            .unwrap_or_default();
        format!("{word}  {:16} {}{hint}\n", self.what, text(&self.found))
    }
}

/// As it goes to a terminal: paths and what the kernel says are somebody else's words.
fn text(words: &str) -> String {
    hull_sys::text::shown(words, hull_sys::text::MESSAGE_BYTES_MAX)
}
