// SPDX-License-Identifier: Apache-2.0
//! `hull stats`: one table of pods and their containers. CPU use is measured here, between two readings, so
//! that other clients of the daemon do not influence it.

use super::args::Stats;
use super::client::Client;
use super::error::Result;
use super::output::{self, Table};
use hull_proto::cri as api;
use std::collections::HashMap;
use std::time::Duration;

/// Prints the usage of all running pods and containers.
pub(crate) async fn stats(mut client: Client, args: &Stats) -> Result<()> {
    let before = read(&mut client).await?;
    tokio::time::sleep(Duration::from_millis(args.over_ms)).await;
    let after = read(&mut client).await?;
    output::print(&table(&before, &after).shown())
}

async fn read(client: &mut Client) -> Result<Vec<api::PodSandboxStats>> {
    let request = api::ListPodSandboxStatsRequest::default();
    Ok(client.runtime.list_pod_sandbox_stats(request).await?.into_inner().stats)
}

fn table(before: &[api::PodSandboxStats], after: &[api::PodSandboxStats]) -> Table {
    let earlier = usages(before);
    let mut table = Table::new(&[
        "POD",
        "CONTAINER",
        "CPU %",
        "MEMORY",
        "LEFT",
        "PROCESSES",
        "NET IN",
        "NET OUT",
    ]);
    for pod in after {
        let Some(linux) = &pod.linux else { continue };
        let attributes = pod.attributes.clone().unwrap_or_default();
        let name = attributes.metadata.unwrap_or_default().name;
        let interface =
            linux.network.as_ref().and_then(|network| network.default_interface.as_ref());
        table.row([
            name.clone(),
            String::new(),
            percent(earlier.get(attributes.id.as_str()).copied(), linux.cpu.as_ref()),
            memory(linux.memory.as_ref()),
            left(linux.memory.as_ref()),
            linux
                .process
                .as_ref()
                .map_or_else(dash, |process| number(process.process_count, |n| n.to_string())),
            interface.map_or_else(dash, |of| number(of.rx_bytes, output::bytes)),
            interface.map_or_else(dash, |of| number(of.tx_bytes, output::bytes)),
        ]);
        for container in &linux.containers {
            let attributes = container.attributes.clone().unwrap_or_default();
            table.row([
                name.clone(),
                attributes.metadata.unwrap_or_default().name,
                percent(earlier.get(attributes.id.as_str()).copied(), container.cpu.as_ref()),
                memory(container.memory.as_ref()),
                left(container.memory.as_ref()),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
    }
    table
}

fn dash() -> String {
    "-".into()
}

fn number(value: Option<api::UInt64Value>, shown: impl Fn(u64) -> String) -> String {
    value.map_or_else(dash, |value| shown(value.value))
}

/// The working set in bytes, by which the kubelet evicts: memory that cannot be reclaimed.
fn memory(of: Option<&api::MemoryUsage>) -> String {
    of.map_or_else(dash, |memory| number(memory.working_set_bytes, output::bytes))
}

/// The memory left until the limit, in bytes; `-` without a limit.
fn left(of: Option<&api::MemoryUsage>) -> String {
    of.map_or_else(dash, |memory| number(memory.available_bytes, output::bytes))
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

/// Percent of one CPU, with one decimal.
fn percent(before: Option<(i64, u64)>, now: Option<&api::CpuUsage>) -> String {
    let (Some((then, was)), Some((at, is))) = (before, usage(now)) else { return dash() };
    let elapsed = u128::try_from(at - then).unwrap_or(0);
    if elapsed == 0 {
        return dash();
    }
    let tenths = u128::from(is.saturating_sub(was)) * 1000 / elapsed;
    format!("{}.{}", tenths / 10, tenths % 10)
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
        let shown = table(&[pod(0, 0)], &[pod(1_000_000_000, 250_000_000)]).shown();
        let rows: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["web", "25.0", "-", "-", "-", "-", "-"]);
        assert_eq!(rows[2], ["web", "app", "25.0", "1.00", "MiB", "-"]);
    }

    #[test]
    fn what_was_not_there_before_has_no_processor_use() {
        let shown = table(&[], &[pod(1, 1)]).shown();
        assert!(shown.lines().nth(1).unwrap().contains("web"), "{shown}");
        assert!(!shown.contains("0.0"), "{shown}");
    }
}
