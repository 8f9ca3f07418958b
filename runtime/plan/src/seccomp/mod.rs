// SPDX-License-Identifier: Apache-2.0
//! Seccomp profiles: the default one, those of users, and their programs.

mod bpf_optimize;
mod compile;
mod default;
mod profile;

pub(crate) use compile::shared;
pub use compile::{call_name, compiled};
pub use default::runtime_default;
pub use profile::localhost;

#[cfg(test)]
mod tests;
