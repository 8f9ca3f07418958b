// SPDX-License-Identifier: Apache-2.0
//! The transport of a session: carries streams between a remote client and the code that copies them.
//!
//! ```text
//! HTTP head ─ upgrade ─▶ spdy │ websocket │ spdy in a websocket's messages
//!                          └──────┬───────────────┘
//!                        session: streams, and the liveness of the client
//!                                 └─▶ channel: chunks in, chunks out, bounded
//! ```
//!
//! All bytes from streaming clients are parsed here, and fuzzing runs this code, so it is a crate of its own
//! that links only what framing needs.
//!
//! [`http2`] is not about sessions: it filters what gRPC clients of the daemon send, before the server parses it.
//!
//! Not here: containers and pods, access control, and the other end of each stream. Those are the server's.

pub mod channel;
pub mod http2;
pub mod remotecommand;
pub mod session;
pub mod spdy;
pub mod terminal;
pub mod upgrade;
pub mod websocket;
