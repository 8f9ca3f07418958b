// SPDX-License-Identifier: Apache-2.0
//! GetContainerEvents: events as CRI messages, each with the pod's and its containers' statuses as
//! they were when it happened. And the events of the log, for `hull events`.

use super::{convert, status, termination};
use crate::node::{Node, now_ns};
use crate::observe::event_log::Read;
use crate::observe::events::{Event, Reading};
use futures_util::stream;
use hull_proto::{admin, cri as api};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::BoxStream;

/// Messages from the log that wait for one reader.
const LOG_AHEAD: usize = 16;

/// Sends what `reading` brings until the caller hangs up, falls behind, or the daemon ends.
pub(super) fn stream(node: Arc<Node>, reading: Reading) -> BoxStream<api::ContainerEventResponse> {
    Box::pin(stream::unfold((node, reading), |(node, mut reading)| async move {
        let next = reading.next().await?;
        let message = match next {
            Ok(event) => Ok(message(&node, &event).await),
            Err(_missed) => Err(status::plain(
                Code::DataLoss,
                "cannot send every event: this reader does not keep up (hint: list pods and containers again, then \
                 request events again)",
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

/// Sends the events of the log that the request is for, as they come.
pub(super) fn from_log(
    node: Arc<Node>,
    request: admin::EventsRequest,
) -> BoxStream<admin::EventsResponse> {
    let (out, stream) = mpsc::channel(LOG_AHEAD);
    tokio::spawn(async move {
        let log = &node.events.log;
        let mut reader = log.reader(request.since_ns);
        loop {
            let over = request.until_ns.filter(|until_ns| *until_ns <= now_ns());
            for read in log.read(&mut reader) {
                let Some(message) = logged(read, request.until_ns) else { continue };
                if out.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            if over.is_some() {
                return;
            }
            tokio::select! {
                changed = reader.changed() => if !changed { return },
                () = until(request.until_ns) => {}
                () = out.closed() => return,
            }
        }
    });
    Box::pin(ReceiverStream::new(stream))
}

/// Resolves at a time of day; never without one.
async fn until(at_ns: Option<i64>) {
    let Some(at_ns) = at_ns else { return std::future::pending().await };
    let left = u64::try_from(at_ns.saturating_sub(now_ns())).unwrap_or(0);
    tokio::time::sleep(Duration::from_nanos(left)).await;
}

/// The message of one event; `None` if it is later than the request is for.
fn logged(read: Read, until_ns: Option<i64>) -> Option<admin::EventsResponse> {
    use admin::events_response::What;
    use api::ContainerEventType as Type;
    let what = match read {
        Read::KeptFrom(from_ns) => What::KeptFromNs(from_ns),
        Read::Event(event) if until_ns.is_some_and(|until_ns| event.at_ns > until_ns) => {
            return None;
        }
        Read::Event(event) => What::Event(admin::NodeEvent {
            at_ns: event.at_ns,
            kind: match event.kind {
                Type::ContainerCreatedEvent => "created",
                Type::ContainerStartedEvent => "started",
                Type::ContainerStoppedEvent => "stopped",
                Type::ContainerDeletedEvent => "deleted",
            }
            .into(),
            id: event.id.clone(),
            namespace: event.namespace.clone(),
            pod: event.pod.clone(),
            container: event.container.clone(),
            exit_code: event.exit_code,
        }),
    };
    Some(admin::EventsResponse { what: Some(what) })
}
