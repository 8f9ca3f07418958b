// SPDX-License-Identifier: Apache-2.0
//! `hull info`, `hull version`, and metrics.

use super::client::Client;
use super::error::{Error, Result, chain};
use super::format::{self, OutputArgs};
use super::images;
use super::names::Objects;
use hull_proto::{admin, cri as api};
use serde_json::{Value, json};
use std::io;
use std::path::Path;

/// Prints the state of the node.
pub(crate) async fn info(mut client: Client, args: &OutputArgs) -> Result<()> {
    let request = api::StatusRequest { verbose: true };
    let status = client.runtime.status(request).await?.into_inner();
    let version = client.runtime.version(api::VersionRequest::default()).await?.into_inner();
    let objects = Objects::fetch(&mut client).await?;
    let count = |state: api::ContainerState| {
        objects.containers.iter().filter(|of| of.state() == state).count()
    };
    let images = images::all(&mut client).await?;
    let parsed = |key: &str| -> Value {
        status.info.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let (config, hull) = (parsed("config"), parsed("hull"));
    let driver =
        client.runtime.runtime_config(api::RuntimeConfigRequest {}).await?.into_inner().linux;
    let driver = driver.map_or("", |of| of.cgroup_driver().as_str_name()).to_ascii_lowercase();
    let conditions = status.status.unwrap_or_default().conditions;
    let conditions: serde_json::Map<String, Value> = conditions
        .into_iter()
        .map(|of| {
            let (status, message) = (of.status, of.message);
            (of.r#type, json!({"status": status, "reason": of.reason, "message": message}))
        })
        .collect();
    let system = rustix::system::uname();
    let document = json!({
        "name": version.runtime_name,
        "version": version.runtime_version,
        "kernel": system.release().to_string_lossy(),
        "architecture": system.machine().to_string_lossy(),
        "hostname": system.nodename().to_string_lossy(),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "cgroup": hull["cgroup"],
        "cgroupDriver": driver,
        "conditions": conditions,
        "pods": objects.pods.len(),
        "containers": {
            "total": objects.containers.len(),
            "running": count(api::ContainerState::ContainerRunning),
            "created": count(api::ContainerState::ContainerCreated),
            "exited": count(api::ContainerState::ContainerExited),
        },
        "images": images.len(),
        "features": status.features,
        "handlers": status.runtime_handlers.iter().map(|of| of.name.clone()).collect::<Vec<_>>(),
        "config": config,
    });
    // The object is the node.
    let name = system.nodename().to_string_lossy().into_owned();
    format::document(&document, &[name], args)
}

/// Prints the versions. Without a daemon, its version is null.
pub(crate) async fn version(client: Result<Client>, args: &OutputArgs) -> Result<()> {
    let own = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("HULL_COMMIT"),
        "date": env!("HULL_COMMIT_DATE"),
        "target": env!("HULL_TARGET"),
    });
    let mut text = format!("hull {}\n", env!("CARGO_PKG_VERSION"));
    let mut daemon = Value::Null;
    match client {
        Ok(mut client) => match client.runtime.version(api::VersionRequest::default()).await {
            Ok(of) => {
                let of = of.into_inner();
                let (name, version, cri) =
                    (of.runtime_name, of.runtime_version, of.runtime_api_version);
                text.push_str(&format!("daemon {name} {version} (CRI {cri})\n"));
                daemon = json!({"name": name, "version": version, "cri": cri});
            }
            Err(status) => {
                let why = chain(&Error::from(status));
                text.push_str(&format!("daemon: unknown, because it does not answer: {why}\n"));
            }
        },
        // The version of this binary needs no daemon.
        Err(Error::Connect { socket, source }) => {
            text.push_str(&format!("daemon: {}\n", unreachable(&socket, &source)));
        }
        Err(other) => return Err(other),
    }
    if args.output.is_none() && args.format.is_none() {
        return super::output::print(&text);
    }
    let names = [format!("hull {}", env!("CARGO_PKG_VERSION"))];
    format::document(&json!({"client": own, "daemon": daemon}), &names, args)
}

/// Why there is no version of the daemon at `socket`.
fn unreachable(socket: &Path, source: &io::Error) -> String {
    let socket = socket.display();
    let kind = source.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        return format!("not running at {socket}");
    }
    if kind == io::ErrorKind::PermissionDenied {
        return format!("unknown, because only root may use {socket}");
    }
    format!("unknown, because {socket} cannot be reached: {source}")
}

/// The fields of metrics.
pub(crate) const METRICS: format::Kinds = format::Kinds {
    verb: "metricsp",
    fields: &[
        format::Field::always("pod", "POD", format::Kind::Id, "Id of the pod."),
        format::Field::always(
            "container",
            "CONTAINER",
            format::Kind::Id,
            "Id of the container; empty for metrics of the pod.",
        ),
        format::Field::always("name", "METRIC", format::Kind::Text, "Name of the metric."),
        format::Field::always("value", "VALUE", format::Kind::Number, "Value."),
        format::Field::wide(
            "labels",
            "LABELS",
            format::Kind::List,
            "Values of the labels of the metric.",
        ),
        format::Field::never("time", format::Kind::Time, "Time of the reading."),
    ],
    id: "pod",
    name: "name",
};

/// Prints the metrics of all pods.
pub(crate) async fn metrics(mut client: Client, args: &format::ListArgs) -> Result<()> {
    let request = api::ListPodSandboxMetricsRequest {};
    let answer = client.runtime.list_pod_sandbox_metrics(request).await?.into_inner();
    let mut rows = Vec::new();
    for pod in &answer.pod_metrics {
        let mut add = |container: &str, metrics: &[api::Metric]| {
            rows.extend(metrics.iter().map(|of| metric_row(&pod.pod_sandbox_id, container, of)));
        };
        add("", &pod.metrics);
        for container in &pod.container_metrics {
            add(&container.container_id, &container.metrics);
        }
    }
    format::list(&METRICS, rows, args)
}

/// Prints the daemon's own metrics.
pub(crate) async fn daemon_metrics(mut client: Client) -> Result<()> {
    let answer = client.admin.metrics(admin::MetricsRequest {}).await?.into_inner();
    super::output::print(&answer.text)
}

fn metric_row(pod: &str, container: &str, of: &api::Metric) -> format::Row {
    super::ps::row(json!({
        "pod": pod,
        "container": container,
        "name": of.name,
        "value": of.value.map(|value| value.value),
        "labels": of.label_values,
        "time": format::time(of.timestamp),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_may_not_be_asked_is_not_said_to_be_missing() {
        let text = |kind| unreachable(Path::new("/s"), &io::Error::from(kind));
        assert_eq!(text(io::ErrorKind::NotFound), "not running at /s");
        assert_eq!(text(io::ErrorKind::ConnectionRefused), "not running at /s");
        assert_eq!(text(io::ErrorKind::PermissionDenied), "unknown, because only root may use /s");
    }
}
