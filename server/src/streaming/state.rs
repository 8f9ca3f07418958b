// SPDX-License-Identifier: Apache-2.0
//! The state that all connections of the streaming server share.

use super::admission::{PendingConnections, Sessions};
use super::tokens::Tokens;
use crate::node::Node;
use std::net::SocketAddr;
use std::sync::Arc;

/// The state of the streaming server.
#[derive(Debug)]
pub(super) struct State {
    pub(super) node: Arc<Node>,
    /// The address that the server listens on.
    pub(super) address: SocketAddr,
    pub(super) tokens: Tokens,
    pub(super) pending: PendingConnections,
    pub(super) sessions: Sessions,
}
