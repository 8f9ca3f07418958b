// SPDX-License-Identifier: Apache-2.0
//! Obtains tokens for Bearer challenges, and caches them until they expire.
//!
//! The rule: a cached token is used only for the credentials it was issued for. A token server may be
//! another host than the registry that names it, but is requested over TLS, unless the registry itself is
//! plain HTTP, and then only if it is at most as far away: plain HTTP on loopback is
//! allowed because it does not leave this machine.

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::transport;
use crate::credentials::auth::Auth;
use crate::error::Cause;
use crate::reference::host::is_loopback;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The largest response of a token server.
const ANSWER_BYTES_MAX: u64 = crate::limits::TOKEN_BYTES.default;
/// The lifetime of a token whose server states none, by the protocol.
const DEFAULT_LIFE_S: u64 = 60;
/// A token is not used this close to its expiry: requests take time.
const MARGIN: Duration = Duration::from_secs(10);
/// The largest number of cached tokens.
const TOKENS_MAX: usize = 4096;

/// The cache key of a token: endpoint, repository, credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) base: String,
    pub(super) repository: String,
    pub(super) credentials: String,
}

struct Token {
    header: HeaderValue,
    until: Option<Instant>,
}

/// The tokens of a store.
#[derive(Default)]
pub(super) struct Tokens {
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(not shown)")
    }
}

impl Tokens {
    /// The header with a valid token, if one is cached.
    pub(super) fn get(&self, key: &TokenKey) -> Option<HeaderValue> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = |token: &&Token| token.until.is_none_or(|until| until > Instant::now());
        tokens.get(key).filter(is_good).map(|token| token.header.clone())
    }

    pub(super) fn keep(&self, key: TokenKey, header: HeaderValue, life: Option<Duration>) {
        let until = life.map(|life| Instant::now() + life.saturating_sub(MARGIN));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(key, Token { header, until });
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// A request for a token.
pub(super) struct TokenRequest<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
    pub(super) auth: Option<&'a Auth>,
    /// The object that the registry was asked for, for messages.
    pub(super) what: &'a str,
}

impl TokenRequest<'_> {
    /// Answers a Bearer challenge: the header to send and its lifetime.
    pub(super) async fn bearer(
        &self,
        challenge: &Challenge,
    ) -> Result<(HeaderValue, Option<Duration>), Cause> {
        let url = self.token_server(challenge).map_err(|why| self.useless(why))?;
        let default_scope = format!("repository:{}:pull", self.repository);
        let mut fields = Vec::new();
        if let Some(service) = challenge.get("service") {
            fields.push(("service", service));
        }
        fields.push(("scope", challenge.get("scope").unwrap_or(&default_scope)));
        let answer = match self.auth.and_then(Auth::identity_token) {
            Some(token) => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "hull"),
                    ("refresh_token", token),
                ]);
                self.post(&url, &fields).await?
            }
            None => self.get(url, &fields).await?,
        };
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.useless("its token server gave no token"))?;
        let life =
            Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE_S).max(DEFAULT_LIFE_S));
        Ok((
            secret(&format!("Bearer {token}"))
                .ok_or_else(|| self.useless("its token is not text"))?,
            Some(life),
        ))
    }

    /// The URL of the token server in a challenge, or why credentials are not sent there.
    fn token_server(&self, challenge: &Challenge) -> Result<Url, &'static str> {
        let realm = challenge.get("realm").unwrap_or_default();
        let url = Url::parse(realm).map_err(|_| "it names no token server")?;
        let api = Url::parse(&self.endpoint.api).ok();
        let of_registry = api.as_ref().and_then(Url::host_str).unwrap_or_default();
        let own = url.host_str().unwrap_or_default();
        // Loopback is without TLS by default: nobody decided that for another host.
        let is_near = is_loopback(own) || own == of_registry || !is_loopback(of_registry);
        match url.scheme() {
            _ if transport::has_credentials(&url) => {
                Err("the address of its token server has credentials in it")
            }
            "https" => Ok(url),
            "http" if self.endpoint.api.starts_with("http:") && is_near => Ok(url),
            "http" => Err("its token server is to be asked without TLS"),
            _ => Err("it names no token server that may be asked"),
        }
    }

    async fn get(&self, mut url: Url, fields: &[(&str, &str)]) -> Result<Answer, Cause> {
        url.query_pairs_mut().extend_pairs(fields);
        let mut bound = HeaderMap::new();
        if let Some((username, password)) = self.auth.and_then(Auth::basic) {
            bound.insert(AUTHORIZATION, basic(self, username, password)?);
        }
        let sent = transport::follow(self.endpoint, url.clone(), &HeaderMap::new(), &bound).await;
        self.answer(sent?.response, &url).await
    }

    async fn post(&self, url: &Url, fields: &[(&str, &str)]) -> Result<Answer, Cause> {
        // A form is written like a query.
        let mut form = url.clone();
        form.set_query(None);
        form.query_pairs_mut().extend_pairs(fields);
        let request = self
            .endpoint
            .http
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        let server = url.host_str().unwrap_or_default();
        let response = transport::send(request, server, self.endpoint.stall).await?;
        self.answer(response, url).await
    }

    async fn answer(&self, response: Response, url: &Url) -> Result<Answer, Cause> {
        let server = url.host_str().unwrap_or_default();
        let status = response.status();
        if matches!(status.as_u16(), 400 | 401 | 403) {
            let detail = transport::response_text(response, self.endpoint.stall).await;
            return Err(self.denied(detail));
        }
        if !status.is_success() {
            let detail = transport::response_text(response, self.endpoint.stall).await;
            let what = format!("a token for {}", self.repository);
            return Err(Cause::Answer {
                host: server.to_owned(),
                status: status.as_u16(),
                what,
                detail,
            });
        }
        let (what, limit) = ("the answer of the token server", self.endpoint.stall);
        let read = transport::body(response, what, ANSWER_BYTES_MAX, server);
        let bytes = match tokio::time::timeout(limit, read).await {
            Ok(read) => read?,
            Err(_) => return Err(transport::stalled(server, what, limit)),
        };
        // The error would quote the text, which may hold a token.
        serde_json::from_slice(&bytes)
            .map_err(|_| self.useless("the response of its token server is not JSON"))
    }

    pub(super) fn denied(&self, detail: String) -> Cause {
        Cause::Denied {
            host: self.endpoint.host.clone(),
            what: self.what.to_owned(),
            detail,
            with_credentials: self.auth.is_some(),
        }
    }

    fn useless(&self, why: &str) -> Cause {
        self.denied(format!("it wants a token, but {why}"))
    }
}

/// The header for username and password, written by reqwest.
pub(super) fn basic(
    request: &TokenRequest<'_>,
    username: &str,
    password: &str,
) -> Result<HeaderValue, Cause> {
    let built = request
        .endpoint
        .http
        .get(&request.endpoint.api)
        .basic_auth(username, Some(password))
        .build();
    built
        .ok()
        .and_then(|built| built.headers().get(AUTHORIZATION).cloned())
        .ok_or_else(|| request.denied("username and password cannot be sent".into()))
}

/// A header that is not printed.
pub(super) fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(credentials: &str) -> TokenKey {
        TokenKey {
            base: "https://x".into(),
            repository: "a/b".into(),
            credentials: credentials.into(),
        }
    }

    #[test]
    fn a_token_is_for_the_credentials_it_was_given_for() {
        let tokens = Tokens::default();
        tokens.keep(key("alice"), secret("Bearer t").unwrap(), Some(Duration::from_secs(60)));
        assert!(tokens.get(&key("alice")).is_some());
        assert!(tokens.get(&key("mallory")).is_none());
        assert!(tokens.get(&key("")).is_none());
    }

    #[test]
    fn a_token_near_its_end_is_not_used() {
        let tokens = Tokens::default();
        tokens.keep(key("a"), secret("Bearer t").unwrap(), Some(MARGIN));
        assert!(tokens.get(&key("a")).is_none());
    }
}
