// SPDX-License-Identifier: Apache-2.0
//! The usage of pods and containers, read on request. No loop polls anything: CPU per second comes
//! from the difference to the last request ([`rates`]), and a writable layer is walked no more
//! often than that is worth ([`layers`]).

mod layers;
mod rates;

pub(crate) use layers::Layers;
pub(crate) use rates::Rates;

use crate::container::{ContainerRecord, ContainerSnapshot, State};
use crate::error::Error;
use crate::node::{Node, now_ns};
use crate::pod::PodSnapshot;
use hull_cgroup::{Cgroup, Stats};
use hull_proto::cri;
use std::collections::HashMap;
use std::os::fd::AsFd as _;

/// In the attributes of a container's statistics: bytes that are missing in its log, if there are any.
pub(crate) const LOG_DROPPED: &str = "hull.run/log-dropped-bytes";

/// The usage of a container. One that does not run has its writable layer only.
pub(crate) fn container(
    node: &Node,
    view: &ContainerSnapshot,
) -> Result<cri::ContainerStats, Error> {
    let record = &view.record;
    let mut stats = cri::ContainerStats {
        attributes: Some(cri::ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: annotations(record),
        }),
        writable_layer: writable_layer(node, &record.id),
        ..Default::default()
    };
    if let State::Running { since_ns, .. } = record.state
        && let Some(read) = read(node, &record.cgroup)?
    {
        let at = now_ns();
        stats.cpu = Some(cpu(node, &record.id, since_ns, at, &read));
        stats.memory = Some(memory(at, &read));
        stats.swap = Some(swap(at, &read));
        stats.io = read
            .psi_io
            .as_ref()
            .map(|psi| cri::IoUsage { timestamp: at, psi: Some(pressure(psi)) });
    }
    Ok(stats)
}

/// The annotations of a container, and how much is missing in its log, for which CRI has no field.
fn annotations(record: &ContainerRecord) -> HashMap<String, String> {
    let mut of = record.config.annotations.clone();
    let missing = record.log_loss.in_file();
    if missing > 0 {
        of.insert(LOG_DROPPED.to_owned(), missing.to_string());
    }
    of
}

/// The usage of a pod and of its running containers.
pub(crate) fn pod(node: &Node, view: &PodSnapshot) -> Result<cri::PodSandboxStats, Error> {
    let record = &view.record;
    let mut linux = cri::LinuxPodSandboxStats::default();
    let at = now_ns();
    if record.state.is_ready() {
        if let Some(read) = read(node, &record.cgroup)? {
            linux.cpu = Some(cpu(node, &record.id, record.created_ns, at, &read));
            linux.memory = Some(memory(at, &read));
            linux.io = read
                .psi_io
                .as_ref()
                .map(|psi| cri::IoUsage { timestamp: at, psi: Some(pressure(psi)) });
            linux.process =
                Some(cri::ProcessUsage { timestamp: at, process_count: value(read.pids) });
        }
        if !record.host_network() {
            linux.network = network(at, view);
        }
    }
    for container_view in view.containers.values() {
        if matches!(container_view.record.state, State::Running { .. }) {
            linux.containers.push(container(node, container_view)?);
        }
    }
    Ok(cri::PodSandboxStats {
        attributes: Some(cri::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(linux),
        windows: None,
    })
}

/// The counters of a cgroup; `None` when it has gone meanwhile.
pub(crate) fn read(node: &Node, path: &str) -> Result<Option<Stats>, Error> {
    let failed = |source| Error::Stats { source };
    let cgroup = Cgroup::at(&node.cgroups, path).map_err(failed)?;
    match cgroup.stats() {
        Ok(stats) => Ok(Some(stats)),
        Err(source) => match cgroup.exists() {
            Ok(false) => Ok(None),
            Ok(true) | Err(_) => Err(failed(source)),
        },
    }
}

#[allow(clippy::unnecessary_wraps, reason = "CRI's fields are optional messages")]
fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

fn cpu(node: &Node, id: &str, began: i64, at: i64, read: &Stats) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(read.cpu_usage_ns),
        usage_nano_cores: value(node.rates.rate(id, began, at, read.cpu_usage_ns)),
        psi: read.psi_cpu.as_ref().map(pressure),
    }
}

fn memory(at: i64, read: &Stats) -> cri::MemoryUsage {
    let available =
        read.memory_limit_bytes.map(|limit| limit.saturating_sub(read.working_set_bytes));
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(read.working_set_bytes),
        available_bytes: available.and_then(value),
        usage_bytes: value(read.memory_usage_bytes),
        rss_bytes: value(read.rss_bytes),
        page_faults: value(read.page_faults),
        major_page_faults: value(read.major_page_faults),
        psi: read.psi_memory.as_ref().map(pressure),
    }
}

fn swap(at: i64, read: &Stats) -> cri::SwapUsage {
    let used = read.swap_usage_bytes.unwrap_or(0);
    cri::SwapUsage {
        timestamp: at,
        swap_available_bytes: read
            .swap_limit_bytes
            .and_then(|limit| value(limit.saturating_sub(used))),
        swap_usage_bytes: value(used),
    }
}

fn pressure(psi: &hull_cgroup::Psi) -> cri::PsiStats {
    let line = |line: &hull_cgroup::PsiLine| cri::PsiData {
        total: line.total_us,
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    cri::PsiStats { full: Some(line(&psi.full)), some: Some(line(&psi.some)) }
}

pub(crate) fn writable_layer(node: &Node, container: &str) -> Option<cri::FilesystemUsage> {
    // A container that is being removed has none any more: not an error of the whole answer.
    let (usage, at) = node.layers.usage(&node.images, container)?;
    Some(filesystem(&usage, at))
}

/// As CRI wants it.
pub(crate) fn filesystem(usage: &hull_image::FsUsage, at: i64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: at,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: usage.mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: value(usage.bytes),
        inodes_used: value(usage.inodes),
    }
}

/// The counters of a pod's links, without loopback.
pub(crate) fn interfaces(view: &PodSnapshot) -> Option<Vec<hull_network::InterfaceStats>> {
    // The pause process may end at any time; then there is no network to show.
    let netns = view.netns()?;
    let mut links = hull_network::interface_stats(netns.as_fd()).ok()?;
    links.retain(|link| link.name != "lo");
    Some(links)
}

fn network(at: i64, view: &PodSnapshot) -> Option<cri::NetworkUsage> {
    let interfaces: Vec<_> = interfaces(view)?
        .into_iter()
        .map(|of| cri::NetworkInterfaceUsage {
            name: of.name,
            rx_bytes: value(of.rx_bytes),
            rx_errors: value(of.rx_errors),
            tx_bytes: value(of.tx_bytes),
            tx_errors: value(of.tx_errors),
        })
        .collect();
    // It stays in the list, as with containerd, although CRI excludes it there: programs that read all interfaces from
    // the kubelet's summary read the list alone, and find this one there when the figures are cAdvisor's.
    let default_interface = interfaces.iter().find(|of| of.name == "eth0").cloned();
    Some(cri::NetworkUsage { timestamp: at, default_interface, interfaces })
}
