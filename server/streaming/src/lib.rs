// SPDX-License-Identifier: Apache-2.0
//! What carries the streams of a session between a client far away and whoever copies them.
//!
//! ```text
//! HTTP head ─ upgrade ─▶ spdy │ websocket │ spdy in a websocket's messages
//!                          └──────┬───────────────┘
//!                        session: streams, and whether the client is still there
//!                                 └─▶ channel: chunks in, chunks out, bounded
//! ```
//!
//! All bytes that a streaming client sends are read here, and this is what fuzzing drives; so it is a
//! crate of its own that links no more than framing needs.
//!
//! Not here: containers and pods, who may come, what a stream is copied to. The server knows that.

pub mod channel;
pub mod remotecommand;
pub mod session;
pub mod spdy;
pub mod terminal;
pub mod upgrade;
pub mod websocket;
