// SPDX-License-Identifier: Apache-2.0
//! Why a registry could not be reached, told apart by the types of the errors in the chain.
//!
//! The rule: no address gets into a message: its query may hold secrets.

use crate::error::{Cause, Unreachable, shown};
use rustls::{CertificateError, InvalidMessage};
use std::error::Error as StdError;
use std::io;

const SHOWN_BYTES: usize = 300;

/// Classifies a transport failure.
pub(super) fn unreachable(host: &str, error: &reqwest::Error) -> Cause {
    Cause::Unreachable {
        host: host.to_owned(),
        kind: kind_of(error),
        detail: innermost_message(error),
        registry: None,
    }
}

fn kind_of(error: &reqwest::Error) -> Unreachable {
    if error.is_dns() {
        return Unreachable::NoSuchHost;
    }
    if error.is_timeout() {
        return Unreachable::Timeout;
    }
    if let Some(tls) = chain(error).find_map(|of| of.downcast_ref()) {
        return tls_kind(tls);
    }
    let innermost = chain(error).filter_map(|of| of.downcast_ref()).last();
    match innermost.map(io::Error::kind) {
        // Of a connection that was there: the kernel gave it up, and another may work.
        Some(io::ErrorKind::TimedOut) if !error.is_connect() => Unreachable::Broken,
        Some(io::ErrorKind::TimedOut) => Unreachable::Timeout,
        Some(io::ErrorKind::ConnectionRefused) => Unreachable::Refused,
        // While connecting, only the TLS handshake reads: the server closed the connection in it.
        Some(io::ErrorKind::UnexpectedEof) if error.is_connect() => Unreachable::Tls,
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => Unreachable::Broken,
        _ => Unreachable::Other,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is open, and all else is one kind here"
)]
fn tls_kind(error: &rustls::Error) -> Unreachable {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Unreachable::PlainHttp,
        rustls::Error::InvalidCertificate(wrong) => certificate_kind(wrong),
        rustls::Error::NoCertificatesPresented => Unreachable::Certificate,
        _ => Unreachable::Tls,
    }
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is open, and all else is one kind here"
)]
fn certificate_kind(error: &CertificateError) -> Unreachable {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Unreachable::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Unreachable::NotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Unreachable::OtherName
        }
        _ => Unreachable::Certificate,
    }
}

/// An error and its causes, outermost first.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

/// The cause of an error. `source()` of an `io::Error` skips the error that it wraps.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// The message of the innermost error, which does not contain the address.
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
