// SPDX-License-Identifier: Apache-2.0
//! Printing an error together with its causes.

/// Prints an error with what caused it, once, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Errors of others have their cause in their text.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Caused {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn a_cause_that_stands_in_its_error_is_not_said_twice() {
        let error = |text, source: Option<Caused>| Caused { text, source: source.map(Box::new) };
        let inner = || error("z", None);
        let text = |error: &Caused| Chain(error).to_string();
        assert_eq!(text(&error("a", Some(error("x: z", Some(inner()))))), "a: x: z");
        assert_eq!(text(&error("x", Some(error("x", Some(inner()))))), "x: z");
        assert_eq!(text(&error("a", Some(inner()))), "a: z");
    }
}
