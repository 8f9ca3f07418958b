// SPDX-License-Identifier: Apache-2.0
//! Parsers of bytes that others send, for fuzzing: one module per target, whose `run` takes any
//! bytes and panics when a promise is broken.
//!
//! ```text
//! seeds/<target>/*  ──▶ run        every `cargo test`, so that targets and what was found stay alive
//! libFuzzer ── bins/<target>.rs ──▶ run        `make fuzz`
//! ```
//!
//! Not here: tests of what well-formed bytes mean. They stand beside the parsers.

pub mod archive;
pub mod authority;
pub mod client;
pub mod documents;
pub mod frames;
pub mod headers;
pub mod hosts;
pub mod input;
pub mod log;
pub mod reference;
pub mod sizes;
pub mod spdy;
pub mod tunnel;
pub mod unpack;
pub mod upgrade;
pub mod websocket;

/// Runs one case.
pub type Run = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("archive", archive::run),
    ("authority", authority::run),
    ("documents", documents::run),
    ("frames", frames::run),
    ("headers", headers::run),
    ("hosts", hosts::run),
    ("log", log::run),
    ("reference", reference::run),
    ("sizes", sizes::run),
    ("spdy", spdy::run),
    ("tunnel", tunnel::run),
    ("unpack", unpack::run),
    ("upgrade", upgrade::run),
    ("websocket", websocket::run),
];
