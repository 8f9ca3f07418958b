// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: answers its challenge, and turns its failures into errors.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect
//! elsewhere goes without them, also when it leads back, and never from HTTPS to plain HTTP. A challenge
//! is answered only for the requested origin; from another origin it is an error that names that host.

use super::challenge;
use super::clients::Clients;
use super::counters::HostKind;
use super::endpoint::Endpoint;
use super::retry::{self, Failed, Patience, Retry};
use super::token::{TokenKey, TokenRequest, basic, secret};
use super::transport::{ErrorText, FinalResponse, error_text, follow};
use crate::credentials::auth::Auth;
use crate::error::{Cause, Object, Unreachable};
use crate::layer::progress::{LayerProgress, WaitReason};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;

/// An object of the repository that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The path in the repository.
    pub(super) path: &'a str,
    /// Its name in messages.
    pub(super) what: &'a str,
    pub(super) object: Object,
}

/// Sends the requests of one pull, with its credentials.
#[derive(Debug)]
pub(super) struct Requests {
    clients: Arc<Clients>,
    repository: String,
    auth: Option<Auth>,
}

impl Requests {
    pub(super) fn new(clients: Arc<Clients>, repository: String, auth: Option<Auth>) -> Self {
        Self { clients, repository, auth }
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// How long a connection may receive nothing before it counts as stalled.
    pub(super) fn stall(&self) -> Duration {
        self.clients.stall()
    }

    /// The tries of one request, which end once those without progress took `time_max`.
    pub(super) fn retry(&self, patience: Patience, time_max: Duration) -> Retry {
        Retry::new(patience, self.clients.pause(), time_max)
    }

    /// Waits before the next try, or returns the reason why there is none.
    pub(super) async fn wait(
        &self,
        retry: &mut Retry,
        failed: Failed,
        took: Duration,
        endpoint: &Endpoint,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        retry.wait(failed, took, &endpoint.host, &self.clients.breakers, watch).await?;
        self.clients.counters.retried();
        Ok(())
    }

    /// Counts bytes of a layer that an endpoint has sent.
    pub(super) fn received(&self, endpoint: &Endpoint, bytes: u64) {
        self.clients.counters.received(kind(endpoint), bytes);
    }

    /// Whether the host failed a moment ago.
    pub(super) fn is_left_alone(&self, endpoint: &Endpoint) -> bool {
        self.clients.breakers.is_open(&endpoint.host)
    }

    /// The credentials, if this endpoint may receive them.
    fn auth_for(&self, endpoint: &Endpoint) -> Option<&Auth> {
        self.auth.as_ref().filter(|_| endpoint.is_registry)
    }

    /// GETs an object of the repository, once.
    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        target: Target<'_>,
        headers: &HeaderMap,
        watch: &LayerProgress,
    ) -> Result<Response, Failed> {
        let breakers = &self.clients.breakers;
        let url = self.url(endpoint, target)?;
        let request = TokenRequest {
            endpoint,
            repository: &self.repository,
            auth: self.auth_for(endpoint),
            what: target.what,
            patience,
            pause: self.clients.pause(),
            breakers,
            watch,
        };
        let key = TokenKey {
            base: endpoint.api.clone(),
            repository: self.repository.clone(),
            credentials: Auth::key(request.auth),
        };
        let mut authorization = self.clients.tokens.get(&key);
        let mut was_challenged = false;
        loop {
            retry::turn(&endpoint.host, target.what, patience, breakers, watch).await?;
            watch.waits_for(WaitReason::Answer);
            let mut bound = endpoint.headers.clone();
            if let Some(header) = &authorization {
                bound.insert(AUTHORIZATION, header.clone());
            }
            let last = follow(endpoint, url.clone(), headers, &bound).await?;
            match last.response.status().as_u16() {
                401 if !was_challenged && last.elsewhere.is_none() => {
                    was_challenged = true;
                    // The token server was tried often enough.
                    let answered = answer(&request, last.response).await;
                    let (header, life) = answered
                        .map_err(|cause| Failed { is_final: true, ..Failed::from(cause) })?;
                    self.clients.tokens.keep(key.clone(), header.clone(), life);
                    authorization = Some(header);
                }
                200 | 203 | 206 => return Ok(last.response),
                status => {
                    let asks = retry::asked_pause(&last.response);
                    let cause = refusal(&request, target.object, last).await;
                    return Err(Failed { status: Some(status), asks, ..cause.into() });
                }
            }
        }
    }

    /// Counts an object that was requested, and updates the circuit breaker of its host by the end of a request that took
    /// `took`.
    pub(super) fn count(
        &self,
        endpoint: &Endpoint,
        cause: Option<&Cause>,
        took: Duration,
        has_alternatives: bool,
    ) {
        self.clients.counters.requested(kind(endpoint), cause.is_none());
        let breakers = &self.clients.breakers;
        let has_failed = |cause: &&Cause| {
            cause.is_transient() || matches!(cause, Cause::Unreachable { .. } | Cause::Page { .. })
        };
        if cause.filter(has_failed).is_none() {
            breakers.answered(&endpoint.host);
        } else if let Some(left_alone) = breakers.failed(&endpoint.host, took)
            && has_alternatives
        {
            let for_s = left_alone.as_secs();
            tracing::warn!(host = %endpoint.host, for_s, "host does not serve, trying it last for a while");
        }
    }

    fn url(&self, endpoint: &Endpoint, target: Target<'_>) -> Result<Url, Cause> {
        let text = format!("{}/{}/{}", endpoint.api, self.repository, target.path);
        let mut url = Url::parse(&text).map_err(|err| Cause::Document {
            what: format!("the address of {} at {}", target.what, endpoint.host),
            why: err.to_string(),
        })?;
        if let Some(host) = &endpoint.stands_for {
            url.query_pairs_mut().append_pair("ns", host);
        }
        Ok(url)
    }
}

/// Whether an endpoint is the registry itself.
fn kind(endpoint: &Endpoint) -> HostKind {
    if endpoint.is_registry { HostKind::Registry } else { HostKind::Mirror }
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
        return request
            .bearer(bearer, response.url())
            .await
            .map_err(|cause| cause.of_token_server(registry));
    }
    match (find("basic"), request.auth.and_then(Auth::basic)) {
        (Some(_), Some((username, password))) => {
            basic(request, username, password).map(|header| (header, None))
        }
        _ => Err(request.denied(error_text(response, request.endpoint.stall).await.words())),
    }
}

async fn refusal(request: &TokenRequest<'_>, object: Object, answered: FinalResponse) -> Cause {
    let FinalResponse { response, elsewhere, is_redirected } = answered;
    let status = response.status();
    let text = error_text(response, request.endpoint.stall).await;
    let what = request.what.to_owned();
    let host = elsewhere.clone().unwrap_or_else(|| request.endpoint.host.clone());
    let answer = |detail| Cause::Answer {
        host: host.clone(),
        status: status.as_u16(),
        what: what.clone(),
        detail,
        registry: None,
        redirected_by: is_redirected.then(|| request.endpoint.host.clone()),
    };
    match (status, text) {
        (StatusCode::UNAUTHORIZED, _) if elsewhere.is_some() => {
            answer("credentials for the one are not for the other".to_owned())
        }
        (_, ErrorText::WantsTls) => Cause::Unreachable {
            host,
            kind: Unreachable::SpeaksTls,
            detail: String::new(),
            registry: None,
        },
        (StatusCode::NOT_FOUND, _) => Cause::NotFound { host, what, object },
        // Some web servers in front of a registry ask for the password with a page.
        (StatusCode::UNAUTHORIZED, text) => request.denied(text.words()),
        (_, ErrorText::Page) => Cause::Page { host, status: status.as_u16(), what },
        (StatusCode::FORBIDDEN, ErrorText::Registry(words)) if elsewhere.is_none() => {
            request.denied(words)
        }
        (_, text) => answer(text.words()),
    }
}
