// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: what it challenges is answered, what it asks to wait for is waited
//! for, within limits, redirects are followed, and what fails is put into words.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect
//! elsewhere goes without them, also when it leads back, and never from HTTPS to plain HTTP. A challenge
//! is answered only for the origin that was asked; from another origin it is an error that names that host.

use super::endpoint::Endpoint;
use super::token::{Ask, Owner, secret};
use super::{Session, challenge};
use crate::auth::Auth;
use crate::error::{Cause, Unreachable, shown};
use crate::watch::{Wait, Watch};
use reqwest::header::{
    AUTHORIZATION, DATE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

/// How often a registry may ask us to come back later, and how long we wait at most each time.
const WAITS_MAX: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const REDIRECTS_MAX: usize = crate::limits::REDIRECTS.count();
/// Most of an error page that is read, and that is shown.
const ERROR_BYTES_MAX: u64 = crate::limits::ERROR_BYTES.default;
const SHOWN_BYTES: usize = 300;

/// An answer at the end of all redirects.
pub(super) struct Answered {
    pub(super) response: Response,
    /// The host that gave it, if a redirect left the origin that was asked.
    elsewhere: Option<String>,
}

impl Session {
    /// GETs `path` of the repository. `what` is for messages.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
        headers: &HeaderMap,
        watch: &Watch,
    ) -> Result<Response, Cause> {
        let url = self.url(endpoint, path, what)?;
        let ask =
            Ask { endpoint, repository: &self.repository, auth: self.auth_for(endpoint), what };
        let owner = Owner {
            base: endpoint.api.clone(),
            repository: self.repository.clone(),
            credentials: Auth::key(ask.auth),
        };
        let mut authorization = self.clients.tokens.get(&owner);
        let (mut was_challenged, mut waits) = (false, 0);
        loop {
            if let Some(wait) = self.clients.breakers.wait(&endpoint.host) {
                watch.waits_for(Wait::Later);
                tokio::time::sleep(wait.min(WAIT_MAX)).await;
            }
            watch.waits_for(Wait::Answer);
            let mut bound = endpoint.headers.clone();
            if let Some(header) = &authorization {
                bound.insert(AUTHORIZATION, header.clone());
            }
            let sent = follow(endpoint, url.clone(), headers, &bound).await;
            self.count(endpoint, &sent);
            let answered = sent?;
            let status = answered.response.status();
            match status.as_u16() {
                401 if !was_challenged && answered.elsewhere.is_none() => {
                    was_challenged = true;
                    watch.waits_for(Wait::Token);
                    let (header, life) = answer(&ask, answered.response).await?;
                    self.clients.tokens.keep(owner.clone(), header.clone(), life);
                    authorization = Some(header);
                }
                429 | 502..=504 if waits < WAITS_MAX => {
                    let wait = wait_of(&answered.response, waits);
                    if wait > WAIT_MAX {
                        return Err(later(&ask, status, wait));
                    }
                    waits += 1;
                    // Its other layers, and other pulls, wait too.
                    self.clients.breakers.asks_to_wait(&endpoint.host, wait);
                }
                200..=299 => return Ok(answered.response),
                _ => return Err(refusal(&ask, status, answered).await),
            }
        }
    }

    /// Remembers who answers and who does not.
    fn count(&self, endpoint: &Endpoint, sent: &Result<Answered, Cause>) {
        match sent {
            Ok(_) => self.clients.breakers.answered(&endpoint.host),
            Err(Cause::Unreachable { .. }) => {
                if let Some(left_alone) = self.clients.breakers.failed(&endpoint.host)
                    && self.endpoints.len() > 1
                {
                    let for_s = left_alone.as_secs();
                    tracing::warn!(host = %endpoint.host, for_s, "host is asked last for a while");
                }
            }
            Err(_) => {}
        }
    }

    fn url(&self, endpoint: &Endpoint, path: &str, what: &str) -> Result<Url, Cause> {
        let text = format!("{}/{}/{path}", endpoint.api, self.repository);
        let mut url = Url::parse(&text).map_err(|err| Cause::Document {
            what: format!("the address of {what} at {}", endpoint.host),
            why: err.to_string(),
        })?;
        if let Some(host) = &endpoint.stands_for {
            url.query_pairs_mut().append_pair("ns", host);
        }
        Ok(url)
    }
}

/// Sends a request, and again to wherever it is redirected. `bound` is for the origin of `url`, until a
/// redirect leads away from it.
pub(super) async fn follow(
    endpoint: &Endpoint,
    url: Url,
    headers: &HeaderMap,
    bound: &HeaderMap,
) -> Result<Answered, Cause> {
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
            return Ok(Answered { response, elsewhere: has_left.then_some(asked) });
        };
        at = target(&at, location).map_err(|why| Cause::Unreachable {
            host: asked,
            kind: Unreachable::Redirect,
            said: why.to_owned(),
            registry: None,
        })?;
    }
    Err(Cause::Unreachable {
        host: endpoint.host.clone(),
        kind: Unreachable::Redirect,
        said: format!("more than {REDIRECTS_MAX} times"),
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
        Ok(sent) => sent.map_err(|err| transport(host, &err)),
        Err(_) => Err(stalled(host, "the head of its answer", limit)),
    }
}

/// A part of an answer did not come in time.
pub(super) fn stalled(host: &str, what: &str, limit: Duration) -> Cause {
    Cause::Unreachable {
        host: host.to_owned(),
        kind: Unreachable::Stalled,
        said: format!("hardly anything of {what} in {} s", limit.as_secs()),
        registry: None,
    }
}

/// Where a redirect leads, or why nobody goes there.
fn target(at: &Url, location: &HeaderValue) -> Result<Url, &'static str> {
    let next = location.to_str().ok().and_then(|text| at.join(text).ok());
    let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
    let next = next.ok_or("to something that is no address")?;
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

/// The registry asks for more patience than a pull has.
fn later(ask: &Ask<'_>, status: StatusCode, wait: Duration) -> Cause {
    Cause::Answer {
        host: ask.endpoint.host.clone(),
        status: status.as_u16(),
        what: ask.what.to_owned(),
        said: format!("it asks to come back in {} s", wait.as_secs()),
    }
}

/// Answers a 401 in the best way that we can.
async fn answer(
    ask: &Ask<'_>,
    response: Response,
) -> Result<(HeaderValue, Option<Duration>), Cause> {
    let challenges: Vec<challenge::Challenge> = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect();
    let find = |scheme: &str| challenges.iter().find(|of| of.scheme == scheme);
    if let Some(token) = ask.auth.and_then(Auth::registry_token) {
        let header = secret(&format!("Bearer {token}"));
        return header
            .map(|header| (header, None))
            .ok_or_else(|| ask.denied("the registry token is no text".into()));
    }
    if let Some(bearer) = find("bearer") {
        let registry = &ask.endpoint.host;
        return ask.bearer(bearer).await.map_err(|cause| cause.of_token_server(registry));
    }
    match (find("basic"), ask.auth.and_then(Auth::basic)) {
        (Some(_), Some((username, password))) => {
            basic(ask, username, password).map(|header| (header, None))
        }
        _ => Err(ask.denied(said(response, ask.endpoint.stall).await)),
    }
}

/// The header for username and password, written by reqwest.
pub(super) fn basic(ask: &Ask<'_>, username: &str, password: &str) -> Result<HeaderValue, Cause> {
    let request =
        ask.endpoint.http.get(&ask.endpoint.api).basic_auth(username, Some(password)).build();
    request
        .ok()
        .and_then(|request| request.headers().get(AUTHORIZATION).cloned())
        .ok_or_else(|| ask.denied("username and password cannot be sent".into()))
}

async fn refusal(ask: &Ask<'_>, status: StatusCode, answered: Answered) -> Cause {
    let Answered { response, elsewhere } = answered;
    let said = said(response, ask.endpoint.stall).await;
    let what = ask.what.to_owned();
    let host = elsewhere.clone().unwrap_or_else(|| ask.endpoint.host.clone());
    match status.as_u16() {
        401 if elsewhere.is_some() => Cause::Answer {
            host,
            status: status.as_u16(),
            what,
            said: format!(
                "{} redirects there, and credentials for the one are not for the other",
                ask.endpoint.host
            ),
        },
        401 | 403 if elsewhere.is_none() => ask.denied(said),
        404 => Cause::NotFound { host, what },
        // Go's servers say so to who speaks plain HTTP to a TLS port.
        400 if said.contains("HTTP request to an HTTPS server") => Cause::Unreachable {
            host,
            kind: Unreachable::Tls,
            said: "it talks HTTPS, but is configured for plain HTTP".into(),
            registry: None,
        },
        status => Cause::Answer { host, status, what, said },
    }
}

fn wait_of(response: &Response, waits: u32) -> Duration {
    let header = |name| response.headers().get(name).and_then(|of: &HeaderValue| of.to_str().ok());
    let told = header(RETRY_AFTER).and_then(|text| told(text, header(DATE)));
    told.unwrap_or(FIRST_WAIT * 2_u32.pow(waits))
}

/// Seconds, or the date of which the answer's own is told apart: clocks differ.
fn told(text: &str, now: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (then, now) = (date(text)?, date(now?)?);
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds, counted from anywhere: RFC 9110, 5.6.7.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut time = words.next()?.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    // Years begin in March here, so that the day that comes and goes is the last one.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
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

/// What a registry says about an error: of its JSON the code and message, of a page the beginning.
pub(super) async fn said(response: Response, limit: Duration) -> String {
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
    while let Some(chunk) = response.chunk().await.map_err(|err| transport(host, &err))? {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Puts a failure of the network.
pub(super) fn transport(host: &str, error: &reqwest::Error) -> Cause {
    let said = words(error);
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
    Cause::Unreachable { host: host.to_owned(), kind, said, registry: None }
}

/// The innermost reason, without the address: its query may hold secrets.
pub(super) fn words(error: &reqwest::Error) -> String {
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
    fn a_time_to_come_back_is_seconds_or_a_date() {
        let now = Some("Tue, 28 Feb 2028 23:59:50 GMT");
        for (text, wanted) in [
            ("7", Some(7)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(10)),
            ("Wed, 01 Mar 2028 00:00:00 GMT", Some(86_410)),
            ("Tue, 28 Feb 2028 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("Tue, 29 Foo 2028 00:00:00 GMT", None),
        ] {
            assert_eq!(told(text, now).map(|of| of.as_secs()), wanted, "{text}");
        }
        assert_eq!(told("Tue, 29 Feb 2028 00:00:00 GMT", None), None);
    }
}
