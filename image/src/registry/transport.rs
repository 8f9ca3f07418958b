// SPDX-License-Identifier: Apache-2.0
//! Sends one HTTP request, follows redirects, and reads bodies within limits.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect elsewhere goes
//! without them, also when it leads back, and never from HTTPS to plain HTTP.

use super::endpoint::Endpoint;
use super::failure;
use crate::error::{Cause, Unreachable, shown};
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use std::time::Duration;

const REDIRECTS_MAX: usize = crate::limits::REDIRECTS.count();
/// Most of an error page that is read, and that is shown.
const ERROR_BYTES_MAX: u64 = crate::limits::ERROR_BYTES.default;
const SHOWN_BYTES: usize = 300;

/// An answer at the end of all redirects.
pub(super) struct FinalResponse {
    pub(super) response: Response,
    /// The host that gave it, if a redirect left the origin that was asked.
    pub(super) elsewhere: Option<String>,
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
    let (mut at, mut has_left) = (url, false);
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
        let response = send(http.get(at.clone()).headers(all), &asked, endpoint.stall).await?;
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = response.headers().get(LOCATION).filter(|_| is_redirect) else {
            return Ok(FinalResponse { response, elsewhere: has_left.then_some(asked) });
        };
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
        Ok(sent) => sent.map_err(|err| failure::unreachable(host, &err)),
        Err(_) => Err(stalled(host, "the head of its response", limit)),
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
    let next = location.to_str().ok().and_then(|text| at.join(text).ok());
    let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
    let next = next.ok_or("to something that is not a URL")?;
    if at.scheme() == "https" && next.scheme() != "https" {
        return Err("from HTTPS to plain HTTP");
    }
    // The client would make a header of them.
    if has_credentials(&next) {
        return Err("to an address with credentials in it");
    }
    Ok(next)
}

/// Whether an address has a part before `@`.
pub(super) fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Host and port of an address, for messages: path and query may hold secrets.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
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

/// The text of an error response: the code and message of its JSON, or the beginning of a page.
pub(super) async fn response_text(response: Response, limit: Duration) -> String {
    let read = tokio::time::timeout(limit, body(response, "", ERROR_BYTES_MAX, "")).await;
    let Ok(Ok(bytes)) = read else { return String::new() };
    let text = match serde_json::from_slice::<Errors>(&bytes) {
        Ok(errors) => {
            let items =
                errors.errors.iter().map(|of| match (of.code.as_str(), of.message.as_str()) {
                    (code, "") => code.to_owned(),
                    ("", message) => message.to_owned(),
                    (code, message) => format!("{code}, {message}"),
                });
            items.collect::<Vec<_>>().join("; ")
        }
        // A page for people: not for a message.
        Err(_) if bytes.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    shown(text, SHOWN_BYTES)
}

/// Reads a body of at most `max` bytes.
pub(super) async fn body(
    mut response: Response,
    what: &str,
    max: u64,
    host: &str,
) -> Result<Vec<u8>, Cause> {
    let too_large = || Cause::TooLarge { what: what.to_owned(), max };
    if response.content_length().is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|err| failure::unreachable(host, &err))?
    {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
