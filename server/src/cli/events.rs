// SPDX-License-Identifier: Apache-2.0
//! `hull events`: what happens to containers and pods, from the daemon's stream.

use super::args::containers::Events;
use super::client::Client;
use super::error::Result;
use super::format::{self, Field, Format, Kind, Kinds, ListArgs, OutputArgs, Row};
use super::ps::row;
use hull_proto::cri as api;
use serde_json::json;

/// The fields of events.
pub(crate) const EVENTS: Kinds = Kinds {
    verb: "events",
    fields: &[
        Field::always("time", "TIME", Kind::Word, "Time of the event, RFC 3339 in UTC."),
        Field::always("type", "EVENT", Kind::Word, "Event: created, started, stopped or deleted."),
        Field::always("kind", "KIND", Kind::Word, "Kind of the object: container or pod."),
        Field::always("id", "ID", Kind::Id, "Id of the container or pod."),
        Field::always(
            "name",
            "NAME",
            Kind::Text,
            "NAMESPACE/POD/NAME of the container, or NAMESPACE/NAME of the pod.",
        ),
        Field::wide(
            "exitCode",
            "EXIT",
            Kind::Number,
            "Exit code of a stopped container, else null.",
        ),
    ],
    id: "id",
    name: "name",
};

/// Prints events until the daemon ends, or until there were enough.
pub(crate) async fn events(mut client: Client, args: &Events) -> Result<()> {
    let mut stream =
        client.runtime.get_container_events(api::GetEventsRequest::default()).await?.into_inner();
    let mut left = args.count.unwrap_or(u64::MAX);
    // An array has no end here, so JSON is a line per event.
    let mut list = one_per_line(&args.list);
    while left > 0
        && let Some(event) = stream.message().await?
    {
        let row = event_row(&event);
        if format::selects(&EVENTS, &row, &list)? {
            format::list(&EVENTS, vec![row], &list)?;
            // The headings once.
            list.output.no_headers = true;
            left -= 1;
        }
    }
    Ok(())
}

fn one_per_line(list: &ListArgs) -> ListArgs {
    let output = match list.output.selected() {
        Format::Json => {
            OutputArgs { output: Some(Format::JsonLines), format: None, ..list.output.clone() }
        }
        Format::Table
        | Format::Wide
        | Format::JsonLines
        | Format::Yaml
        | Format::Name
        | Format::Template(_) => list.output.clone(),
    };
    ListArgs { output, ..list.clone() }
}

fn event_row(event: &api::ContainerEventResponse) -> Row {
    use api::ContainerEventType as Type;
    let pod = event.pod_sandbox_status.clone().unwrap_or_default();
    let metadata = pod.metadata.unwrap_or_default();
    let container = event.containers_statuses.iter().find(|of| of.id == event.container_id);
    let is_pod = pod.id == event.container_id;
    let name = match container.and_then(|of| of.metadata.as_ref()) {
        Some(of) => format!("{}/{}/{}", metadata.namespace, metadata.name, of.name),
        None => format!("{}/{}", metadata.namespace, metadata.name),
    };
    let kind = match event.container_event_type() {
        Type::ContainerCreatedEvent => "created",
        Type::ContainerStartedEvent => "started",
        Type::ContainerStoppedEvent => "stopped",
        Type::ContainerDeletedEvent => "deleted",
    };
    let exit = container.filter(|of| of.state() == api::ContainerState::ContainerExited);
    row(json!({
        "time": format::time(event.created_at),
        "type": kind,
        "kind": if is_pod { "pod" } else { "container" },
        "id": event.container_id,
        "name": name,
        "exitCode": exit.map(|of| of.exit_code),
    }))
}
