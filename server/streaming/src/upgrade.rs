// SPDX-License-Identifier: Apache-2.0
//! Negotiates the protocol of an upgraded connection: selects one that the client offers, or refuses with the
//! names of the supported ones.

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
/// The version of WebSocket in RFC 6455.
const WEBSOCKET_VERSION: &str = "13";
/// Length of 16 bytes in base64.
const KEY_LENGTH: usize = 24;
const PORT_FORWARD: &str = "portforward.k8s.io";
/// SPDY in messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Exec or attach: the standard streams of a process.
    RemoteCommand,
    /// Port-forward: connections into a pod.
    PortForward,
}

/// The protocol after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Remotecommand or port-forward in the streams of SPDY.
    Spdy(Version),
    /// Remotecommand in the channels of WebSocket.
    Channels(Channels, Version),
    /// SPDY in the messages of WebSocket.
    Tunnel,
}

impl Protocol {
    /// The version of remotecommand; the default one for port-forward, which does not use it.
    pub fn version(self) -> Version {
        match self {
            Self::Spdy(version) | Self::Channels(_, version) => version,
            Self::Tunnel => Version::default(),
        }
    }
}

/// Selects the protocol. Returns it with the response for the client.
///
/// # Errors
/// The response that refuses the client.
pub fn negotiate<B>(
    request: &Request<B>,
    purpose: Purpose,
) -> Result<(Protocol, Response<String>), Response<String>> {
    let headers = request.headers();
    let wants =
        |protocol: &str| names(headers, &UPGRADE).any(|name| name.eq_ignore_ascii_case(protocol));
    if wants(SPDY) {
        spdy(headers, purpose)
    } else if wants(WEBSOCKET) {
        websocket(request, purpose)
    } else {
        Err(refuse(StatusCode::BAD_REQUEST, "request an upgrade to SPDY/3.1 or to websocket"))
    }
}

fn spdy(
    headers: &HeaderMap,
    purpose: Purpose,
) -> Result<(Protocol, Response<String>), Response<String>> {
    let accepted: &[&str] = match purpose {
        Purpose::RemoteCommand => &Version::NAMES,
        Purpose::PortForward => &[PORT_FORWARD],
    };
    let Some(chosen) = first_of(headers, &PROTOCOL, accepted) else {
        let mut refused = refuse(StatusCode::FORBIDDEN, &none_of(accepted));
        for name in accepted {
            refused.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
        }
        return Err(refused);
    };
    let response = switching(SPDY, [(PROTOCOL, HeaderValue::from_static(chosen))]);
    Ok((Protocol::Spdy(Version::of(chosen)), response))
}

fn websocket<B>(
    request: &Request<B>,
    purpose: Purpose,
) -> Result<(Protocol, Response<String>), Response<String>> {
    let headers = request.headers();
    let is_its_version =
        headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == WEBSOCKET_VERSION);
    if !is_its_version {
        let mut refused =
            refuse(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is supported");
        let version = HeaderValue::from_static(WEBSOCKET_VERSION);
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
        return Err(refused);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_LENGTH);
    let (Some(key), true) = (key, request.method() == Method::GET) else {
        let why = "a WebSocket begins with GET and a Sec-WebSocket-Key of 16 bytes in base64";
        return Err(refuse(StatusCode::BAD_REQUEST, why));
    };
    // Base64 is always a valid header value.
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accept = accept.unwrap_or_else(|_| HeaderValue::from_static(""));
    let accepted: Vec<&'static str> = match purpose {
        Purpose::RemoteCommand => Channels::NAMES.map(|(name, _)| name).into(),
        Purpose::PortForward => vec![TUNNEL],
    };
    let Some(chosen) = first_of(headers, &SEC_WEBSOCKET_PROTOCOL, &accepted) else {
        return Err(refuse(StatusCode::FORBIDDEN, &none_of(&accepted)));
    };
    let found = Channels::NAMES.iter().find(|(name, _)| *name == chosen);
    let protocol = match found {
        Some((name, version)) => {
            Protocol::Channels(Channels::of(name), Version::from_number(*version))
        }
        None => Protocol::Tunnel,
    };
    let mut response = switching(WEBSOCKET, [(SEC_WEBSOCKET_ACCEPT, accept)]);
    // A client that offered none must not get one.
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let chosen = HeaderValue::from_static(chosen);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok((protocol, response))
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

/// The first protocol offered by the client that is supported.
fn first_of(
    headers: &HeaderMap,
    header: &HeaderName,
    accepted: &[&'static str],
) -> Option<&'static str> {
    let mut offered = names(headers, header).peekable();
    if offered.peek().is_none() {
        // Old clients send no version.
        return accepted.last().copied();
    }
    offered.find_map(|name| accepted.iter().copied().find(|one| *one == name))
}

fn none_of(accepted: &[&str]) -> String {
    format!("no supported stream protocol offered; supported are {}", accepted.join(", "))
}

/// The names in all headers of this name; one header may have several, separated by commas.
fn names<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// A response that refuses the upgrade.
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
    fn the_first_supported_protocol_of_the_client_is_selected() {
        let (protocol, response) = negotiate(
            &websocket(&["v6.channel.k8s.io, v5.channel.k8s.io", "channel.k8s.io"]),
            Purpose::RemoteCommand,
        )
        .unwrap();
        assert_eq!(
            protocol,
            Protocol::Channels(Channels::of("v5.channel.k8s.io"), Version::from_number(5))
        );
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (protocol, response) = negotiate(&websocket(&[]), Purpose::RemoteCommand).unwrap();
        assert_eq!(
            protocol,
            Protocol::Channels(Channels::of("channel.k8s.io"), Version::from_number(1))
        );
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn unsupported_protocols_are_refused_by_name() {
        let refused =
            negotiate(&websocket(&["v6.channel.k8s.io"]), Purpose::RemoteCommand).unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert!(refused.body().contains("v4.channel.k8s.io"), "{}", refused.body());
        let refused =
            negotiate(&websocket(&["v4.channel.k8s.io"]), Purpose::PortForward).unwrap_err();
        assert!(refused.body().contains(TUNNEL), "{}", refused.body());
        let (protocol, _) = negotiate(&websocket(&[TUNNEL]), Purpose::PortForward).unwrap();
        assert_eq!(protocol, Protocol::Tunnel);
    }

    #[test]
    fn an_invalid_websocket_request_is_refused() {
        let mut old = websocket(&["v5.channel.k8s.io"]);
        old.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        let refused = negotiate(&old, Purpose::RemoteCommand).unwrap_err();
        assert_eq!(refused.status(), StatusCode::UPGRADE_REQUIRED);
        assert_eq!(refused.headers()[SEC_WEBSOCKET_VERSION], "13");
        let mut keyless = websocket(&["v5.channel.k8s.io"]);
        keyless.headers_mut().remove(SEC_WEBSOCKET_KEY);
        assert_eq!(
            negotiate(&keyless, Purpose::RemoteCommand).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
        let mut post = websocket(&["v5.channel.k8s.io"]);
        *post.method_mut() = Method::POST;
        assert_eq!(
            negotiate(&post, Purpose::RemoteCommand).unwrap_err().status(),
            StatusCode::BAD_REQUEST
        );
    }
}
