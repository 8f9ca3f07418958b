// SPDX-License-Identifier: Apache-2.0
//! Why a registry could not be reached.
//!
//! The rule: no address gets into a message: its query may hold secrets.

use crate::error::{Cause, Unreachable, shown};

const SHOWN_BYTES: usize = 300;

/// Classifies a transport failure.
pub(super) fn unreachable(host: &str, error: &reqwest::Error) -> Cause {
    let said = innermost_message(error);
    let has = |text: &str| said.contains(text);
    let kind = if error.is_dns() {
        Unreachable::NoSuchHost
    } else if error.is_timeout() || has("timed out") {
        Unreachable::Timeout
    } else if has("InvalidContentType") {
        Unreachable::PlainHttp
    } else if has("invalid peer certificate") || has("certificate") {
        Unreachable::Certificate
    } else if has("Connection refused") {
        Unreachable::Refused
    } else if has("handshake") || has("HandshakeFailure") || has("received fatal alert") {
        Unreachable::Tls
    } else {
        Unreachable::Other
    };
    Cause::Unreachable { host: host.to_owned(), kind, said }
}

/// The innermost reason, without the address: its query may hold secrets.
pub(super) fn innermost_message(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = match std::error::Error::source(error) {
        Some(source) => source,
        None => {
            return if error.is_timeout() {
                "timed out".into()
            } else {
                "the request failed".into()
            };
        }
    };
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    shown(innermost.to_string(), SHOWN_BYTES)
}
