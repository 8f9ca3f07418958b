// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: answers its challenge, waits when it asks for that, within limits, and
//! turns its failures into errors.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect
//! elsewhere goes without them, also when it leads back, and never from HTTPS to plain HTTP. A challenge
//! is answered only for the requested origin; from another origin it is an error that names that host.

use super::clients::Clients;
use super::endpoint::Endpoint;
use super::token::{TokenKey, TokenRequest, basic, secret};
use super::transport::{FinalResponse, follow, response_text};
use super::{challenge, retry_after};
use crate::credentials::auth::Auth;
use crate::error::{Cause, Unreachable};
use crate::layer::progress::{LayerProgress, WaitReason};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;

/// How often a registry may ask to wait, and the longest wait.
const WAITS_MAX: u32 = 5;
const WAIT_MAX: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Sends the requests of one pull, with its credentials.
#[derive(Debug)]
pub(super) struct Requests {
    clients: Arc<Clients>,
    repository: String,
    auth: Option<Auth>,
    /// Whether another endpoint can serve what this one cannot.
    has_alternatives: bool,
}

impl Requests {
    pub(super) fn new(
        clients: Arc<Clients>,
        repository: String,
        auth: Option<Auth>,
        has_alternatives: bool,
    ) -> Self {
        Self { clients, repository, auth, has_alternatives }
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// How long a connection may receive nothing before it counts as stalled.
    pub(super) fn stall(&self) -> Duration {
        self.clients.stall()
    }

    /// The credentials, if this endpoint may receive them.
    fn auth_for(&self, endpoint: &Endpoint) -> Option<&Auth> {
        self.auth.as_ref().filter(|_| endpoint.is_registry)
    }

    /// GETs `path` of the repository. `what` is for messages.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
        headers: &HeaderMap,
        watch: &LayerProgress,
    ) -> Result<Response, Cause> {
        let url = self.url(endpoint, path, what)?;
        let request = TokenRequest {
            endpoint,
            repository: &self.repository,
            auth: self.auth_for(endpoint),
            what,
        };
        let key = TokenKey {
            base: endpoint.api.clone(),
            repository: self.repository.clone(),
            credentials: Auth::key(request.auth),
        };
        let mut authorization = self.clients.tokens.get(&key);
        let (mut was_challenged, mut waits) = (false, 0);
        loop {
            if let Some(wait) = self.clients.breakers.wait(&endpoint.host) {
                watch.waits_for(WaitReason::Later);
                tokio::time::sleep(wait.min(WAIT_MAX)).await;
            }
            watch.waits_for(WaitReason::Answer);
            let mut bound = endpoint.headers.clone();
            if let Some(header) = &authorization {
                bound.insert(AUTHORIZATION, header.clone());
            }
            let sent = follow(endpoint, url.clone(), headers, &bound).await;
            self.count(endpoint, &sent);
            let last = sent?;
            let status = last.response.status();
            match status.as_u16() {
                401 if !was_challenged && last.elsewhere.is_none() => {
                    was_challenged = true;
                    watch.waits_for(WaitReason::Token);
                    let (header, life) = answer(&request, last.response).await?;
                    self.clients.tokens.keep(key.clone(), header.clone(), life);
                    authorization = Some(header);
                }
                429 | 502..=504 if waits < WAITS_MAX => {
                    let wait = wait_of(&last.response, waits);
                    if wait > WAIT_MAX {
                        return Err(later(&request, status, wait));
                    }
                    waits += 1;
                    // Its other layers, and other pulls, wait too.
                    self.clients.breakers.asks_to_wait(&endpoint.host, wait);
                }
                200..=299 => return Ok(last.response),
                _ => return Err(refusal(&request, status, last).await),
            }
        }
    }

    /// Updates the circuit breaker of the host.
    fn count(&self, endpoint: &Endpoint, sent: &Result<FinalResponse, Cause>) {
        match sent {
            Ok(_) => self.clients.breakers.answered(&endpoint.host),
            Err(Cause::Unreachable { .. }) => {
                if let Some(left_alone) = self.clients.breakers.failed(&endpoint.host)
                    && self.has_alternatives
                {
                    let for_s = left_alone.as_secs();
                    tracing::warn!(host = %endpoint.host, for_s, "host does not respond, trying it last for a while");
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

/// The error for a wait that is longer than a pull allows.
fn later(request: &TokenRequest<'_>, status: StatusCode, wait: Duration) -> Cause {
    Cause::Answer {
        host: request.endpoint.host.clone(),
        status: status.as_u16(),
        what: request.what.to_owned(),
        detail: format!("it asks to wait {} s", wait.as_secs()),
    }
}

/// Answers the challenge of a 401 with the best available credentials.
async fn answer(
    request: &TokenRequest<'_>,
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
    if let Some(token) = request.auth.and_then(Auth::registry_token) {
        let header = secret(&format!("Bearer {token}"));
        return header
            .map(|header| (header, None))
            .ok_or_else(|| request.denied("the registry token is not text".into()));
    }
    if let Some(bearer) = find("bearer") {
        let registry = &request.endpoint.host;
        return request.bearer(bearer).await.map_err(|cause| cause.of_token_server(registry));
    }
    match (find("basic"), request.auth.and_then(Auth::basic)) {
        (Some(_), Some((username, password))) => {
            basic(request, username, password).map(|header| (header, None))
        }
        _ => Err(request.denied(response_text(response, request.endpoint.stall).await)),
    }
}

async fn refusal(request: &TokenRequest<'_>, status: StatusCode, answered: FinalResponse) -> Cause {
    let FinalResponse { response, elsewhere } = answered;
    let detail = response_text(response, request.endpoint.stall).await;
    let what = request.what.to_owned();
    let host = elsewhere.clone().unwrap_or_else(|| request.endpoint.host.clone());
    match status.as_u16() {
        401 if elsewhere.is_some() => Cause::Answer {
            host,
            status: status.as_u16(),
            what,
            detail: format!(
                "{} redirects there, and credentials for the one are not for the other",
                request.endpoint.host
            ),
        },
        401 | 403 if elsewhere.is_none() => request.denied(detail),
        404 => Cause::NotFound { host, what },
        // The response of Go's servers to plain HTTP on a TLS port.
        400 if detail.contains("HTTP request to an HTTPS server") => Cause::Unreachable {
            host,
            kind: Unreachable::Tls,
            detail: "it speaks HTTPS, but is configured for plain HTTP".into(),
            registry: None,
        },
        status => Cause::Answer { host, status, what, detail },
    }
}

fn wait_of(response: &Response, waits: u32) -> Duration {
    let header = |name| response.headers().get(name).and_then(|of: &HeaderValue| of.to_str().ok());
    let asked = header(RETRY_AFTER).and_then(|text| retry_after::parse(text, header(DATE)));
    asked.unwrap_or(FIRST_WAIT * 2_u32.pow(waits))
}
