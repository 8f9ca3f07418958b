// SPDX-License-Identifier: Apache-2.0
//! The CRI edge: requests in, checked; commands to pods' tasks; views out as CRI messages.
//!
//! Verbs are grouped by what they are about. Nothing here holds state or touches the host; nothing
//! inside knows gRPC.

pub(crate) mod admin;
mod batches;
mod container;
mod convert;
mod events;
mod filter;
mod image;
mod runtime;
mod sandbox;
pub(crate) mod status;
mod stream;

use crate::node::Node;
use crate::pod::Pod;
use crate::streaming::Streaming;
use hull_proto::id::ContainerId;
use std::sync::Arc;
use tonic::Status;

/// Serves the two CRI services and our own.
#[derive(Debug, Clone)]
pub(crate) struct Cri {
    node: Arc<Node>,
    streaming: Arc<Streaming>,
}

impl Cri {
    /// For `node`, whose streams are had from `streaming`.
    pub(crate) fn new(node: Arc<Node>, streaming: Arc<Streaming>) -> Self {
        Self { node, streaming }
    }

    /// The pod of this id or id prefix.
    fn pod(&self, id: &str) -> Result<Pod, Status> {
        self.node.registry.pod(id).ok_or_else(|| missing("pod", id))
    }

    /// The container of this id or id prefix, and its pod.
    fn container(&self, id: &str) -> Result<(ContainerId, Pod), Status> {
        self.node.registry.container(id).ok_or_else(|| missing("container", id))
    }
}

fn missing(kind: &'static str, id: &str) -> Status {
    if id.is_empty() {
        return status::invalid("id", format!("it is empty, so it names no {kind}"));
    }
    let id = id.chars().take(64).flat_map(char::escape_default).collect();
    status::of(crate::error::Error::NotFound { kind, id })
}
