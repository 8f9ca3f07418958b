// SPDX-License-Identifier: Apache-2.0
//! One request to a registry: what it challenges is answered, what it asks to wait for is waited
//! for, within limits, redirects are followed, and what fails is put into words.
//!
//! The rule: credentials, and headers that the operator has set for a host, go to the scheme, host and
//! port (the origin, RFC 6454) that they are for, until a redirect leaves it. A redirect
//! elsewhere goes without them, also when it leads back, and never from HTTPS to plain HTTP. A challenge
//! is answered only for the origin that was asked; from another origin it is an error that names that host.

use super::clients::Clients;
use super::endpoint::Endpoint;
use super::token::{Ask, Owner, basic, secret};
use super::transport::{Answered, follow, response_text};
use super::{challenge, retry_after};
use crate::credentials::auth::Auth;
use crate::error::{Cause, Unreachable};
use crate::layer::progress::{Wait, Watch};
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url};
use std::sync::Arc;
use std::time::Duration;

/// How often a registry may ask us to come back later, and how long we wait at most each time.
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
                    && self.has_alternatives
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
        return ask.bearer(bearer).await;
    }
    match (find("basic"), ask.auth.and_then(Auth::basic)) {
        (Some(_), Some((username, password))) => {
            basic(ask, username, password).map(|header| (header, None))
        }
        _ => Err(ask.denied(response_text(response, ask.endpoint.stall).await)),
    }
}

async fn refusal(ask: &Ask<'_>, status: StatusCode, answered: Answered) -> Cause {
    let Answered { response, elsewhere } = answered;
    let said = response_text(response, ask.endpoint.stall).await;
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
        },
        status => Cause::Answer { host, status, what, said },
    }
}

fn wait_of(response: &Response, waits: u32) -> Duration {
    let header = |name| response.headers().get(name).and_then(|of: &HeaderValue| of.to_str().ok());
    let asked = header(RETRY_AFTER).and_then(|text| retry_after::parse(text, header(DATE)));
    asked.unwrap_or(FIRST_WAIT * 2_u32.pow(waits))
}
