// SPDX-License-Identifier: Apache-2.0
//! The streaming server: what Exec, Attach and PortForward promise a URL for.
//!
//! ```text
//! verb ─ Asked ─▶ tokens ─ URL ─▶ kubelet, crictl
//!                                   │ HTTP/1.1, upgraded to
//!   http ◀── spdy or websocket ◀────┘   (hull-streaming)
//!     └─▶ remote (a process of its own)  attach (a running container)  forward (into a pod)
//! ```
//!
//! Anybody on the node can connect, and who has no token gets nothing by it, nor keeps it from others:
//! see [`waiting`] and [`http`].
//!
//! It listens on loopback only, and a URL is good for one session within a minute. A session lives
//! in one task; what it holds (pipes, sockets, the right to live of a process) goes with the task.
//!
//! Not here: TLS and users. The kubelet, which is the only one on the node that should come, proxies
//! for those it has let in.

mod attach;
mod forward;
mod http;
mod remote;
mod tokens;
mod waiting;

pub(crate) use tokens::Asked;

use crate::error::Result;
use crate::node::Node;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokens::Tokens;
use tokio::net::TcpListener;
use waiting::{Sessions, Waiting};

/// Gives out URLs and serves them.
#[derive(Debug)]
pub(crate) struct Streaming {
    node: Arc<Node>,
    address: SocketAddr,
    tokens: Tokens,
    waiting: Waiting,
    sessions: Sessions,
}

impl Streaming {
    /// Listens on a port of loopback that is free, and serves from then on.
    pub(crate) async fn start(node: Arc<Node>) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let streaming = Arc::new(Self {
            node,
            address,
            tokens: Tokens::default(),
            waiting: Waiting::default(),
            sessions: Sessions::default(),
        });
        tokio::spawn(http::serve(Arc::clone(&streaming), listener));
        Ok(streaming)
    }

    /// The URL at which `asked` can be had.
    pub(crate) fn url(&self, asked: Asked) -> Result<String> {
        let path = asked.path();
        let token = self.tokens.give(asked, Instant::now())?;
        Ok(format!("http://{}/{path}/{token}", self.address))
    }
}
