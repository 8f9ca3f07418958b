// SPDX-License-Identifier: Apache-2.0
//! `hull audit`: gets the processes of a pod's containers from the daemon, and the facts about them from the kernel.

use super::args::place::Place;
use super::client::Client;
use super::error::{Error, Result, chain};
use super::format::{self, Format, OutputArgs};
use super::names::{Object, Objects, Prefer, container_name, pod_name};
use super::output::{self, short};
use super::verbose;
use crate::audit::{self, Audited, DaemonFacts, Facts, NotAudited, Report};
use clap::Args;
use hull_proto::cri as api;
use std::path::Path;

/// Examples, and the meaning of the table.
pub(crate) const HELP: &str = "\
Examples:
  hull audit web                                 a container, or all running containers of a pod
  hull audit -o json web | jq '.containers[] | {name, level, reach}'

REACH is how far an attacker who controls the container gets through that finding alone: HOST (root on
the node), node (its other pods), pod (the other containers of the pod), or - (not out of the container).
Run it as root on the node itself: it reads /proc. docs/security.md describes every finding and field.";

/// Options of `hull audit`.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Container or pod, by id, prefix of the id, name, or POD/NAME
    pub(crate) name: String,
}

/// Audits a container, or all running containers of a pod, and prints the report.
pub(crate) async fn audit(mut client: Client, socket: &Path, args: &Audit) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let (pod, selected) = find(&objects, &args.name)?;
    let running: Vec<&api::Container> = objects
        .containers
        .iter()
        .filter(|of| of.pod_sandbox_id == pod.id && is_running(of))
        .collect();
    let (all, failed) = gathered(&mut client, socket, pod, &running).await?;
    let is_selected = |id: &str| selected.iter().any(|of| of.id == id);
    let mut failed = failed.into_iter().filter(|(of, _)| is_selected(&of.id)).collect::<Vec<_>>();
    if !is_pod(&objects, &args.name) && !failed.is_empty() {
        return Err(failed.swap_remove(0).1);
    }
    let (ids, all): (Vec<&str>, Vec<(String, Facts)>) = all.into_iter().unzip();
    let audited: Vec<Audited> = ids
        .iter()
        .zip(&all)
        .filter(|(id, _)| is_selected(id))
        .map(|(id, (name, facts))| audit::audited((*id).to_owned(), name.clone(), facts, &all))
        .collect();
    let not_audited: Vec<NotAudited> = failed
        .iter()
        .map(|(of, err)| NotAudited::new(of.id.clone(), container_name(of), &chain(err)))
        .collect();
    if audited.is_empty() && not_audited.is_empty() {
        return Err(none_runs(pod));
    }
    let count = not_audited.len();
    let namespace = pod.metadata.as_ref().map_or("", |metadata| metadata.namespace.as_str());
    let report = Report::new(pod.id.clone(), pod_name(pod), namespace, audited, not_audited);
    print(&report, &args.output)?;
    if count == 0 { Ok(()) } else { Err(Error::NotAudited { count }) }
}

/// Prints a report: as text for people, or as a document.
fn print(report: &Report, args: &OutputArgs) -> Result<()> {
    if matches!(args.selected(), Format::Table | Format::Wide) {
        return output::print(&report.text());
    }
    let document = report.json().map_err(|source| Error::Json { source })?;
    format::document(&document, &report.names(), args)
}

/// Facts by container id and name, and the containers without facts, each with its error.
type Gathered<'k> = (Vec<(&'k str, (String, Facts))>, Vec<(&'k api::Container, Error)>);

/// Gathers facts about all running containers of a pod: the others show what one of them shares.
async fn gathered<'k>(
    client: &mut Client,
    socket: &Path,
    pod: &api::PodSandbox,
    running: &[&'k api::Container],
) -> Result<Gathered<'k>> {
    let of_pod = pod_facts(client, socket, pod).await?;
    let mut processes = Vec::new();
    for sibling in running {
        // A container that ends meanwhile shares nothing.
        if let Ok(process) = process(client, &sibling.id).await {
            processes.push((sibling.id.as_str(), process.pid));
        }
    }
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for &container in running {
        let mut given = of_pod.clone();
        let others = processes.iter().filter(|(id, _)| *id != container.id);
        given.of_pod.extend(others.map(|(_, pid)| *pid));
        match one(client, container, given).await {
            Ok(facts) => {
                all.push((container.id.as_str(), (container_name(container).to_owned(), facts)));
            }
            Err(err) => failed.push((container, err)),
        }
    }
    Ok((all, failed))
}

fn is_running(container: &api::Container) -> bool {
    container.state() == api::ContainerState::ContainerRunning
}

fn is_pod(objects: &Objects, name: &str) -> bool {
    matches!(objects.find(name, Prefer::Container), Ok(Object::Pod(_)))
}

fn none_runs(pod: &api::PodSandbox) -> Error {
    let (id, name) = (short(&pod.id), pod_name(pod));
    Error::NotRunning {
        operation: "audit",
        what: format!("pod {id} ({name}): none of its containers runs"),
    }
}

/// The pod with this name, or the pod of the container with this name, and the containers to audit.
fn find<'k>(
    objects: &'k Objects,
    name: &str,
) -> Result<(&'k api::PodSandbox, Vec<&'k api::Container>)> {
    match objects.find(name, Prefer::Container)? {
        Object::Pod(pod) => {
            let of_pod = objects.containers.iter().filter(|of| of.pod_sandbox_id == pod.id);
            let running: Vec<_> = of_pod.filter(|of| is_running(of)).collect();
            if running.is_empty() {
                return Err(none_runs(pod));
            }
            Ok((pod, running))
        }
        Object::Container(container) => {
            let not_found =
                || Error::NotFound { kind: "pod", name: container.pod_sandbox_id.clone() };
            let pod = objects.pod_of(container).ok_or_else(not_found)?;
            if !is_running(container) {
                let name = container_name(container);
                let what = format!("container {} ({name}): it does not run", short(&container.id));
                return Err(Error::NotRunning { operation: "audit", what });
            }
            Ok((pod, vec![container]))
        }
    }
}

async fn one(
    client: &mut Client,
    container: &api::Container,
    mut given: DaemonFacts,
) -> Result<Facts> {
    let first = process(client, &container.id).await?;
    (given.pid, given.cgroup, given.devices) = (first.pid, first.cgroup, first.devices);
    let is_same = async || -> Result<bool, Failed> {
        let now = process(client, &container.id).await.map_err(Failed::Daemon)?;
        Ok(now.pid == given.pid)
    };
    audit::gather(&given, is_same).await.map_err(|failed| match failed {
        Failed::Daemon(err) => err,
        Failed::Kernel(source) => {
            Error::Audit { name: container_name(container).to_owned(), source }
        }
    })
}

/// The part of an audit that failed.
enum Failed {
    Daemon(Error),
    Kernel(audit::Error),
}

impl From<audit::Error> for Failed {
    fn from(source: audit::Error) -> Self {
        Self::Kernel(source)
    }
}

const OPERATION: &str = "find the processes to audit";

/// The first process of a container, from the daemon.
struct Process {
    /// 0 if there is none.
    pid: i32,
    cgroup: String,
    /// Devices in its spec, by path in the container.
    devices: Vec<String>,
}

async fn process(client: &mut Client, id: &str) -> Result<Process> {
    let info = verbose::info(&verbose::container(client, id).await?.info, OPERATION)?;
    let (pid, cgroup) = (verbose::pid(&info, OPERATION)?, verbose::cgroup(&info, OPERATION)?);
    let devices = info["runtimeSpec"]["linux"]["devices"].as_array().into_iter().flatten();
    let paths = devices.filter_map(|device| device["path"].as_str().map(str::to_owned));
    Ok(Process { pid, cgroup, devices: paths.collect() })
}

/// The facts from the record of a pod. `of_pod` has only pause.
async fn pod_facts(
    client: &mut Client,
    socket: &Path,
    pod: &api::PodSandbox,
) -> Result<DaemonFacts> {
    let daemon = client.config().await?;
    let plain =
        |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    let answer = verbose::pod(client, &pod.id).await?;
    let info = verbose::info(&answer.info, OPERATION)?;
    // Typed, so that a renamed field is an error instead of a field that is not set.
    let config: api::PodSandboxConfig = verbose::config(&answer.info, OPERATION)?;
    let pause = Some(verbose::pid(&info, OPERATION)?).filter(|pid| *pid > 0);
    Ok(DaemonFacts {
        pod_uid: pod.metadata.as_ref().map_or_else(String::new, |metadata| metadata.uid.clone()),
        pod_dirs: ["files", "directory"]
            .into_iter()
            .filter_map(|name| Some(plain(Path::new(info[name].as_str()?))))
            .collect(),
        of_pod: pause.into_iter().collect(),
        pause: pause.unwrap_or(0),
        sockets: [socket, &daemon.socket, &daemon.nri.socket].map(plain).to_vec(),
        daemon_dirs: [&daemon.state_dir, &daemon.data_dir].map(|dir| plain(dir)).to_vec(),
        host_ports: (config.port_mappings.iter().map(|port| i64::from(port.host_port)))
            .filter(|port| *port > 0)
            .collect(),
        sysctls: config.linux.map(|linux| linux.sysctls.into_keys().collect()).unwrap_or_default(),
        ..DaemonFacts::default()
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
    fn a_pod_stands_for_its_running_containers_and_ended_ones_are_refused() {
        use api::ContainerState::{ContainerExited, ContainerRunning};
        let pod = api::PodSandbox { id: "a1".into(), ..Default::default() };
        let mut objects = Objects {
            pods: vec![pod],
            containers: vec![container("c1", ContainerRunning), container("c2", ContainerExited)],
        };
        let (_, found) = find(&objects, "a1").unwrap();
        assert_eq!(found.iter().map(|of| of.id.as_str()).collect::<Vec<_>>(), ["c1"]);
        assert!(matches!(find(&objects, "c2"), Err(Error::NotRunning { .. })));
        objects.containers[0].set_state(ContainerExited);
        let err = find(&objects, "a1").unwrap_err().to_string();
        assert!(err.contains("none of its containers runs"), "{err}");
    }
}
