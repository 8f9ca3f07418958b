// SPDX-License-Identifier: Apache-2.0
//! The head of a request, through the HTTP server that serves it, and what is chosen of its offers.

use crate::client::block_on;
use crate::input::Input;
use hull_streaming::upgrade::{Protocol, Purpose, negotiate};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Runs one case: the first byte says what the session is for, the rest is the request.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let purpose = if input.byte() % 2 == 0 { Purpose::RemoteCommand } else { Purpose::PortForward };
    block_on(async {
        let (ours, client) = tokio::io::duplex(64 << 10);
        let answer =
            service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, purpose)) });
        let served = http1::Builder::new().serve_connection(TokioIo::new(ours), answer);
        let (mut from, mut to) = tokio::io::split(client);
        let talk = async {
            let _closed = to.write_all(input.0).await;
            let _closed = to.shutdown().await;
            let mut said = Vec::new();
            let _closed = from.read_to_end(&mut said).await;
            assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "{said:?}");
        };
        let (_broken, ()) = tokio::join!(served.with_upgrades(), talk);
    });
}

fn answer(request: &Request<Incoming>, purpose: Purpose) -> hyper::Response<String> {
    match negotiate(request, purpose) {
        Ok((protocol, response)) => {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert!(response.headers().contains_key(header::UPGRADE));
            let forwards = purpose == Purpose::PortForward;
            match protocol {
                Protocol::Spdy(_) => {}
                Protocol::Channels(..) => assert!(!forwards, "channels forward no ports"),
                Protocol::Tunnel => assert!(forwards, "only ports are forwarded in a tunnel"),
            }
            response
        }
        Err(refused) => {
            assert!(refused.status().is_client_error(), "{}", refused.status());
            assert!(!refused.body().is_empty(), "refused without a word");
            refused
        }
    }
}
