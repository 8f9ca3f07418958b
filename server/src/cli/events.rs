// SPDX-License-Identifier: Apache-2.0
//! `hull events`: what happens to containers and pods, from the daemon's stream.

use super::args::containers::Events;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Format, Kind, Kinds, ListArgs, OutputArgs, Row};
use super::ps::row;
use super::{output, parse};
use hull_proto::admin;
use hull_proto::admin::events_response::What;
use hull_sys::time::{now_ns, rfc3339};
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

/// Prints events until the daemon ends, until the time of --until, or until there were enough.
pub(crate) async fn events(mut client: Client, args: &Events) -> Result<()> {
    let now = now_ns();
    let time = |text: &Option<String>, flag| {
        text.as_ref().map(|text| parse::time(flag, text, now)).transpose()
    };
    let until_ns = time(&args.until, "--until")?;
    // As docker has it: with an end alone, from the first one that is kept. Nobody asked for those before.
    let since_ns = time(&args.since, "--since")?.or(until_ns.map(|_| 0));
    if let (Some(since), Some(until), Some(value)) = (since_ns, until_ns, &args.until)
        && until < since
    {
        let why = "it is before the time of --since".to_owned();
        return Err(Error::BadFlag { flag: "--until", value: value.clone(), why });
    }
    let request = admin::EventsRequest { since_ns, until_ns };
    let mut stream = client.admin.events(request).await?.into_inner();
    let mut left = args.count.unwrap_or(u64::MAX);
    // An array has no end here, so JSON is a line per event.
    let mut list = one_per_line(&args.list);
    // The last one is there already: they are printed together, so that their columns are as wide as they need.
    let mut past = until_ns.filter(|until| *until <= now).map(|_| Vec::new());
    // Later ones may be wider than the first.
    let mut measured = vec![widest_row()];
    while left > 0
        && let Some(answer) = stream.message().await?
    {
        let event = match answer.what {
            Some(What::Event(event)) => event,
            Some(What::KeptFromNs(from_ns)) => {
                if args.since.is_some() {
                    output::to_stderr(&short_of(from_ns));
                }
                continue;
            }
            None => continue,
        };
        let row = event_row(&event);
        if in_namespace(&event, args.namespace.as_deref()) && format::selects(&EVENTS, &row, &list)?
        {
            left -= 1;
            match &mut past {
                Some(rows) => rows.push(row),
                None => {
                    format::live(&EVENTS, &measured, row.clone(), &list)?;
                    // The headings once; and the columns stay as wide as the widest name so far.
                    list.output.no_headers = true;
                    let width = |row: &Row| row["name"].as_str().map_or(0, str::len);
                    if measured.last().is_none_or(|last| width(last) < width(&row)) {
                        measured.truncate(1);
                        measured.push(row);
                    }
                }
            }
        }
    }
    match past {
        Some(rows) if !rows.is_empty() => format::list(&EVENTS, rows, &list),
        _ => Ok(()),
    }
}

fn in_namespace(event: &admin::NodeEvent, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|name| event.namespace == name)
}

/// The warning that earlier events are missing.
fn short_of(from_ns: i64) -> String {
    format!(
        "warning: events before {} are not kept any more; `hull explain` has what happened to a container or pod\n",
        String::from_utf8_lossy(&rfc3339(from_ns))
    )
}

/// A row whose cells are as wide as any event's, but for the name.
fn widest_row() -> Row {
    row(json!({
        "time": format::time(now_ns()),
        "type": "created",
        "kind": "container",
        "id": "0".repeat(64),
        "name": "",
        "exitCode": 255,
    }))
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

fn event_row(event: &admin::NodeEvent) -> Row {
    let mut name = format!("{}/{}", event.namespace, event.pod);
    if let Some(container) = &event.container {
        name.push('/');
        name.push_str(container);
    }
    row(json!({
        "time": format::time(event.at_ns),
        "type": event.kind,
        "kind": if event.container.is_none() { "pod" } else { "container" },
        "id": event.id,
        "name": name,
        "exitCode": event.exit_code,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_is_wider_than_the_row_that_is_measured() {
        let widest = widest_row();
        for (kind, container) in
            [("created", Some("main")), ("started", None), ("stopped", None), ("deleted", None)]
        {
            let event = admin::NodeEvent {
                at_ns: 1_700_000_000_123_456_789,
                kind: kind.into(),
                id: "f".repeat(64),
                container: container.map(str::to_owned),
                exit_code: Some(137),
                ..admin::NodeEvent::default()
            };
            let row = event_row(&event);
            for key in ["time", "type", "kind", "id", "exitCode"] {
                let length = |row: &Row| row[key].to_string().len();
                assert!(length(&row) <= length(&widest), "{key}: {row:?}");
            }
        }
    }
}
