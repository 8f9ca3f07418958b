// SPDX-License-Identifier: Apache-2.0
//! The pod network on a real kernel. Each test has network namespaces of its own, one of which stands
//! for the host: the links and tables of the real one are never touched.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: what is unwrapped is what it claims, and what it prints is its result"
)]

mod attach;
mod beside;
#[path = "../common/mod.rs"]
mod common;
mod host_ports;
mod inside;
mod many;
mod overlap;
mod rates;
mod restart;
mod sublinks;
mod subnets;
mod support;
mod traffic;
