// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: asks the daemon which processes a pod's containers are, and the kernel about them.

use super::client::Client;
use super::error::{Error, Result};
use super::names::{Known, Object, Prefer, container_name, pod_name};
use super::out::{self, short};
use crate::audit::{self, Audited, Given, Report};
use clap::{Args, ValueEnum};
use hull_proto::cri as api;
use serde_json::Value;
use std::path::Path;

/// Examples, and how to read it.
pub(crate) const HELP: &str = "\
Examples:
  hull audit web                                 a container, or every running one of a pod
  hull audit -o json web | jq '.containers[] | {name, level, reach}'

REACH is how far somebody who has broken into the container gets by that finding alone: HOST (root on
the node), node (other pods of it), pod (other containers of its pod), or - (not out of the container).
It reads /proc, so run it as root on the node itself. docs/security.md has every finding and field.";

/// `hull audit`
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// A table for people, or JSON for programs
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Container or pod by id, start of the id, name, or POD/NAME
    pub(crate) name: String,
}

/// In which form something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Audits a container, or every running container of a pod, and prints what was found.
pub(crate) async fn audit(mut client: Client, socket: &Path, args: &Audit) -> Result<()> {
    let known = Known::fetch(&mut client).await?;
    let (pod, containers) = meant(&known, &args.name)?;
    let mut of_pod =
        Given { socket: socket.display().to_string(), ..pod_given(&mut client, pod).await? };
    let siblings =
        known.containers.iter().filter(|of| of.pod_sandbox_id == pod.id && is_running(of));
    let mut processes = Vec::new();
    for sibling in siblings {
        // One that ends meanwhile shares nothing any more.
        if let Ok((pid, cgroup)) = process(&mut client, &sibling.id).await {
            processes.push((sibling.id.as_str(), pid, cgroup));
        }
    }
    let pause = std::mem::take(&mut of_pod.of_pod);
    let mut audited = Vec::new();
    for container in containers {
        let mut given = of_pod.clone();
        let others = processes.iter().filter(|(id, ..)| *id != container.id);
        given.of_pod = pause.iter().copied().chain(others.map(|(_, pid, _)| *pid)).collect();
        match one(&mut client, container, given).await {
            Ok(found) => audited.push(found),
            // Of a pod, what ended meanwhile is passed over as if it had ended before.
            Err(Error::Audit { source: audit::Error::Ended, .. }) if is_pod(&known, &args.name) => {
            }
            Err(other) => return Err(other),
        }
    }
    if audited.is_empty() {
        return Err(none_runs(pod));
    }
    let namespace = pod.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    let report = Report::new(pod.id.clone(), pod_name(pod), namespace, audited);
    match args.output {
        Output::Table => out::print(&report.text()),
        Output::Json => out::json(&report.json().map_err(|source| Error::Json { source })?),
    }
}

fn is_running(container: &api::Container) -> bool {
    container.state() == api::ContainerState::ContainerRunning
}

fn is_pod(known: &Known, name: &str) -> bool {
    matches!(known.either(name, Prefer::Container), Ok(Object::Pod(_)))
}

fn none_runs(pod: &api::PodSandbox) -> Error {
    let (id, name) = (short(&pod.id), pod_name(pod));
    Error::NotRunning { what: format!("pod {id} ({name}): none of its containers runs") }
}

/// The pod that is meant, and those of its containers to look at.
fn meant<'k>(
    known: &'k Known,
    name: &str,
) -> Result<(&'k api::PodSandbox, Vec<&'k api::Container>)> {
    match known.either(name, Prefer::Container)? {
        Object::Pod(pod) => {
            let of_pod = known.containers.iter().filter(|of| of.pod_sandbox_id == pod.id);
            let running: Vec<_> = of_pod.filter(|of| is_running(of)).collect();
            if running.is_empty() {
                return Err(none_runs(pod));
            }
            Ok((pod, running))
        }
        Object::Container(container) => {
            let not_found =
                || Error::NotFound { kind: "pod", name: container.pod_sandbox_id.clone() };
            let pod = known.pod_of(container).ok_or_else(not_found)?;
            if !is_running(container) {
                let name = container_name(container);
                let what = format!("container {} ({name}): it does not run", short(&container.id));
                return Err(Error::NotRunning { what });
            }
            Ok((pod, vec![container]))
        }
    }
}

async fn one(client: &mut Client, container: &api::Container, mut given: Given) -> Result<Audited> {
    (given.pid, given.cgroup) = process(client, &container.id).await?;
    let name = || container_name(container).to_owned();
    let is_same = async || -> Result<bool, Stopped> {
        let (pid, _) = process(client, &container.id).await.map_err(Stopped::Asking)?;
        Ok(pid == given.pid)
    };
    match audit::gather(&given, is_same).await {
        Ok(facts) => Ok(audit::audited(container.id.clone(), name(), &facts)),
        Err(Stopped::Asking(err)) => Err(err),
        Err(Stopped::Looking(source)) => Err(Error::Audit { name: name(), source }),
    }
}

/// Where an audit stopped.
enum Stopped {
    Asking(Error),
    Looking(audit::Error),
}

impl From<audit::Error> for Stopped {
    fn from(source: audit::Error) -> Self {
        Self::Looking(source)
    }
}

const DOING: &str = "audit it";

fn info(info: &std::collections::HashMap<String, String>) -> Result<Value> {
    let lacks = Error::Answer { doing: DOING, lacks: "verbose info" };
    let text = info.get("info").ok_or(lacks)?;
    serde_json::from_str(text).map_err(|source| Error::Json { source })
}

/// A container's first process, 0 when there is none, and its cgroup.
async fn process(client: &mut Client, id: &str) -> Result<(i32, String)> {
    let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = client.runtime.container_status(request).await?.into_inner();
    let info = info(&answer.info)?;
    let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.ok_or(Error::Answer { doing: DOING, lacks: "pid" })?;
    let cgroup = info["cgroup"].as_str().ok_or(Error::Answer { doing: DOING, lacks: "cgroup" })?;
    Ok((pid, cgroup.to_owned()))
}

/// What the record of a pod says; pause alone in `of_pod`.
async fn pod_given(client: &mut Client, pod: &api::PodSandbox) -> Result<Given> {
    let request = api::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
    let answer = client.runtime.pod_sandbox_status(request).await?.into_inner();
    let info = info(&answer.info)?;
    let config = &info["config"];
    let pause = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let ports = config["port_mappings"].as_array().into_iter().flatten();
    let sysctls = config["linux"]["sysctls"].as_object().into_iter().flatten();
    Ok(Given {
        pod_uid: pod.metadata.as_ref().map_or_else(String::new, |metadata| metadata.uid.clone()),
        pod_dir: info["directory"].as_str().unwrap_or_default().to_owned(),
        of_pod: pause.into_iter().collect(),
        host_ports: ports
            .filter_map(|port| port["host_port"].as_i64())
            .filter(|port| *port > 0)
            .collect(),
        sysctls: sysctls.map(|(name, _)| name.clone()).collect(),
        ..Given::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, state: api::ContainerState) -> api::Container {
        let mut container =
            api::Container { id: id.into(), pod_sandbox_id: "a1".into(), ..Default::default() };
        container.set_state(state);
        container
    }

    #[test]
    fn a_pod_means_its_running_containers_and_what_has_ended_is_told_so() {
        use api::ContainerState::{ContainerExited, ContainerRunning};
        let pod = api::PodSandbox { id: "a1".into(), ..Default::default() };
        let mut known = Known {
            pods: vec![pod],
            containers: vec![container("c1", ContainerRunning), container("c2", ContainerExited)],
        };
        let (_, found) = meant(&known, "a1").unwrap();
        assert_eq!(found.iter().map(|of| of.id.as_str()).collect::<Vec<_>>(), ["c1"]);
        assert!(matches!(meant(&known, "c2"), Err(Error::NotRunning { .. })));
        known.containers[0].set_state(ContainerExited);
        let err = meant(&known, "a1").unwrap_err().to_string();
        assert!(err.contains("none of its containers runs"), "{err}");
    }
}
