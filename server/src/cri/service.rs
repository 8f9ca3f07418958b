// SPDX-License-Identifier: Apache-2.0
//! The service that all verbs are methods of, and how it finds their pods and containers.

use super::status;
use crate::error::Error;
use crate::node::Node;
use crate::pod::Pod;
use crate::streaming::Streaming;
use hull_proto::id::ContainerId;
use std::sync::Arc;
use tonic::Status;
use tracing::Span;

/// Serves the two CRI services and our own.
#[derive(Debug, Clone)]
pub(crate) struct Cri {
    pub(super) node: Arc<Node>,
    pub(super) streaming: Arc<Streaming>,
}

impl Cri {
    /// The service of `node`; `streaming` gives the URLs of its sessions.
    pub(crate) fn new(node: Arc<Node>, streaming: Arc<Streaming>) -> Self {
        Self { node, streaming }
    }

    /// The pod of this id or id prefix. Names it in the call's events.
    pub(super) fn pod(&self, id: &str) -> Result<Pod, Status> {
        let pod = self.node.registry.pod(id).ok_or_else(|| missing("pod", id))?;
        Span::current().record("pod", pod.view().record.full_name());
        Ok(pod)
    }

    /// The container of this id or id prefix, and its pod. Names them in the call's events.
    pub(super) fn container(&self, id: &str) -> Result<(ContainerId, Pod), Status> {
        let found = self.node.registry.container(id).ok_or_else(|| missing("container", id))?;
        let (id, view) = (&found.0, found.1.view());
        let (span, container) = (Span::current(), view.containers.get(id));
        span.record("pod", view.record.full_name());
        span.record("container", container.map_or(id.short(), |of| of.record.metadata().0));
        Ok(found)
    }
}

fn missing(kind: &'static str, id: &str) -> Status {
    if id.is_empty() {
        return status::invalid("id", format!("it is empty, so it names no {kind}"));
    }
    let id = id.chars().take(64).flat_map(char::escape_default).collect();
    status::of(Error::NotFound { kind, id })
}
