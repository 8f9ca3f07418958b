// SPDX-License-Identifier: Apache-2.0
//! Sends one HTTP request, follows redirects, and reads bodies within limits.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect elsewhere goes
//! without them, also when it leads back, and never from HTTPS to plain HTTP. All redirects of a request share one time
//! limit.

use super::encoding::{self, Encoding};
use super::endpoint::Endpoint;
use super::failure;
use crate::error::{Cause, Unreachable, shown};
use flate2::bufread::MultiGzDecoder;
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use std::io::Read as _;
use std::time::{Duration, Instant};

const REDIRECTS_MAX: usize = crate::limits::REDIRECTS.count();
/// Most of an error page that is read, and that is shown.
const ERROR_BYTES_MAX: u64 = crate::limits::ERROR_BYTES.default;
const SHOWN_BYTES: usize = 300;

/// An answer at the end of all redirects.
pub(super) struct FinalResponse {
    pub(super) response: Response,
    /// The host that gave it, if a redirect left the origin that was asked.
    pub(super) elsewhere: Option<String>,
    /// Whether a redirect led to it, of this origin or to another.
    pub(super) is_redirected: bool,
}

/// Sends a request, and again to wherever it is redirected. `bound` is for the origin of `url`, until a
/// redirect leads away from it.
pub(super) async fn follow(
    endpoint: &Endpoint,
    url: Url,
    headers: &HeaderMap,
    bound: &HeaderMap,
) -> Result<FinalResponse, Cause> {
    let origin = url.origin();
    let of_registry = Url::parse(&endpoint.api).map(|api| api.origin());
    let (mut at, mut has_left, mut is_redirected) = (url, false, false);
    let began = Instant::now();
    for _ in 0..=REDIRECTS_MAX {
        // Another origin chose this address, also when it is one of the first origin's.
        has_left |= at.origin() != origin;
        let mut all = headers.clone();
        if !has_left {
            all.extend(bound.clone());
        }
        let host = host_and_port(&at);
        let is_registry = of_registry.as_ref().is_ok_and(|of| *of == at.origin());
        let asked = if is_registry { endpoint.host.clone() } else { host };
        let http = if has_left { &endpoint.http_elsewhere } else { &endpoint.http };
        let limit = endpoint.stall.saturating_sub(began.elapsed());
        let sent = send(http.get(at.clone()).headers(all), &asked, limit).await;
        let response = match sent {
            Ok(response) => response,
            Err(cause) if has_left => return Err(cause.redirected_by(&endpoint.host)),
            Err(cause) if endpoint.has_answered() => return Err(cause.after_answer()),
            Err(cause) => return Err(cause),
        };
        if !has_left {
            endpoint.note_answer();
        }
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
            let elsewhere = has_left.then_some(asked);
            return Ok(FinalResponse { response, elsewhere, is_redirected });
        };
        is_redirected = true;
        at = target(&at, location).map_err(|why| Cause::Unreachable {
            host: asked,
            kind: Unreachable::Redirect,
            detail: why.to_owned(),
            registry: None,
        })?;
    }
    Err(Cause::Unreachable {
        host: endpoint.host.clone(),
        kind: Unreachable::Redirect,
        detail: format!("more than {REDIRECTS_MAX} times"),
        registry: None,
    })
}

/// Sends one request and waits for the head of its answer, which may not come a byte at a time for ever.
pub(super) async fn send(
    request: RequestBuilder,
    host: &str,
    limit: Duration,
) -> Result<Response, Cause> {
    match tokio::time::timeout(limit, request.send()).await {
        Ok(sent) => sent.map_err(|err| failure::without_response(host, &err)),
        Err(_) => Err(Cause::Unreachable {
            host: host.to_owned(),
            kind: Unreachable::Stalled,
            // A part of the limit may have gone to redirects.
            detail: format!("it has sent no response for {} s", limit.as_millis().div_ceil(1000)),
            registry: None,
        }),
    }
}

/// A part of an answer did not come in time.
pub(super) fn stalled(host: &str, what: &str, limit: Duration) -> Cause {
    Cause::Unreachable {
        host: host.to_owned(),
        kind: Unreachable::Stalled,
        detail: format!("hardly any bytes of {what} in {} s", limit.as_secs()),
        registry: None,
    }
}

/// Where a redirect leads, or why nobody goes there.
fn target(at: &Url, location: &HeaderValue) -> Result<Url, &'static str> {
    let next = at.join(&escaped(location.as_bytes())).ok();
    let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
    let next = next.ok_or("to something that is not a URL")?;
    if at.scheme() == "https" && next.scheme() != "https" {
        return Err("from HTTPS to plain HTTP");
    }
    // Credentials in it are for that address alone. The client makes a header of them.
    Ok(next)
}

/// An address as text, of which some servers write bytes that are not ASCII as they are.
fn escaped(address: &[u8]) -> String {
    let mut text = String::with_capacity(address.len());
    for byte in address {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// Whether an address has a part before `@`.
pub(super) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Host and port of an address, for messages: path and query may hold secrets.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The text of an error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ErrorText {
    /// Codes and messages of the JSON that the protocol describes: a registry wrote it.
    Registry(String),
    /// The beginning of another text.
    Words(String),
    /// A page for people, which is not for a message.
    Page,
    /// The response to plain HTTP of a server that speaks TLS.
    WantsTls,
}

impl ErrorText {
    /// The words, if there are any.
    pub(super) fn words(self) -> String {
        match self {
            Self::Registry(words) | Self::Words(words) => words,
            Self::Page | Self::WantsTls => String::new(),
        }
    }
}

/// Whether a body is a page for people.
pub(super) fn is_page(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    // An error of a storage service is XML too, but for programs.
    bytes.starts_with(b"<") && !bytes.starts_with(b"<?xml") && !bytes.starts_with(b"<Error")
}

/// Whether a server that speaks TLS says so in plain HTTP: Go's, nginx, Apache, HAProxy.
fn wants_tls(bytes: &[u8]) -> bool {
    const TEXTS: [&str; 4] = [
        "http request to an https server",
        "plain http request was sent to https port",
        "speaking plain http to an ssl-enabled",
        "http request was sent to an https port",
    ];
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    TEXTS.iter().any(|of| text.contains(of))
}

/// Reads the text of an error response.
pub(super) async fn error_text(response: Response, limit: Duration) -> ErrorText {
    let read =
        async { body(response, "", ERROR_BYTES_MAX, "").await?.complete("", ERROR_BYTES_MAX) };
    let Ok(Ok(bytes)) = tokio::time::timeout(limit, read).await else {
        return ErrorText::Words(String::new());
    };
    let text = match serde_json::from_slice::<Errors>(&bytes) {
        _ if wants_tls(&bytes) => return ErrorText::WantsTls,
        Ok(errors) => {
            let items =
                errors.errors.iter().map(|of| match (of.code.as_str(), of.message.as_str()) {
                    (code, "") => code.to_owned(),
                    ("", message) => message.to_owned(),
                    (code, message) => format!("{code}, {message}"),
                });
            let items = items.collect::<Vec<_>>().join("; ");
            return ErrorText::Registry(shown(items, SHOWN_BYTES));
        }
        Err(_) if is_page(&bytes) => return ErrorText::Page,
        Err(_) if bytes.trim_ascii_start().starts_with(b"<") => storage_words(&bytes),
        Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    ErrorText::Words(shown(text, SHOWN_BYTES))
}

/// Code and message of the XML with which storage services answer; the other elements may hold keys and addresses.
fn storage_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let element = |name: &str| {
        let (_, after) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = after.split_once(&format!("</{name}>"))?;
        Some(inner.trim().to_owned()).filter(|inner| !inner.is_empty() && !inner.contains('<'))
    };
    let words = [element("Code"), element("Message")];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A body as it came.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Why it ended before the length that was announced, if it did.
    broken: Option<Cause>,
    encoding: Encoding,
}

impl Body {
    /// The whole body, without the compression of the transfer. The result has at most `max` bytes.
    pub(super) fn complete(self, what: &str, max: u64) -> Result<Vec<u8>, Cause> {
        match (self.broken, self.encoding) {
            (Some(cause), _) => Err(cause),
            (None, Encoding::Identity) => Ok(self.bytes),
            (None, Encoding::Gzip) => inflated(&self.bytes, what, max),
            (None, Encoding::Other(name)) => Err(Cause::Document {
                what: what.to_owned(),
                why: format!("its Content-Encoding is `{name}`, which was not asked for"),
            }),
        }
    }
}

/// Undoes `Content-Encoding: gzip`, which some servers use although it was not offered to them.
fn inflated(bytes: &[u8], what: &str, max: u64) -> Result<Vec<u8>, Cause> {
    let mut out = Vec::new();
    let read = MultiGzDecoder::new(bytes).take(max.saturating_add(1)).read_to_end(&mut out);
    match read {
        Ok(_) if out.len() as u64 > max => Err(Cause::TooLarge { what: what.to_owned(), max }),
        Ok(_) => Ok(out),
        Err(err) => Err(Cause::Document {
            what: what.to_owned(),
            why: format!("it is not gzip, as its Content-Encoding says: {err}"),
        }),
    }
}

/// Reads a body of at most `max` bytes.
pub(super) async fn body(
    mut response: Response,
    what: &str,
    max: u64,
    host: &str,
) -> Result<Body, Cause> {
    let too_large = || Cause::TooLarge { what: what.to_owned(), max };
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let encoding = encoding::of(response.headers());
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(Body { bytes, broken: None, encoding }),
            Ok(Some(chunk)) if (bytes.len() as u64).saturating_add(chunk.len() as u64) > max => {
                return Err(too_large());
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Err(err) => {
                let broken = Some(failure::unreachable(host, &err));
                return Ok(Body { bytes, broken, encoding });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    #[test]
    fn pages_are_told_from_errors_for_programs() {
        for page in ["<html>", " \n<!DOCTYPE html><p>", "\u{feff}<HTML>"] {
            assert!(is_page(page.as_bytes()), "{page}");
        }
        for other in
            ["", "{}", "<?xml version=\"1.0\"?><Error/>", "<Error><Code/></Error>", "no <p>"]
        {
            assert!(!is_page(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn redirects_are_followed_as_they_are_written() {
        let at = Url::parse("https://reg.example.org/v2/a/blobs/x").unwrap();
        let next = |text: &[u8]| target(&at, &HeaderValue::from_bytes(text).unwrap());
        for (location, wanted) in [
            (&b"/caf\xc3\xa9"[..], "https://reg.example.org/caf%C3%A9"),
            (b"/caf\xe9?x=\xff", "https://reg.example.org/caf%E9?x=%FF"),
            (b"../y", "https://reg.example.org/v2/a/y"),
            (b"//other.example.org/y", "https://other.example.org/y"),
            (b"https://b\xc3\xbccher.example.org/", "https://xn--bcher-kva.example.org/"),
            (b"https://u:p@other.example.org/y", "https://u:p@other.example.org/y"),
        ] {
            assert_eq!(next(location).unwrap().as_str(), wanted, "{}", location.escape_ascii());
        }
        for bad in [&b"http://reg.example.org/"[..], b"file:///etc/passwd", b"https://"] {
            next(bad).unwrap_err();
        }
    }

    #[test]
    fn a_compressed_body_is_inflated_within_the_limit() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&[b' '; 1000]).unwrap();
        let bytes = gzip.finish().unwrap();
        assert_eq!(inflated(&bytes, "it", 1000).unwrap().len(), 1000);
        assert!(matches!(inflated(&bytes, "it", 999), Err(Cause::TooLarge { .. })));
        assert!(matches!(inflated(b"{}", "it", 999), Err(Cause::Document { .. })));
        assert!(matches!(
            inflated(&bytes[..bytes.len() - 4], "it", 1000),
            Err(Cause::Document { .. })
        ));
    }
}
