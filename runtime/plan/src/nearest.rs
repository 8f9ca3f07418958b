// SPDX-License-Identifier: Apache-2.0
//! The known name that a misspelt one was meant to be.

/// How many letters a misspelt name may differ in from the one that was meant.
const DIFFERENCE_MAX: usize = 2;

/// The nearest of the known names, if it is near enough.
pub(crate) fn nearest(
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let known = known.map(|known| (difference(name, known), known));
    known.min().filter(|(difference, _)| *difference <= DIFFERENCE_MAX).map(|(_, known)| known)
}

/// Letters to insert, remove or replace between two names; two that changed places count as two.
fn difference(one: &str, other: &str) -> usize {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, byte) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, wanted) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(byte != wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_letter_too_many_is_found() {
        let known = || ["mkdir", "rmdir", "read"].into_iter();
        assert_eq!(nearest("mkdirr", known()), Some("mkdir"));
        assert_eq!(nearest("mkdri", known()), Some("mkdir"));
        assert_eq!(nearest("socket", known()), None);
        assert_eq!(nearest("", known()), None);
    }
}
