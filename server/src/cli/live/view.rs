// SPDX-License-Identifier: Apache-2.0
//! The fields of the live view, its readings, and its table.

use super::super::client::Client;
use super::super::error::{Error, Result};
use super::super::format::{self, Field, Kind, Kinds};
use crate::observe::load::Load;
use hull_proto::admin;

/// The fields of the view.
pub(crate) const LOAD: Kinds = Kinds {
    verb: "top --once",
    fields: &[
        Field::never("kind", Kind::Text, "container, or pull for a pull under way."),
        Field::always("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::always(
            "pod",
            "POD",
            Kind::Text,
            "Name of the pod; of a pull, if its caller named it.",
        ),
        Field::always(
            "container",
            "CONTAINER",
            Kind::Text,
            "Name of the container; of a pull the image.",
        ),
        Field::always("cpuPercent", "CPU %", Kind::Decimal, "Percent of one CPU; null for a pull."),
        Field::always(
            "throttledPercent",
            "THROTTLED %",
            Kind::Decimal,
            "Share of the periods in which the CPU limit was used up; null without a limit.",
        ),
        Field::always("memory", "MEMORY", Kind::Bytes, "Working set in bytes."),
        Field::always(
            "limit",
            "LIMIT",
            Kind::Bytes,
            "Memory limit in bytes; null if there is none.",
        ),
        Field::always(
            "cpuPressure",
            "PSI CPU",
            Kind::Decimal,
            "Share of the last 10 seconds in which a task waited for a CPU, in percent; null if the kernel does not count it.",
        ),
        Field::always("memoryPressure", "PSI MEM", Kind::Decimal, "The same for memory."),
        Field::always("ioPressure", "PSI IO", Kind::Decimal, "The same for I/O."),
        Field::always(
            "oomKills",
            "OOM",
            Kind::Number,
            "Processes that the kernel killed for want of memory.",
        ),
        Field::always("restarts", "RESTARTS", Kind::Number, "Attempts before this one."),
        Field::always(
            "execsPerSecond",
            "EXECS/S",
            Kind::Decimal,
            "Commands run in it per second, as by probes.",
        ),
        Field::wide(
            "seconds",
            "SECONDS",
            Kind::Number,
            "How long a pull has taken so far; null for a container.",
        ),
        Field::wide("id", "ID", Kind::Id, "Id of the container; empty for a pull."),
        Field::never("names", Kind::Text, "NAMESPACE/POD/CONTAINER; of a pull the image."),
    ],
    id: "id",
    name: "names",
};

/// Reads the counters of the daemon.
pub(super) async fn read(client: &mut Client) -> Result<Load> {
    let answer = client.admin.load(admin::LoadRequest {}).await?.into_inner();
    serde_json::from_str(&answer.load).map_err(|source| Error::Json { source })
}

/// The columns that fit a screen.
pub(super) fn table(rows: &[format::Row], width: u16) -> String {
    let columns: Vec<&Field> = LOAD.fields.iter().filter(|of| !of.heading.is_empty()).collect();
    let shown: Vec<&Field> =
        columns.into_iter().filter(|of| !["id", "seconds"].contains(&of.key)).collect();
    let mut table = format::empty_table(&shown);
    table.fit(width);
    for row in rows {
        table.cells(shown.iter().map(|field| format::cell(field, row)).collect());
    }
    table.shown()
}
