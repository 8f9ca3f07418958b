// SPDX-License-Identifier: Apache-2.0
//! CNI plugins on a real kernel: the reference ones of Debian, and one that does what a test tells it.
//! Each test has network namespaces of its own, one of which stands for the host.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: what is unwrapped is what it claims, and what it prints is its result"
)]

mod chains;
#[path = "../common/mod.rs"]
mod common;
mod detach;
mod garbage;
mod reference;
mod support;
