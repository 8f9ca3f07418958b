// SPDX-License-Identifier: Apache-2.0
//! Numbers that are taken, as runs without a gap, so that the next one free is found by looking at one
//! run, however many there are.
//!
//! The rule: between two runs there is a gap, so behind each run one is free.

use std::collections::BTreeMap;

/// First and last of each run.
#[derive(Debug, Default)]
pub(crate) struct Runs(BTreeMap<u128, u128>);

impl Runs {
    /// First and last of all runs.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(u128, u128)> {
        self.0.iter().map(|(first, last)| (*first, *last)).collect()
    }

    /// The run that the number is in.
    fn of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.of(number).is_some()
    }

    /// Takes a number; `false` when it was taken.
    pub(crate) fn take(&mut self, number: u128) -> bool {
        if self.contains(number) {
            return false;
        }
        let before = number.checked_sub(1).and_then(|before| self.of(before));
        let behind = number.checked_add(1).and_then(|behind| self.of(behind));
        let first = before.map_or(number, |(first, _)| first);
        let last = behind.map_or(number, |(_, last)| last);
        if let Some((joined, _)) = behind {
            self.0.remove(&joined);
        }
        self.0.insert(first, last);
        true
    }

    /// Gives a number back, if it was taken.
    pub(crate) fn give_back(&mut self, number: u128) {
        let Some((first, last)) = self.of(number) else { return };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    /// The first that is free from `start` on up to `last`.
    pub(crate) fn first_free(&self, start: u128, last: u128) -> Option<u128> {
        let free = match self.of(start) {
            Some((_, end)) => end.checked_add(1)?,
            None => start,
        };
        (free <= last).then_some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Beside a plain set that is searched one by one.
        #[test]
        fn runs_know_what_a_set_knows(
            steps in prop::collection::vec((any::<bool>(), 0_u128..24), 0..200),
        ) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (take, number) in steps {
                if take {
                    prop_assert_eq!(runs.take(number), set.insert(number));
                } else {
                    runs.give_back(number);
                    set.remove(&number);
                }
                for start in 0..24 {
                    prop_assert_eq!(runs.contains(start), set.contains(&start));
                    let free = (start..=20).find(|number| !set.contains(number));
                    prop_assert_eq!(runs.first_free(start, 20), free);
                }
            }
        }
    }

    #[test]
    fn what_is_taken_in_a_row_is_one_run() {
        let mut runs = Runs::default();
        for number in (0..4_000).rev().step_by(2).chain((0..4_000).step_by(2)) {
            assert!(runs.take(number));
        }
        assert_eq!(runs.0.len(), 1);
        assert_eq!(runs.first_free(0, u128::MAX), Some(4_000));
        runs.give_back(17);
        assert_eq!(runs.first_free(0, u128::MAX), Some(17));
    }

    #[test]
    fn the_last_number_of_all_is_no_trap() {
        let mut runs = Runs::default();
        assert!(runs.take(u128::MAX) && runs.take(0));
        assert_eq!(runs.first_free(u128::MAX, u128::MAX), None);
        runs.give_back(u128::MAX);
        assert_eq!(runs.first_free(u128::MAX, u128::MAX), Some(u128::MAX));
    }
}
