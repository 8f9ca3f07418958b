// SPDX-License-Identifier: Apache-2.0
//! Why a registry could not be reached, told apart by the types of the errors in the chain.
//!
//! The rule: no address gets into a message: its query may hold secrets.

use crate::error::{Cause, Unreachable, shown};
use hull_sys::time::rfc3339;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, InvalidMessage};
use std::error::Error as StdError;
use std::io;

const SHOWN_BYTES: usize = 300;

/// Classifies a transport failure.
pub(super) fn unreachable(host: &str, error: &reqwest::Error) -> Cause {
    let kind = kind_of(error);
    Cause::Unreachable {
        host: host.to_owned(),
        kind,
        detail: detail(host, kind, error),
        registry: None,
    }
}

/// Classifies a transport failure before the head of a response.
pub(super) fn without_response(host: &str, error: &reqwest::Error) -> Cause {
    let is_plain = error.url().is_some_and(|url| url.scheme() == "http");
    let mut cause = unreachable(host, error);
    if let Cause::Unreachable { kind, .. } = &mut cause
        && is_plain
        && *kind == Unreachable::Broken
    {
        *kind = Unreachable::NoResponse;
    }
    cause
}

/// The remark beside the kind, from the error's text: in words of this field, with the port and the proxy that it is about.
fn detail(host: &str, kind: Unreachable, error: &reqwest::Error) -> String {
    let text = innermost_message(error);
    let mut text = text.split(" (os error").next().unwrap_or_default().to_owned();
    if let Some(words) = certificate_words(error) {
        text = words;
    } else if kind == Unreachable::Broken && text.contains("end of file before message") {
        text = "the body ended before its announced length (unexpected EOF)".into();
    }
    let is_about_port = matches!(
        kind,
        Unreachable::Refused | Unreachable::Timeout | Unreachable::PlainHttp | Unreachable::Tls
    );
    let port = error.url().and_then(reqwest::Url::port_or_known_default);
    if let Some(port) = port.filter(|_| is_about_port && !has_port(host)) {
        text.push_str(&format!(" (port {port})"));
    }
    let is_before_answer = error.is_connect() || kind == Unreachable::Timeout;
    if let Some(variable) = error.url().filter(|_| is_before_answer).and_then(proxy_variable) {
        text.push_str(&format!(
            "; {variable} sends this request to a proxy, unless NO_PROXY excepts it"
        ));
    }
    text
}

/// Whether a host is written with its port.
fn has_port(host: &str) -> bool {
    let port = host.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The environment variable that names a proxy for this address, if one is set. Its value may hold a password.
fn proxy_variable(url: &reqwest::Url) -> Option<&'static str> {
    if url.host_str().is_none_or(crate::reference::host::is_loopback) {
        return None;
    }
    let of_scheme: &[&'static str] = if url.scheme() == "https" {
        &["HTTPS_PROXY", "https_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy"]
    };
    let mut names = of_scheme.iter().chain(&["ALL_PROXY", "all_proxy"]);
    names.find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())).copied()
}

/// The reason why a certificate is not valid now or has no trusted issuer, where the library's text is that of a
/// program.
fn certificate_words(error: &reqwest::Error) -> Option<String> {
    let tls = chain(error).find_map(|of| of.downcast_ref::<rustls::Error>())?;
    let rustls::Error::InvalidCertificate(wrong) = tls else { return None };
    words_of(wrong)
}

fn words_of(wrong: &CertificateError) -> Option<String> {
    if let CertificateError::ExpiredContext { time, not_after: end } = wrong {
        return Some(format!("it was valid until {}, and here it is {}", utc(*end), utc(*time)));
    }
    if let CertificateError::NotValidYetContext { time, not_before: start } = wrong {
        return Some(format!("it is valid from {} on, and here it is {}", utc(*start), utc(*time)));
    }
    if *wrong == CertificateError::UnknownIssuer {
        return Some("signed by an unknown authority".to_owned());
    }
    if *wrong == CertificateError::BadSignature {
        let words = "signed by an unknown authority, which has the name of a trusted one";
        return Some(words.to_owned());
    }
    is_self_signed(wrong).then(|| "self-signed, so signed by an unknown authority".to_owned())
}

/// A time to the second, as in `2016-10-06T00:17:09Z`.
fn utc(time: UnixTime) -> String {
    let ns = i64::try_from(time.as_secs()).ok().and_then(|of| of.checked_mul(1_000_000_000));
    let Some(ns) = ns else { return format!("{} s after 1970", time.as_secs()) };
    let text = rfc3339(ns);
    let to_the_second = text.get(..19).unwrap_or_default();
    format!("{}Z", String::from_utf8_lossy(to_the_second))
}

/// Whether a server shows the certificate of a CA as its own, as `openssl req -x509` makes it.
fn is_self_signed(wrong: &CertificateError) -> bool {
    let CertificateError::Other(other) = wrong else { return false };
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn kind_of(error: &reqwest::Error) -> Unreachable {
    if error.is_dns() {
        return name_kind(&innermost_message(error));
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
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
            Unreachable::NoRoute
        }
        // While connecting, only the TLS handshake reads: the server closed the connection in it.
        Some(io::ErrorKind::UnexpectedEof) if error.is_connect() => Unreachable::Tls,
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => Unreachable::Broken,
        _ if is_incomplete(error) => Unreachable::Broken,
        _ if is_not_http(error) => Unreachable::NotHttp,
        _ => Unreachable::Other,
    }
}

/// Whether the server closed the connection before its response was complete.
fn is_incomplete(error: &reqwest::Error) -> bool {
    let mut errors = chain(error).filter_map(|of| of.downcast_ref::<hyper::Error>());
    errors.any(hyper::Error::is_incomplete_message)
}

/// Whether the bytes of a plain response are not HTTP.
fn is_not_http(error: &reqwest::Error) -> bool {
    let is_plain = error.url().is_some_and(|url| url.scheme() == "http");
    let mut errors = chain(error).filter_map(|of| of.downcast_ref::<hyper::Error>());
    is_plain && errors.any(hyper::Error::is_parse)
}

/// Tells a name that does not exist from name servers that fail, by the text of getaddrinfo(3): it has no number here.
fn name_kind(text: &str) -> Unreachable {
    const UNKNOWN: [&str; 4] =
        ["not known", "No address associated", "does not resolve", "no record"];
    if UNKNOWN.iter().any(|of| text.contains(of)) {
        Unreachable::NoSuchHost
    } else {
        Unreachable::NoNameServer
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
        // Its CA has the name of a trusted one, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Unreachable::Certificate
        }
        wrong if is_self_signed(wrong) => Unreachable::Certificate,
        _ => Unreachable::BadCertificate,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_told_from_name_servers_that_fail() {
        let of = |text: &str| name_kind(&format!("failed to lookup address information: {text}"));
        for unknown in ["Name or service not known", "No address associated with hostname"] {
            assert_eq!(of(unknown), Unreachable::NoSuchHost, "{unknown}");
        }
        for failed in ["Temporary failure in name resolution", "Non-recoverable failure"] {
            assert_eq!(of(failed), Unreachable::NoNameServer, "{failed}");
        }
    }

    #[test]
    fn the_times_of_a_certificate_are_dates() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(86_400), not_after: at(59) };
        let words = "it was valid until 1970-01-01T00:00:59Z, and here it is 1970-01-02T00:00:00Z";
        assert_eq!(words_of(&expired).unwrap(), words);
        let later = CertificateError::NotValidYetContext { time: at(0), not_before: at(60) };
        let words = "it is valid from 1970-01-01T00:01:00Z on, and here it is 1970-01-01T00:00:00Z";
        assert_eq!(words_of(&later).unwrap(), words);
        let _any = utc(at(u64::MAX));
    }

    #[test]
    fn a_port_is_added_where_the_name_has_none() {
        for (host, has) in [
            ("registry.example.org", false),
            ("registry.example.org:5000", true),
            ("[fd00::1]", false),
            ("[fd00::1]:5000", true),
            ("x:", false),
        ] {
            assert_eq!(has_port(host), has, "{host}");
        }
    }
}
