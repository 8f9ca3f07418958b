// SPDX-License-Identifier: Apache-2.0
//! The input of a work.

use crate::size::Size;
use crate::target::Target;

/// The input of a work.
#[derive(Debug)]
pub struct Context<'c> {
    /// The runtime to send requests to.
    pub target: &'c Target,
    /// Numbers of pods, execs and so on.
    pub size: &'c Size,
    /// Which round this is, from 0.
    pub round: usize,
    /// Images for cold pulls.
    pub pull_images: &'c [String],
}
