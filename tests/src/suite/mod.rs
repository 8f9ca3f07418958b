// SPDX-License-Identifier: Apache-2.0
//! critest, the suite that judges runtimes from outside: its images made here ([`images`]), a run of
//! it ([`run`]), and what its report says ([`report`]).
//!
//! The rule: the suite is run as it comes. The one thing replaced in the program is the digest of an
//! image that nobody but its maker can build: ours, of the same length, stands in its place.

pub mod images;
pub mod report;
pub mod run;
