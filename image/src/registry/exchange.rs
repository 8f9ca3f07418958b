// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: what it challenges is answered, what it asks to wait for is waited
//! for, within limits, and what fails is put into words.

use super::endpoint::Endpoint;
use super::token::{Ask, Owner, secret};
use super::{Session, challenge};
use crate::auth::Auth;
use crate::error::{Cause, Unreachable};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use std::time::Duration;

/// How often a registry may ask us to come back later, and how long we wait at most each time.
const WAITS_MAX: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Most of an error page that is read, and that is shown.
const ERROR_BYTES_MAX: u64 = 16 << 10;
const SHOWN_CHARACTERS: usize = 300;

impl Session {
    /// GETs `path` of the repository. `what` is for messages.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Cause> {
        let url = self.url(endpoint, path, what)?;
        let ask =
            Ask { endpoint, repository: &self.repository, auth: self.auth_for(endpoint), what };
        let owner = Owner {
            base: endpoint.base.clone(),
            repository: self.repository.clone(),
            credentials: Auth::key(ask.auth),
        };
        let mut authorization = self.clients.tokens.get(&owner);
        let (mut was_challenged, mut waits) = (false, 0);
        loop {
            let mut request = endpoint.http.get(url.clone()).headers(headers.clone());
            if let Some(header) = &authorization {
                request = request.header(AUTHORIZATION, header.clone());
            }
            let response = request.send().await.map_err(|err| transport(&endpoint.host, &err))?;
            let status = response.status();
            match status.as_u16() {
                401 if !was_challenged => {
                    was_challenged = true;
                    let (header, life) = answer(&ask, response).await?;
                    self.clients.tokens.keep(owner.clone(), header.clone(), life);
                    authorization = Some(header);
                }
                429 | 502..=504 if waits < WAITS_MAX => {
                    let wait = wait_of(&response, waits);
                    waits += 1;
                    tokio::time::sleep(wait).await;
                }
                200..=299 => return Ok(response),
                _ => return Err(refusal(&ask, status, response).await),
            }
        }
    }

    fn url(&self, endpoint: &Endpoint, path: &str, what: &str) -> Result<Url, Cause> {
        let text = format!("{}/v2/{}/{path}", endpoint.base, self.repository);
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
        return ask.bearer(bearer).await;
    }
    match (find("basic"), ask.auth.and_then(Auth::basic)) {
        (Some(_), Some((username, password))) => {
            basic(ask, username, password).map(|header| (header, None))
        }
        _ => Err(ask.denied(said(response).await)),
    }
}

/// The header for username and password, written by reqwest.
fn basic(ask: &Ask<'_>, username: &str, password: &str) -> Result<HeaderValue, Cause> {
    let request =
        ask.endpoint.http.get(&ask.endpoint.base).basic_auth(username, Some(password)).build();
    request
        .ok()
        .and_then(|request| request.headers().get(AUTHORIZATION).cloned())
        .ok_or_else(|| ask.denied("username and password cannot be sent".into()))
}

async fn refusal(ask: &Ask<'_>, status: StatusCode, response: Response) -> Cause {
    let said = said(response).await;
    let (host, what) = (ask.endpoint.host.clone(), ask.what.to_owned());
    match status.as_u16() {
        401 | 403 => ask.denied(said),
        404 => Cause::NotFound { host, what },
        // Go's servers say so to who speaks plain HTTP to a TLS port.
        400 if said.contains("HTTP request to an HTTPS server") => Cause::Unreachable {
            host,
            kind: Unreachable::Tls,
            said: "it talks HTTPS, but is configured for plain HTTP".into(),
        },
        status => Cause::Answer { host, status, what, said },
    }
}

fn wait_of(response: &Response, waits: u32) -> Duration {
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let told = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    told.unwrap_or(FIRST_WAIT * 2_u32.pow(waits)).min(WAIT_MAX)
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
pub(super) async fn said(response: Response) -> String {
    let Ok(bytes) = body(response, "", ERROR_BYTES_MAX, "").await else { return String::new() };
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
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS).collect()
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
    Cause::Unreachable { host: host.to_owned(), kind, said }
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
    innermost.to_string().chars().take(SHOWN_CHARACTERS).collect()
}
