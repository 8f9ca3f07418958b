// SPDX-License-Identifier: Apache-2.0
//! GetContainerEvents: events as CRI messages, each with the pod's and its containers' statuses as
//! they were when it happened.

use super::{convert, status, termination};
use crate::node::Node;
use crate::observe::events::{Event, Reading};
use futures_util::stream;
use hull_proto::cri as api;
use std::sync::Arc;
use tonic::Code;
use tonic::codegen::BoxStream;

/// Sends what `reading` brings until the caller hangs up, falls behind, or the daemon ends.
pub(super) fn stream(node: Arc<Node>, reading: Reading) -> BoxStream<api::ContainerEventResponse> {
    Box::pin(stream::unfold((node, reading), |(node, mut reading)| async move {
        let next = reading.next().await?;
        let message = match next {
            Ok(event) => Ok(message(&node, &event).await),
            Err(_missed) => Err(status::plain(
                Code::DataLoss,
                "cannot send every event: more happened than are kept for a reader (hint: list pods and \
                 containers again, then request events again)",
            )),
        };
        Some((message, (node, reading)))
    }))
}

async fn message(node: &Arc<Node>, event: &Event) -> api::ContainerEventResponse {
    api::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: event.kind as i32,
        created_at: event.at_ns,
        pod_sandbox_status: Some(convert::pod_status(&event.view)),
        containers_statuses: termination::container_statuses(node, &event.view).await,
    }
}
