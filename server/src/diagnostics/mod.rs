// SPDX-License-Identifier: Apache-2.0
//! Explanations of failures: the sentence and the hint for a failed start or an exit, and denials by the kernel's
//! security modules.

pub(crate) mod denials;
pub(crate) mod ending;
pub(crate) mod ends;
pub(crate) mod explain;
pub(crate) mod frozen;
pub(crate) mod links;
mod paths;
pub(crate) mod program;
mod rights;
pub(crate) mod running;
