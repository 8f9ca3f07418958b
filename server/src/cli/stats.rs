// SPDX-License-Identifier: Apache-2.0
//! `hull stats` and `statsp`: pods and their containers. CPU use is measured here, between two readings, so
//! that other clients of the daemon do not influence it.

use super::args::Stats;
use super::client::Client;
use super::error::Result;
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::{Object, Objects, Prefer};
use super::output;
use super::ps::row;
use crate::observe::stats::LOG_DROPPED;
use hull_proto::cri as api;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Clears a terminal and moves to its top left corner, `console_codes(4)`.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The fields of usage.
pub(crate) const STATS: Kinds = Kinds {
    verb: "stats",
    fields: &[
        Field::always("pod", "POD", Kind::Text, "Name of the pod."),
        Field::always(
            "container",
            "CONTAINER",
            Kind::Text,
            "Name of the container; empty for the pod as a whole.",
        ),
        Field::always("cpuPercent", "CPU %", Kind::Decimal, "Percent of one CPU."),
        Field::always(
            "memory",
            "MEMORY",
            Kind::Bytes,
            "Working set in bytes, by which the kubelet evicts: memory that cannot be reclaimed.",
        ),
        Field::always(
            "limit",
            "LIMIT",
            Kind::Bytes,
            "Memory limit in bytes; null if there is none.",
        ),
        Field::always(
            "left",
            "LEFT",
            Kind::Bytes,
            "Memory in bytes until the limit; null if there is none.",
        ),
        Field::always(
            "processes",
            "PROCESSES",
            Kind::Number,
            "Number of processes; null for a container.",
        ),
        Field::always("disk", "DISK", Kind::Bytes, "Writable layer in bytes; null for a pod."),
        Field::always(
            "netIn",
            "NET IN",
            Kind::Bytes,
            "Bytes received by the pod; null for a container.",
        ),
        Field::always(
            "netOut",
            "NET OUT",
            Kind::Bytes,
            "Bytes sent by the pod; null for a container.",
        ),
        Field::wide("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::wide("swap", "SWAP", Kind::Bytes, "Swap in bytes; null for a pod."),
        Field::wide(
            "logDropped",
            "LOG DROPPED",
            Kind::Bytes,
            "Bytes of output that are missing in the log, by its limits or a full disk; null for a pod.",
        ),
        Field::wide("id", "ID", Kind::Id, "Id of the container or pod."),
        Field::never(
            "names",
            Kind::Text,
            "NAMESPACE/POD or NAMESPACE/POD/CONTAINER, which every command accepts.",
        ),
    ],
    id: "id",
    name: "names",
};

/// Prints the usage of running pods and containers, once or again and again.
pub(crate) async fn stats(mut client: Client, args: &Stats, pods_only: bool) -> Result<()> {
    let ids = selected(&mut client, args).await?;
    loop {
        let before = read(&mut client).await?;
        tokio::time::sleep(Duration::from_millis(args.over_ms)).await;
        let after = read(&mut client).await?;
        let mut rows = rows(&before, &after);
        rows.retain(|row| {
            let is = |key: &str, text: &str| row.get(key).is_some_and(|value| value == text);
            let in_namespace = args.namespace.as_ref().is_none_or(|name| is("namespace", name));
            let is_named = ids.is_empty() || ids.iter().any(|id| is("id", id));
            in_namespace && is_named && (!pods_only || is("container", ""))
        });
        let Some(seconds) = args.watch else { return format::list(&STATS, rows, &args.list) };
        if std::io::stdout().is_terminal() {
            output::raw(CLEAR)?;
        }
        format::list(&STATS, rows, &args.list)?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// The ids that the names stand for: a pod and all of its containers, or a container. None for no names.
async fn selected(client: &mut Client, args: &Stats) -> Result<Vec<String>> {
    if args.names.is_empty() {
        return Ok(Vec::new());
    }
    let objects = Objects::fetch(client).await?.only_in(args.namespace.as_deref());
    let mut ids = Vec::new();
    for name in &args.names {
        match objects.find(name, Prefer::Pod)? {
            Object::Container(container) => ids.push(container.id.clone()),
            Object::Pod(pod) => {
                let inside = objects.containers.iter().filter(|of| of.pod_sandbox_id == pod.id);
                ids.extend(inside.map(|of| of.id.clone()).chain([pod.id.clone()]));
            }
        }
    }
    Ok(ids)
}

async fn read(client: &mut Client) -> Result<Vec<api::PodSandboxStats>> {
    let request = api::ListPodSandboxStatsRequest::default();
    Ok(client.runtime.list_pod_sandbox_stats(request).await?.into_inner().stats)
}

fn rows(before: &[api::PodSandboxStats], after: &[api::PodSandboxStats]) -> Vec<Row> {
    let earlier = usages(before);
    let mut rows = Vec::new();
    for pod in after {
        let Some(linux) = &pod.linux else { continue };
        let attributes = pod.attributes.clone().unwrap_or_default();
        let metadata = attributes.metadata.unwrap_or_default();
        let interface =
            linux.network.as_ref().and_then(|network| network.default_interface.as_ref());
        let memory = linux.memory.as_ref();
        rows.push(row(json!({
            "pod": metadata.name,
            "container": "",
            "cpuPercent": percent(earlier.get(attributes.id.as_str()).copied(), linux.cpu.as_ref()),
            "memory": memory.and_then(|of| number(of.working_set_bytes)),
            "limit": limit(memory),
            "left": memory.and_then(|of| number(of.available_bytes)),
            "processes": linux.process.as_ref().and_then(|of| number(of.process_count)),
            "disk": null,
            "netIn": interface.and_then(|of| number(of.rx_bytes)),
            "netOut": interface.and_then(|of| number(of.tx_bytes)),
            "namespace": metadata.namespace,
            "swap": null,
            "logDropped": null,
            "id": attributes.id,
            "names": format!("{}/{}", metadata.namespace, metadata.name),
        })));
        for container in &linux.containers {
            rows.push(container_row(container, &metadata, &earlier));
        }
    }
    rows
}

fn container_row(
    of: &api::ContainerStats,
    pod: &api::PodSandboxMetadata,
    earlier: &HashMap<&str, (i64, u64)>,
) -> Row {
    let attributes = of.attributes.clone().unwrap_or_default();
    let memory = of.memory.as_ref();
    let name = attributes.metadata.unwrap_or_default().name;
    row(json!({
        "pod": pod.name,
        "container": name,
        "cpuPercent": percent(earlier.get(attributes.id.as_str()).copied(), of.cpu.as_ref()),
        "memory": memory.and_then(|of| number(of.working_set_bytes)),
        "limit": limit(memory),
        "left": memory.and_then(|of| number(of.available_bytes)),
        "processes": null,
        "disk": of.writable_layer.as_ref().and_then(|of| number(of.used_bytes)),
        "netIn": null,
        "netOut": null,
        "namespace": pod.namespace,
        "swap": of.swap.as_ref().and_then(|of| number(of.swap_usage_bytes)),
        "logDropped": attributes.annotations.get(LOG_DROPPED).map_or(Some(0), |of| of.parse::<u64>().ok()),
        "id": attributes.id,
        "names": format!("{}/{}/{name}", pod.namespace, pod.name),
    }))
}

fn number(value: Option<api::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// The memory limit in bytes: what is used and what is left.
fn limit(memory: Option<&api::MemoryUsage>) -> Option<u64> {
    let memory = memory?;
    number(memory.working_set_bytes)?.checked_add(number(memory.available_bytes)?)
}

/// Time and CPU time, in nanoseconds, by id of pod or container.
fn usages(pods: &[api::PodSandboxStats]) -> HashMap<&str, (i64, u64)> {
    let mut all = HashMap::new();
    for pod in pods {
        let Some(linux) = &pod.linux else { continue };
        if let (Some(attributes), Some(used)) = (&pod.attributes, usage(linux.cpu.as_ref())) {
            all.insert(attributes.id.as_str(), used);
        }
        for container in &linux.containers {
            if let (Some(attributes), Some(used)) =
                (&container.attributes, usage(container.cpu.as_ref()))
            {
                all.insert(attributes.id.as_str(), used);
            }
        }
    }
    all
}

fn usage(cpu: Option<&api::CpuUsage>) -> Option<(i64, u64)> {
    let cpu = cpu?;
    Some((cpu.timestamp, cpu.usage_core_nano_seconds?.value))
}

/// Percent of one CPU, with one decimal; null if there was no earlier reading.
fn percent(before: Option<(i64, u64)>, now: Option<&api::CpuUsage>) -> Value {
    let (Some((then, was)), Some((at, is))) = (before, usage(now)) else { return Value::Null };
    let elapsed = u128::try_from(at.saturating_sub(then)).unwrap_or(0);
    let tenths = (u128::from(is.saturating_sub(was)) * 1000).checked_div(elapsed);
    let tenths = tenths.and_then(|tenths| u32::try_from(tenths).ok());
    tenths.map_or(Value::Null, |tenths| json!(f64::from(tenths) / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(at: i64, used: u64) -> api::PodSandboxStats {
        let value = |value| Some(api::UInt64Value { value });
        let cpu = Some(api::CpuUsage {
            timestamp: at,
            usage_core_nano_seconds: value(used),
            ..Default::default()
        });
        let memory =
            Some(api::MemoryUsage { working_set_bytes: value(1 << 20), ..Default::default() });
        let container = api::ContainerStats {
            attributes: Some(api::ContainerAttributes {
                id: "c".into(),
                metadata: Some(api::ContainerMetadata { name: "app".into(), attempt: 0 }),
                ..Default::default()
            }),
            cpu,
            memory,
            ..Default::default()
        };
        let linux =
            api::LinuxPodSandboxStats { cpu, containers: vec![container], ..Default::default() };
        let metadata = Some(api::PodSandboxMetadata { name: "web".into(), ..Default::default() });
        let attributes =
            api::PodSandboxAttributes { id: "p".into(), metadata, ..Default::default() };
        api::PodSandboxStats { attributes: Some(attributes), linux: Some(linux), windows: None }
    }

    #[test]
    fn processor_use_is_the_difference_of_two_readings() {
        let rows = rows(&[pod(0, 0)], &[pod(1_000_000_000, 250_000_000)]);
        assert_eq!((&rows[0]["pod"], &rows[0]["cpuPercent"]), (&json!("web"), &json!(25.0)));
        assert_eq!((&rows[1]["container"], &rows[1]["memory"]), (&json!("app"), &json!(1 << 20)));
        assert!(rows[1]["limit"].is_null());
    }

    #[test]
    fn what_was_not_there_before_has_no_processor_use() {
        let rows = rows(&[], &[pod(1, 1)]);
        assert_eq!((&rows[0]["pod"], &rows[0]["cpuPercent"]), (&json!("web"), &Value::Null));
    }
}
