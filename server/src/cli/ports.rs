// SPDX-License-Identifier: Apache-2.0
//! `hull port`: the published ports of a pod.

use super::args::containers::Port;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::{Object, Objects, Prefer, pod_name};
use super::ps::row;
use super::verbose;
use hull_proto::cri as api;
use serde_json::{Value, json};

/// The fields of published ports.
pub(crate) const PORTS: Kinds = Kinds {
    verb: "port",
    fields: &[
        Field::always("pod", "POD", Kind::Text, "Name of the pod."),
        Field::always("port", "PORT", Kind::Number, "Port in the pod."),
        Field::always("protocol", "PROTOCOL", Kind::Word, "Protocol: tcp, udp or sctp."),
        Field::always(
            "hostIp",
            "HOST IP",
            Kind::Word,
            "Address of the host; 0.0.0.0 is all of them.",
        ),
        Field::always("hostPort", "HOST PORT", Kind::Number, "Port of the host."),
    ],
    id: "hostPort",
    name: "hostPort",
};

/// Lists the ports, or prints the host ports of one.
pub(crate) async fn port(mut client: Client, args: &Port) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let pod = match objects.find(&args.name, Prefer::Pod)? {
        Object::Pod(pod) => pod,
        Object::Container(container) => objects.pod_of(container).ok_or_else(|| {
            Error::NotFound { kind: "pod", name: container.pod_sandbox_id.clone() }
        })?,
    };
    let rows: Vec<Row> = mappings(&mut client, &pod.id)
        .await?
        .iter()
        .filter(|of| of.host_port > 0)
        .map(|of| port_row(pod_name(pod), of))
        .collect();
    let Some(wanted) = &args.port else { return format::list(&PORTS, rows, &args.list) };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let found: Vec<String> = rows
        .iter()
        .filter(|row| row["port"].as_u64() == number.parse().ok() && row["protocol"] == protocol)
        .map(|row| format!("{}:{}\n", bracketed(&row["hostIp"]), row["hostPort"]))
        .collect();
    if found.is_empty() {
        return Err(Error::NotFound { kind: "published port", name: wanted.clone() });
    }
    super::output::print(&found.concat())
}

/// The port mappings in the configuration of a pod.
pub(crate) async fn mappings(client: &mut Client, pod: &str) -> Result<Vec<api::PortMapping>> {
    let answer = verbose::pod(client, pod).await?;
    let config: api::PodSandboxConfig = verbose::config(&answer.info, "list the ports of the pod")?;
    Ok(config.port_mappings)
}

fn bracketed(ip: &Value) -> String {
    match ip.as_str().unwrap_or_default() {
        v6 if v6.contains(':') => format!("[{v6}]"),
        v4 => v4.to_owned(),
    }
}

fn port_row(pod: &str, of: &api::PortMapping) -> Row {
    let ip = if of.host_ip.is_empty() { "0.0.0.0" } else { &of.host_ip };
    row(json!({
        "pod": pod,
        "port": of.container_port,
        "protocol": of.protocol().as_str_name().to_ascii_lowercase(),
        "hostIp": ip,
        "hostPort": of.host_port,
    }))
}
