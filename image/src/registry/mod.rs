// SPDX-License-Identifier: Apache-2.0
//! Talks to registries: the pull half of the OCI distribution protocol.
//!
//! ```text
//! directory, hosts   settings in the layout that containerd made known
//! endpoint           where a registry is really asked, in which order    client  with which trust
//! breaker            who is left alone for a while
//! exchange           one request: challenges, redirects, waiting as told, errors in words
//! challenge          what a registry wants    token  how it is got and kept
//! fetch              manifests whole, layers as a stream that survives broken connections
//! pace               whether a stream still goes on
//! ```
//!
//! The rule: what was got with some credentials is never used for others, and no token, password or
//! query of an address gets into an error.

mod breaker;
mod challenge;
mod client;
mod clients;
mod directory;
mod endpoint;
mod failure;
mod fetch;
mod hosts;
mod request;
mod retry_after;
mod stall_detector;
mod token;
mod transport;

#[cfg(feature = "fuzz")]
pub(crate) use challenge::parse as parse_challenge;
pub(crate) use clients::Clients;
pub(crate) use fetch::Session;
#[cfg(feature = "fuzz")]
pub(crate) use hosts::parse as parse_hosts;
