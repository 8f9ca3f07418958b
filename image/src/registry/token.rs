// SPDX-License-Identifier: Apache-2.0
//! Obtains tokens for Bearer challenges, and caches them until they expire.
//!
//! The rule: a cached token is used only for the credentials it was issued for. A token server may be
//! another host than the registry that names it, but is requested over TLS, unless the registry itself is
//! plain HTTP, and then only if it is at most as far away: plain HTTP on loopback is
//! allowed because it does not leave this machine.

use super::breaker::Breakers;
use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::retry::{self, Failed, Patience, Retry};
use super::transport::{self, ErrorText};
use crate::credentials::auth::Auth;
use crate::error::{Cause, Unreachable};
use crate::layer::progress::{LayerProgress, WaitReason};
use crate::reference::host::is_loopback;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The largest response of a token server.
const ANSWER_BYTES_MAX: u64 = crate::limits::TOKEN_BYTES.default;
/// The lifetime of a token whose server states none, by the protocol.
const DEFAULT_LIFE_S: u64 = 60;
/// The longest time for which a token is cached, whatever its server states.
const LIFE_MAX_S: u64 = 24 * 3600;
/// A token is not used this close to its expiry: requests take time.
const MARGIN: Duration = Duration::from_secs(10);
/// The object of a request to a token server, in messages.
const TOKEN: &str = "a token";
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
        let life = life.map(|life| life.min(Duration::from_secs(LIFE_MAX_S)));
        let until = life.map(|life| Instant::now() + life.saturating_sub(MARGIN));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(key, Token { header, until });
    }
}

/// The response of a token server: the token and its lifetime.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    token: String,
    life: Duration,
}

/// Some members of an object, as Go's decoder takes them: in any case, of a key that comes again the last one that is
/// not null. Others may be anything.
struct Members<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = HashMap<&'static str, Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = HashMap<&'static str, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.0.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(name) => {
                    let value = map.next_value::<Value>()?;
                    if !value.is_null() {
                        members.insert(*name, value);
                    }
                }
            }
        }
        Ok(members)
    }
}

/// Reads members of the first object of a text. What follows it does not matter.
fn members(
    bytes: &[u8],
    names: &[&'static str],
) -> Result<HashMap<&'static str, Value>, serde_json::Error> {
    Members(names).deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

/// Reads a response. Only the token counts, by either name: a lifetime that makes no sense is the default one.
pub(super) fn parse(bytes: &[u8]) -> Result<Answer, &'static str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The error would quote the text, which may hold a token.
    let mut tokens =
        members(bytes, &["token", "access_token"]).map_err(|_| "its response is not JSON")?;
    let token = ["token", "access_token"]
        .into_iter()
        .filter_map(|name| tokens.remove(name))
        .filter_map(|value| if let Value::String(text) = value { Some(text) } else { None })
        .find(|text| !text.is_empty())
        .ok_or("its response has no token")?;
    let life = members(bytes, &["expires_in"]).ok().and_then(|mut of| of.remove("expires_in"));
    Ok(Answer { token, life: lifetime(&life.unwrap_or_default()) })
}

/// A lifetime in seconds as a number or a text, at least the default one.
fn lifetime(value: &Value) -> Duration {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let least = Duration::from_secs(DEFAULT_LIFE_S);
    let most = Duration::from_secs(LIFE_MAX_S);
    match seconds.filter(|seconds| !seconds.is_nan()) {
        None => least,
        Some(seconds) => Duration::try_from_secs_f64(seconds.clamp(0.0, most.as_secs_f64()))
            .unwrap_or(least)
            .max(least),
    }
}

/// A request for a token.
pub(super) struct TokenRequest<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
    pub(super) auth: Option<&'a Auth>,
    /// The object that the registry was asked for, for messages.
    pub(super) what: &'a str,
    pub(super) patience: Patience,
    /// The first pause between tries.
    pub(super) pause: Duration,
    pub(super) breakers: &'a Breakers,
    pub(super) watch: &'a LayerProgress,
}

impl TokenRequest<'_> {
    /// Answers a Bearer challenge: the header to send and its lifetime. `asked` is the address whose response it was.
    pub(super) async fn bearer(
        &self,
        challenge: &Challenge,
        asked: &Url,
    ) -> Result<(HeaderValue, Option<Duration>), Cause> {
        let url = self.token_server(challenge, asked).map_err(|why| self.useless(why))?;
        let default_scope = format!("repository:{}:pull", self.repository);
        let mut fields = Vec::new();
        if let Some(service) = challenge.get("service") {
            fields.push(("service", service));
        }
        fields.push(("scope", challenge.get("scope").unwrap_or(&default_scope)));
        let Answer { token, life } = self.obtain(&url, fields).await?;
        let header = secret(&format!("Bearer {token}"));
        let server = transport::host_and_port(&url);
        let not_text = || self.no_token("its token is not text", &server);
        Ok((header.ok_or_else(not_text)?, Some(life)))
    }

    /// The URL of the token server in a challenge, or why credentials are not sent there. A path alone is on the
    /// registry.
    fn token_server(&self, challenge: &Challenge, asked: &Url) -> Result<Url, &'static str> {
        let realm = challenge.get("realm").unwrap_or_default().trim();
        let is_relative = ["/", "./", "../"].iter().any(|start| realm.starts_with(start));
        let url = if is_relative { asked.join(realm) } else { Url::parse(realm) };
        let url = url.map_err(|_| "it names no token server")?;
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

    /// Asks the token server, again if it fails for the moment.
    async fn obtain(&self, url: &Url, mut fields: Vec<(&str, &str)>) -> Result<Answer, Cause> {
        let identity = self.auth.and_then(Auth::identity_token);
        if let Some(token) = identity {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "hull"),
                ("refresh_token", token),
            ]);
        }
        let server = transport::host_and_port(url);
        let mut retry = Retry::new(self.patience, self.pause, self.endpoint.stall);
        loop {
            retry::turn(&server, TOKEN, self.patience, self.breakers, self.watch).await?;
            self.watch.waits_for(WaitReason::Token);
            let began = Instant::now();
            let sent = match identity {
                Some(_) => self.post(url, &fields, &server).await,
                None => self.get(url.clone(), &fields).await,
            };
            let answer = match sent {
                Ok(response) => self.answer(response, &server).await,
                Err(cause) => Err(cause.asked_for(TOKEN).into()),
            };
            let failed = match answer {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            retry.wait(failed, began.elapsed(), &server, self.breakers, self.watch).await?;
        }
    }

    async fn get(&self, mut url: Url, fields: &[(&str, &str)]) -> Result<Response, Cause> {
        url.query_pairs_mut().extend_pairs(fields);
        let mut bound = HeaderMap::new();
        if let Some((username, password)) = self.auth.and_then(Auth::basic) {
            bound.insert(AUTHORIZATION, basic(self, username, password)?);
        }
        let sent = transport::follow(self.endpoint, url, &HeaderMap::new(), &bound).await;
        sent.map(|answered| answered.response)
    }

    async fn post(
        &self,
        url: &Url,
        fields: &[(&str, &str)],
        server: &str,
    ) -> Result<Response, Cause> {
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
        transport::send(request, server, self.endpoint.stall).await
    }

    async fn answer(&self, response: Response, server: &str) -> Result<Answer, Failed> {
        let status = response.status();
        if !status.is_success() {
            let asks = retry::asked_pause(&response);
            let text = transport::error_text(response, self.endpoint.stall).await;
            let cause = self.refusal(status.as_u16(), text, server);
            return Err(Failed { asks, status: Some(status.as_u16()), ..cause.into() });
        }
        let (what, limit) = ("the response of the token server", self.endpoint.stall);
        let read = transport::body(response, what, ANSWER_BYTES_MAX, server);
        let read = tokio::time::timeout(limit, read).await;
        let body = read.map_err(|_| transport::stalled(server, what, limit))??;
        let bytes = body.complete(what, ANSWER_BYTES_MAX)?;
        if transport::is_page(&bytes) {
            return Err(self.refusal(status.as_u16(), ErrorText::Page, server).into());
        }
        parse(&bytes).map_err(|why| self.no_token(why, server).into())
    }

    fn refusal(&self, status: u16, text: ErrorText, server: &str) -> Cause {
        let what = format!("a token for {}", self.repository);
        let host = server.to_owned();
        match (status, text) {
            (400 | 401, text) => self.denied(text.words()),
            (_, ErrorText::WantsTls) => Cause::Unreachable {
                host,
                kind: Unreachable::SpeaksTls,
                detail: String::new(),
                registry: None,
            },
            (_, ErrorText::Page) => Cause::Page { host, status, what },
            (403, ErrorText::Registry(words)) => self.denied(words),
            (_, text) => Cause::Answer {
                host,
                status,
                what,
                detail: text.words(),
                registry: None,
                redirected_by: None,
            },
        }
    }

    pub(super) fn denied(&self, detail: String) -> Cause {
        Cause::Denied {
            host: self.endpoint.host.clone(),
            what: self.what.to_owned(),
            detail,
            with_credentials: self.auth.is_some(),
        }
    }

    /// The registry's challenge cannot be answered: no credentials would help.
    fn useless(&self, why: &str) -> Cause {
        Cause::Answer {
            host: self.endpoint.host.clone(),
            status: 401,
            what: self.what.to_owned(),
            detail: format!("it wants a token, but {why}"),
            registry: None,
            redirected_by: None,
        }
    }

    /// The token server's response has no token.
    fn no_token(&self, why: &str, server: &str) -> Cause {
        let what = format!("a token for {}", self.repository);
        let (host, detail) = (server.to_owned(), why.to_owned());
        Cause::Answer { host, status: 200, what, detail, registry: None, redirected_by: None }
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
    use proptest::prelude::*;

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

    #[test]
    fn a_token_is_taken_whatever_else_the_response_says() {
        let day = LIFE_MAX_S;
        for (text, seconds) in [
            (r#"{"token":"T"}"#, 60),
            (r#"{"token":"T","expires_in":300}"#, 300),
            (r#"{"token":"T","expires_in":299.5}"#, 299),
            (r#"{"token":"T","expires_in":3e2}"#, 300),
            (r#"{"token":"T","expires_in":"300"}"#, 300),
            (r#"{"token":"T","expires_in":" 300.0 "}"#, 300),
            (r#"{"token":"T","expires_in":"soon"}"#, 60),
            (r#"{"token":"T","expires_in":"NaN"}"#, 60),
            (r#"{"token":"T","expires_in":"inf"}"#, day),
            (r#"{"token":"T","expires_in":"-inf"}"#, 60),
            (r#"{"token":"T","expires_in":-1}"#, 60),
            (r#"{"token":"T","expires_in":-1e300}"#, 60),
            (r#"{"token":"T","expires_in":0}"#, 60),
            (r#"{"token":"T","expires_in":null}"#, 60),
            (r#"{"token":"T","expires_in":[300]}"#, 60),
            (r#"{"token":"T","expires_in":true}"#, 60),
            (r#"{"token":"T","expires_in":9223372036854775807}"#, day),
            (r#"{"token":"T","expires_in":18446744073709551615}"#, day),
            (r#"{"token":"T","expires_in":99999999999999999999}"#, day),
            (r#"{"token":"T","expires_in":1e308}"#, day),
            // Larger than any number of JSON's common readers.
            (r#"{"token":"T","expires_in":1e999}"#, 60),
            (r#"{"token":"","access_token":"T"}"#, 60),
            (r#"{"token":null,"access_token":"T"}"#, 60),
            (r#"{"token":7,"access_token":"T","issued_at":-5}"#, 60),
            (r#"{"access_token":"T","issued_at":"32767-99-99T99:99:99Z"}"#, 60),
            (r#"{"token":"U","token":"T","expires_in":5,"expires_in":300}"#, 300),
            (r#"{"token":"T","token":null,"expires_in":300,"expires_in":null}"#, 300),
            ("{\"token\":\"T\"} trailing", 60),
            ("{\"token\":\"T\"}\n{\"token\":\"U\"}", 60),
            (r#"{"Token":"T","EXPIRES_IN":300}"#, 300),
            (r#"{"ACCESS_TOKEN":"T","issued_at":{"token":"U"}}"#, 60),
            ("\u{feff}{\"access_token\":\"T\",\"issued_at\":null,\"scope\":[{}]}", 60),
        ] {
            let answer = parse(text.as_bytes()).unwrap();
            assert_eq!((answer.token.as_str(), answer.life.as_secs()), ("T", seconds), "{text}");
        }
        for text in ["", "null", "[]", "<html>", "{", r#"{"token":""}"#, r#"{"token":["T"]}"#, "{}"]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_response_makes_it_panic(life in "-?[0-9]{1,30}(\\.[0-9]{1,5})?(e-?[0-9]{1,4})?", text in "\\PC{0,40}") {
            for text in [&text, &format!(r#"{{"token":"T","expires_in":{life}}}"#)] {
                let least = parse(text.as_bytes()).map_or(DEFAULT_LIFE_S, |of| of.life.as_secs());
                prop_assert!((DEFAULT_LIFE_S..=LIFE_MAX_S).contains(&least));
            }
        }
    }

    #[test]
    fn a_token_is_kept_for_a_bounded_time() {
        let tokens = Tokens::default();
        tokens.keep(key("a"), secret("Bearer t").unwrap(), Some(Duration::MAX));
        assert!(tokens.get(&key("a")).is_some());
        let until = tokens.tokens.lock().unwrap()[&key("a")].until.unwrap();
        assert!(until < Instant::now() + Duration::from_secs(LIFE_MAX_S));
    }
}
