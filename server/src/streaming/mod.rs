// SPDX-License-Identifier: Apache-2.0
//! The streaming server, which serves the URLs that Exec, Attach and PortForward return.
//!
//! ```text
//! verb ─ StreamRequest ─▶ tokens ─ URL ─▶ kubelet, crictl
//!                                           │ HTTP/1.1, upgraded to
//!   http ◀── spdy or websocket ◀────────────┘   (hull-streaming)
//!     └─▶ remote (a new process)  attach (a running container)  forward (into a pod)
//! ```
//!
//! Any process on the node can connect. Without a token it gets nothing, and cannot keep others from being served:
//! see [`admission`] and [`http`].
//!
//! The server listens on loopback only, and a URL is valid for one session within a minute. A session is one task;
//! its pipes, sockets and process end with the task.
//!
//! Not here: TLS and authentication. The kubelet is the only expected client, and proxies for users that it has
//! authorized.

mod admission;
mod attach;
mod forward;
mod http;
mod remote;
mod server;
mod state;
mod terminal;
mod tokens;

pub(crate) use server::Streaming;
pub(crate) use tokens::StreamRequest;
