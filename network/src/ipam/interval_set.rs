// SPDX-License-Identifier: Apache-2.0
//! A set of numbers, stored as intervals, so that finding the next free number takes one look-up in a set
//! of any size.
//!
//! The rule: there is a gap between any two intervals, so the number after an interval is free.

use std::collections::BTreeMap;

/// The first and last number of each interval.
#[derive(Debug, Default)]
pub(crate) struct IntervalSet(BTreeMap<u128, u128>);

impl IntervalSet {
    /// The first and last number of all intervals.
    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<(u128, u128)> {
        self.0.iter().map(|(first, last)| (*first, *last)).collect()
    }

    /// The interval that contains the number.
    fn of(&self, number: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=number).next_back()?;
        (*last >= number).then_some((*first, *last))
    }

    pub(crate) fn contains(&self, number: u128) -> bool {
        self.of(number).is_some()
    }

    /// Adds a number; returns `false` if the set already contains it.
    pub(crate) fn insert(&mut self, number: u128) -> bool {
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

    /// Removes a number, if the set contains it.
    pub(crate) fn remove(&mut self, number: u128) {
        let Some((first, last)) = self.of(number) else { return };
        self.0.remove(&first);
        if first < number {
            self.0.insert(first, number - 1);
        }
        if number < last {
            self.0.insert(number + 1, last);
        }
    }

    /// The first number from `start` to `last` that is not in the set.
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
            let (mut runs, mut set) = (IntervalSet::default(), BTreeSet::new());
            for (take, number) in steps {
                if take {
                    prop_assert_eq!(runs.insert(number), set.insert(number));
                } else {
                    runs.remove(number);
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
        let mut runs = IntervalSet::default();
        for number in (0..4_000).rev().step_by(2).chain((0..4_000).step_by(2)) {
            assert!(runs.insert(number));
        }
        assert_eq!(runs.0.len(), 1);
        assert_eq!(runs.first_free(0, u128::MAX), Some(4_000));
        runs.remove(17);
        assert_eq!(runs.first_free(0, u128::MAX), Some(17));
    }

    #[test]
    fn the_last_number_of_all_is_no_trap() {
        let mut runs = IntervalSet::default();
        assert!(runs.insert(u128::MAX) && runs.insert(0));
        assert_eq!(runs.first_free(u128::MAX, u128::MAX), None);
        runs.remove(u128::MAX);
        assert_eq!(runs.first_free(u128::MAX, u128::MAX), Some(u128::MAX));
    }
}
