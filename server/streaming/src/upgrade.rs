// SPDX-License-Identifier: Apache-2.0
//! What both sides will speak once the connection is upgraded: chosen from what the client offers, or
//! refused with the names of what is spoken here.

use crate::remotecommand::Version;
use crate::websocket::Channels;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
/// The only version of WebSocket that there ever was.
const WEBSOCKET_VERSION: &str = "13";
/// A nonce of 16 bytes in base64.
const KEY_LENGTH: usize = 24;
const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY in the messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The standard streams of a process.
    RemoteCommand,
    /// Connections into a pod.
    PortForward,
}

/// What both sides will speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speak {
    /// Remotecommand or port-forward in the streams of SPDY.
    Spdy(Version),
    /// Remotecommand in the channels of WebSocket.
    Channels(Channels, Version),
    /// SPDY in the messages of WebSocket.
    Tunnel,
}

impl Speak {
    /// Of remotecommand, which port-forward does not use.
    pub fn version(self) -> Version {
        match self {
            Self::Spdy(version) | Self::Channels(_, version) => version,
            Self::Tunnel => Version::default(),
        }
    }
}

/// Chooses, with the answer that tells the client; or the answer that refuses it.
pub fn choose<B>(
    request: &Request<B>,
    used: Use,
) -> Result<(Speak, Response<String>), Response<String>> {
    let headers = request.headers();
    let wants =
        |protocol: &str| names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case(protocol));
    if wants(SPDY) {
        spdy(headers, used)
    } else if wants(WEBSOCKET) {
        websocket(request, used)
    } else {
        Err(refuse(StatusCode::BAD_REQUEST, "ask for an upgrade to SPDY/3.1 or to websocket"))
    }
}

fn spdy(headers: &HeaderMap, used: Use) -> Result<(Speak, Response<String>), Response<String>> {
    let accepted: &[&str] = match used {
        Use::RemoteCommand => &Version::NAMES,
        Use::PortForward => &[PORT_FORWARD],
    };
    let Some(chosen) = first_of(headers, &PROTOCOL, accepted) else {
        let mut refused = refuse(StatusCode::FORBIDDEN, &none_of(accepted));
        for name in accepted {
            refused.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
        }
        return Err(refused);
    };
    let response = switching(SPDY, [(PROTOCOL, HeaderValue::from_static(chosen))]);
    Ok((Speak::Spdy(Version::of(chosen)), response))
}

fn websocket<B>(
    request: &Request<B>,
    used: Use,
) -> Result<(Speak, Response<String>), Response<String>> {
    let headers = request.headers();
    let is_its_version =
        headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == WEBSOCKET_VERSION);
    if !is_its_version {
        let mut refused =
            refuse(StatusCode::UPGRADE_REQUIRED, "of WebSocket, version 13 is spoken here");
        let version = HeaderValue::from_static(WEBSOCKET_VERSION);
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
        return Err(refused);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_LENGTH);
    let (Some(key), true) = (key, request.method() == Method::GET) else {
        let why = "a WebSocket begins with GET and a Sec-WebSocket-Key of 16 bytes in base64";
        return Err(refuse(StatusCode::BAD_REQUEST, why));
    };
    // What was derived is base64.
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.unwrap_or_else(|_| HeaderValue::from_static(""));
    let accepted: Vec<&'static str> = match used {
        Use::RemoteCommand => Channels::NAMES.map(|(name, _)| name).into(),
        Use::PortForward => vec![TUNNEL],
    };
    let Some(chosen) = first_of(headers, &SEC_WEBSOCKET_PROTOCOL, &accepted) else {
        return Err(refuse(StatusCode::FORBIDDEN, &none_of(&accepted)));
    };
    let found = Channels::NAMES.iter().find(|(name, _)| *name == chosen);
    let speak = match found {
        Some((name, version)) => Speak::Channels(Channels::of(name), Version::numbered(*version)),
        None => Speak::Tunnel,
    };
    let mut response = switching(WEBSOCKET, [(SEC_WEBSOCKET_ACCEPT, accept)]);
    // A client that named none must not be told one.
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let chosen = HeaderValue::from_static(chosen);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok((speak, response))
}

fn switching(to: &'static str, more: [(HeaderName, HeaderValue); 1]) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    headers.extend(more);
    response
}

/// The first protocol the client offers that is spoken here.
fn first_of(
    headers: &HeaderMap,
    header: &HeaderName,
    accepted: &[&'static str],
) -> Option<&'static str> {
    let mut offered = names(headers, header).peekable();
    if offered.peek().is_none() {
        // Clients from before there were versions.
        return accepted.last().copied();
    }
    offered.find_map(|name| accepted.iter().copied().find(|one| *one == name))
}

fn none_of(accepted: &[&str]) -> String {
    format!("no stream protocol that both sides speak; here they are {}", accepted.join(", "))
}

/// The names in all headers of this name, which may also hold several with commas between.
fn names<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// An answer that is no upgrade.
pub fn refuse(status: StatusCode, why: &str) -> Response<String> {
    let mut response = Response::new(format!("{why}\n"));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    fn websocket(protocols: &[&str]) -> Request<()> {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        // Key and answer are those of RFC 6455.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        headers.insert(SEC_WEBSOCKET_KEY, key);
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, protocol.parse().unwrap());
        }
        request
    }

    #[test]
    fn the_clients_first_choice_that_is_spoken_here_is_taken() {
        let (speak, response) = choose(
            &websocket(&["v6.channel.k8s.io, v5.channel.k8s.io", "channel.k8s.io"]),
            Use::RemoteCommand,
        )
        .unwrap();
        assert_eq!(speak, Speak::Channels(Channels::of("v5.channel.k8s.io"), Version::numbered(5)));
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (speak, response) = choose(&websocket(&[]), Use::RemoteCommand).unwrap();
        assert_eq!(speak, Speak::Channels(Channels::of("channel.k8s.io"), Version::numbered(1)));
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn what_is_not_spoken_here_is_refused_by_name() {
        let refused = choose(&websocket(&["v6.channel.k8s.io"]), Use::RemoteCommand).unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert!(refused.body().contains("v4.channel.k8s.io"), "{}", refused.body());
        let refused = choose(&websocket(&["v4.channel.k8s.io"]), Use::PortForward).unwrap_err();
        assert!(refused.body().contains(TUNNEL), "{}", refused.body());
        let (speak, _) = choose(&websocket(&[TUNNEL]), Use::PortForward).unwrap();
        assert_eq!(speak, Speak::Tunnel);
    }

    #[test]
    fn a_websocket_that_is_none_is_refused() {
        let mut old = websocket(&["v5.channel.k8s.io"]);
        old.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        let refused = choose(&old, Use::RemoteCommand).unwrap_err();
        assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(refused.headers()[SEC_WEBSOCKET_VERSION], "13");
        let mut keyless = websocket(&["v5.channel.k8s.io"]);
        keyless.headers_mut().remove(SEC_WEBSOCKET_KEY);
        assert_eq!(
            choose(&keyless, Use::RemoteCommand).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        let mut post = websocket(&["v5.channel.k8s.io"]);
        *post.method_mut() = Method::POST;
        assert_eq!(
            choose(&post, Use::RemoteCommand).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
