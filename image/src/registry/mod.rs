// SPDX-License-Identifier: Apache-2.0
//! The registry client: the pull part of the OCI distribution specification.
//!
//! ```text
//! directory, hosts   settings in containerd's layout and format
//! clients            endpoints of a registry, in order; client, tls: their HTTP clients
//! certificate        whether a certificate in a CA file is a CA's
//! breaker            hosts that are not requested for a while
//! counters           what pulls have done, in numbers
//! transport, failure one request with its redirects; the classes of failures
//! request            authentication: challenge, token
//! retry, retry_after which failed requests are sent again, and after which pause
//! failures           the order of hosts, and the error if all of them fail
//! fetch, range       documents, and layers as a stream that survives broken connections
//! encoding           compression that a proxy in between has added
//! layer_stream       the stream of a layer, and what is known of it
//! stall_detector     whether a stream makes progress
//! ```
//!
//! The rule: a response to some credentials is never used for others, and no token, password or
//! query of a URL gets into an error.

mod breaker;
mod certificate;
mod challenge;
mod client;
mod clients;
mod counters;
mod directory;
mod encoding;
mod endpoint;
mod failure;
mod failures;
mod fetch;
mod hosts;
mod layer_stream;
mod range;
mod request;
mod retry;
mod retry_after;
mod stall_detector;
mod tls;
mod token;
mod transport;

#[cfg(feature = "fuzz")]
pub(crate) use challenge::parse as parse_challenge;
pub use client::tls_client;
pub(crate) use clients::Clients;
pub(crate) use counters::PullStage;
pub use counters::{BreakerStates, HostFigures, PullFigures};
pub(crate) use fetch::Session;
pub use hosts::check as check_hosts;
#[cfg(feature = "fuzz")]
pub(crate) use hosts::parse as parse_hosts;

/// Reads a text as everything that a registry or its token server sends outside of documents.
#[cfg(feature = "fuzz")]
pub(crate) fn parse_response(text: &str) {
    let _either = token::parse(text.as_bytes());
    let _any = range::parse(text);
    let _any = retry_after::parse(text, Some(text), 0);
    let _is_page = transport::is_page(text.as_bytes());
    for decoding in [encoding::Decoding::Gzip, encoding::Decoding::GzipOfGzip] {
        let mut decoded = encoding::Decoded::new(decoding);
        decoded.feed(bytes::Bytes::copy_from_slice(text.as_bytes()));
        while let Ok(Some(_piece)) = decoded.next() {}
    }
}
