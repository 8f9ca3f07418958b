// SPDX-License-Identifier: Apache-2.0
//! The registry client: the pull part of the OCI distribution specification.
//!
//! ```text
//! directory, hosts   settings in containerd's layout and format
//! clients            endpoints of a registry, in order; client: their HTTP clients
//! breaker            hosts that are not requested for a while
//! transport, failure one request with its redirects; the classes of failures
//! request            authentication and waiting: challenge, token, retry_after
//! fetch              documents, and layers as a stream that survives broken connections
//! stall_detector     whether a stream makes progress
//! ```
//!
//! The rule: a response to some credentials is never used for others, and no token, password or
//! query of a URL gets into an error.

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
