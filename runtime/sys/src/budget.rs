// SPDX-License-Identifier: Apache-2.0
//! Limits on what others can cost a node, as each crate declares them: in one list, from which both the numbers
//! that the code uses and the tables of docs/security.md come.
//!
//! The rule: a number stands once. Where a list shows a constant of another crate, it names that constant.

/// The unit of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Counted in bytes.
    Bytes,
    /// Counted one by one.
    Number,
    /// Time in seconds.
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
}

/// A limit on a resource, with its name and unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// As a setting in its section, or in the code if it is fixed.
    pub name: &'static str,
    /// The counted things, in words behind a number.
    pub what: &'static str,
    /// How much is allowed.
    pub default: u64,
    /// The unit of `default`.
    pub unit: Unit,
    /// The section of the config file that has it as a setting, if there is one.
    pub section: Option<&'static str>,
    /// The consequence of more than that.
    pub beyond: &'static str,
}

impl Budget {
    /// A limit without a setting.
    #[must_use]
    pub const fn fixed(
        name: &'static str,
        what: &'static str,
        (default, unit): (u64, Unit),
        beyond: &'static str,
    ) -> Self {
        Self { name, what, default, unit, section: None, beyond }
    }

    /// A limit that `[section]` of the config file can change.
    #[must_use]
    pub const fn setting(
        section: &'static str,
        name: &'static str,
        what: &'static str,
        (default, unit): (u64, Unit),
        beyond: &'static str,
    ) -> Self {
        Self { name, what, default, unit, section: Some(section), beyond }
    }

    /// The limit, for what counts in memory.
    ///
    /// # Panics
    /// At compile time, where a machine's addresses are shorter than the number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "checked right below")]
    pub const fn count(&self) -> usize {
        let count = self.default as usize;
        assert!(count as u64 == self.default, "the limit does not fit");
        count
    }

    /// The limit, for what is counted one by one.
    ///
    /// # Panics
    /// At compile time, where it does not fit.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "checked right below")]
    pub const fn number(&self) -> u32 {
        let number = self.default as u32;
        assert!(number as u64 == self.default, "the limit does not fit");
        number
    }

    /// The limit, as time.
    #[must_use]
    pub const fn time(&self) -> std::time::Duration {
        match self.unit {
            Unit::Milliseconds => std::time::Duration::from_millis(self.default),
            Unit::Seconds | Unit::Bytes | Unit::Number => {
                std::time::Duration::from_secs(self.default)
            }
        }
    }

    /// The setting's whole name, or the fixed limit's.
    #[must_use]
    pub fn shown_name(&self) -> String {
        match self.section {
            Some(section) => format!("`{section}.{}`", self.name),
            None => format!("fixed, `{}`", self.name),
        }
    }

    /// The number with its unit.
    #[must_use]
    pub fn shown_default(&self) -> String {
        let scales = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let is_whole =
            |(shift, _): &&(u32, &str)| self.default > 0 && self.default.trailing_zeros() >= *shift;
        match (self.unit, scales.iter().find(is_whole)) {
            (Unit::Bytes, Some((shift, unit))) => format!("{} {unit}", self.default >> shift),
            (Unit::Seconds, _) => format!("{} s", self.default),
            (Unit::Milliseconds, _) if self.default.is_multiple_of(1000) => {
                format!("{} s", self.default / 1000)
            }
            (Unit::Milliseconds, _) => format!("{} ms", self.default),
            (Unit::Bytes | Unit::Number, _) => self.default.to_string(),
        }
    }
}

/// The table of these limits for docs/security.md.
#[must_use]
pub fn table(budgets: &[&Budget]) -> String {
    let mut table = String::from("| What | Limit | Default | Beyond it |\n|---|---|---|---|\n");
    for budget in budgets {
        table.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            budget.what,
            budget.shown_name(),
            budget.shown_default(),
            budget.beyond
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_the_largest_unit_that_they_are_whole_in() {
        let shown = |default, unit| Budget::fixed("n", "w", (default, unit), "b").shown_default();
        assert_eq!(shown(64 << 20, Unit::Bytes), "64 MiB");
        assert_eq!(shown(1000, Unit::Bytes), "1000");
        assert_eq!(shown(0, Unit::Bytes), "0");
        assert_eq!(shown(64 << 20, Unit::Number), (64 << 20).to_string());
        assert_eq!(shown(2000, Unit::Milliseconds), "2 s");
        assert_eq!(shown(500, Unit::Milliseconds), "500 ms");
        let of = Budget::setting("image", "n", "w", (7, Unit::Seconds), "b");
        assert_eq!(table(&[&of]).lines().last(), Some("| w | `image.n` | 7 s | b |"));
        assert_eq!((of.count(), of.time().as_secs()), (7, 7));
    }
}
