// SPDX-License-Identifier: Apache-2.0
//! Commands with several names: one that fails does not keep the command from the others, as docker has it.

use super::error::{Error, Result};
use super::output;

/// The names that failed. Each error is printed once: the last one by the end of the command.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    last: Option<Error>,
}

impl Failures {
    /// Prints a name after a success, and keeps a failure.
    ///
    /// # Errors
    /// The name cannot be printed.
    pub(crate) fn outcome(&mut self, name: &str, outcome: Result<()>) -> Result<()> {
        match outcome {
            Ok(()) => output::line(name)?,
            // Nobody reads any further.
            Err(err) if err.is_broken_pipe() => return Err(err),
            Err(err) => self.keep(err),
        }
        Ok(())
    }

    /// Keeps a failure, and prints the one before it.
    pub(crate) fn keep(&mut self, error: Error) {
        if let Some(earlier) = self.last.replace(error) {
            output::to_stderr(&earlier.lines());
        }
    }

    /// The result of the command.
    ///
    /// # Errors
    /// The last failure.
    pub(crate) fn result(self) -> Result<()> {
        self.last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_makes_the_command_fail_at_its_end() {
        let missing = |name: &str| Error::NotFound { kind: "pod", name: name.to_owned() };
        let mut failures = Failures::default();
        failures.outcome("none", Err(missing("none"))).unwrap();
        failures.keep(missing("other"));
        assert!(failures.result().unwrap_err().to_string().contains("`other`"));
        Failures::default().result().unwrap();
    }
}
