// SPDX-License-Identifier: Apache-2.0
//! Seccomp profiles: the default one, those of users, and their programs.

mod bpf_optimize;
mod calls;
mod compile;
mod default;
mod profile;
mod spelling;
mod start;
mod unknown_calls;
mod verdict;

pub use calls::call_name;
pub(crate) use compile::shared;
pub use compile::{compiled, notifies};
pub use default::runtime_default;
pub use profile::localhost;
pub use spelling::{UnknownCall, unknown_calls};
pub use start::{RefusedAtStart, check_start, refused_at_start};
pub use verdict::{Verdict, call_number, verdict};

#[cfg(test)]
mod tests;
