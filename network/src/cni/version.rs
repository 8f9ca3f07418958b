// SPDX-License-Identifier: Apache-2.0
//! The supported versions of the CNI specification, and the choice between them.

use std::fmt;

/// A version of the specification; a later one compares greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub(super) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The version as written in configurations and results.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }

    /// Whether the version has CHECK, and passes the result of ADD to DEL.
    pub(super) fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether the version has STATUS and GC.
    pub(super) fn has_gc(self) -> bool {
        self >= Self::V1_1_0
    }

    /// Whether each address of a result has a `version` field for its family.
    pub(super) fn names_families(self) -> bool {
        self < Self::V1_0_0
    }

    /// The highest version in `offered` that every list in `known` contains.
    pub(super) fn highest(offered: &[Self], known: &[Vec<String>]) -> Option<Self> {
        let by_all = |version: &&Self| {
            known.iter().all(|plugin| plugin.iter().any(|text| text == version.text()))
        };
        offered.iter().filter(by_all).max().copied()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_that_all_know_is_chosen() {
        let known = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let old = known(&["0.2.0", "0.3.1", "0.4.0"]);
        let new = known(&["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
        let offered = [Version::V1_1_0, Version::V0_4_0, Version::V0_3_1];
        let of = |plugins: &[Vec<String>]| Version::highest(&offered, plugins);
        assert_eq!(of(std::slice::from_ref(&new)), Some(Version::V1_1_0));
        assert_eq!(of(&[new, old.clone()]), Some(Version::V0_4_0));
        assert_eq!(Version::highest(&[Version::V1_0_0], &[old]), None);
        assert_eq!(Version::parse("0.3.0"), None);
    }
}
