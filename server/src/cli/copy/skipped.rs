// SPDX-License-Identifier: Apache-2.0
//! The names of objects that a copy leaves out, as many as people read.

use super::super::output;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};

/// Most names that are kept and printed.
const NAMES_MAX: usize = 100;

/// The objects that a copy left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    names: Vec<String>,
    /// The number of those without a name here.
    more: u64,
}

impl Skipped {
    /// Adds a name.
    pub(super) fn add(&mut self, name: String) {
        if self.names.len() < NAMES_MAX {
            self.names.push(name);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Prints a line for each to stderr.
    pub(super) fn report(&self) {
        for name in &self.names {
            let name = shown(name, MESSAGE_BYTES_MAX);
            output::to_stderr(&format!(
                "skipped {name}: it is neither a file, a directory nor a link\n"
            ));
        }
        if self.more > 0 {
            output::to_stderr(&format!("skipped {} more\n", self.more));
        }
    }

    /// The names that were kept.
    #[cfg(test)]
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_the_rest_is_counted() {
        let mut skipped = Skipped::default();
        (0..NAMES_MAX + 5).for_each(|number| skipped.add(number.to_string()));
        assert_eq!((skipped.names().len(), skipped.more), (NAMES_MAX, 5));
    }
}
