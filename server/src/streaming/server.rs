// SPDX-License-Identifier: Apache-2.0
//! The streaming server: issues URLs, and serves them on loopback.

use super::admission::{PendingConnections, Sessions};
use super::http;
use super::state::State;
use super::tokens::{StreamRequest, Tokens};
use crate::error::Result;
use crate::node::Node;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;

/// A handle on the streaming server.
#[derive(Debug)]
pub(crate) struct Streaming(Arc<State>);

impl Streaming {
    /// Listens on a free port of loopback, and serves it in the background.
    pub(crate) async fn start(node: Arc<Node>) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            node,
            address,
            tokens: Tokens::default(),
            pending: PendingConnections::default(),
            sessions: Sessions::default(),
        });
        tokio::spawn(http::serve(Arc::clone(&state), listener));
        Ok(Arc::new(Self(state)))
    }

    /// A URL for the requested session. It works once, for a minute.
    pub(crate) fn url(&self, request: StreamRequest) -> Result<String> {
        let path = request.path();
        let token = self.0.tokens.issue(request, Instant::now())?;
        Ok(format!("http://{}/{path}/{token}", self.0.address))
    }
}
