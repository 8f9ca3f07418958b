// SPDX-License-Identifier: Apache-2.0
//! What is done with bytes that others send, for fuzzing: one module per target, whose `run` takes any
//! bytes and panics when a promise is broken.
//!
//! ```text
//! seeds/<target>/*  ──▶ run        every `cargo test`, so that targets and what was found stay alive
//! libFuzzer ── bins/<target>.rs ──▶ run        `make fuzz`
//! ```
//!
//! Not here: tests of what well-formed bytes mean. They stand beside the parsers.

pub mod client;
pub mod frames;
pub mod headers;
pub mod input;
pub mod log;
pub mod sizes;
pub mod spdy;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

/// What takes one case.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("frames", frames::run),
    ("headers", headers::run),
    ("log", log::run),
    ("sizes", sizes::run),
    ("spdy", spdy::run),
    ("tunnel", tunnel::run),
    ("upgrade", upgrade::run),
    ("websocket", websocket::run),
];
