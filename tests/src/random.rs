// SPDX-License-Identifier: Apache-2.0
//! Random numbers that a seed decides, so that a run can be repeated: `ADVERSARY_SEED` sets the seed,
//! and every test prints the one that it used. The generator is SplitMix64.

use crate::shell::say;

/// The seed of a run without `ADVERSARY_SEED`.
const SEED: u64 = 0x4855_4c4c;

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence that `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another sequence, decided by this one's seed and `number`.
    #[must_use]
    pub fn fork(&self, number: u64) -> Self {
        let mut mixed = Self(self.0 ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixed.next())
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends: there is no Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let number = self.next() % u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(number).unwrap_or(0)
    }

    /// True once in `times` times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `all`.
    ///
    /// # Panics
    /// When `all` is empty.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// The seed of this run, printed with the name of the test that uses it.
#[must_use]
pub fn seed(test: &str) -> u64 {
    let set = std::env::var("ADVERSARY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = set.unwrap_or(SEED);
    say(&format!("{test}: repeat this run with ADVERSARY_SEED={seed}"));
    seed
}
