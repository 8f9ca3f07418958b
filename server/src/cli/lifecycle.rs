// SPDX-License-Identifier: Apache-2.0
//! `hull start`, `restart`, `kill`, `pause`, `unpause`, `wait`, `update` and `checkpoint`.
//!
//! CRI runs a container once. A start of an exited one is Hull's own call: it keeps its id, its writable layer and its
//! log, and the number of its attempt is one higher.

use super::args::containers::{Checkpoint, CreateContainer, Kill, Names, Restart, Update};
use super::client::Client;
use super::error::{Error, Result};
use super::failures::Failures;
use super::names::{Object, Objects, Prefer, container_name};
use super::{inspect, objects, output, resources, wait};
use crate::pod::{auto_remove, run_pods};
use hull_proto::{admin, cri as api};

/// Starts containers, also exited ones.
pub(crate) async fn start(mut client: Client, args: &Names) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let mut failures = Failures::default();
    for name in &args.names {
        let started = start_one(&mut client, &objects, name).await;
        failures.outcome(name, started.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

async fn start_one(client: &mut Client, objects: &Objects, name: &str) -> Result<()> {
    let container = objects.find_container(name)?;
    match container.state() {
        // As docker has it: it is what was requested, unless it is being stopped.
        api::ContainerState::ContainerRunning if refuse_kubelets(container).is_err() => Ok(()),
        api::ContainerState::ContainerRunning => begin(client, &container.id).await,
        api::ContainerState::ContainerCreated => begin(client, &container.id).await,
        api::ContainerState::ContainerExited | api::ContainerState::ContainerUnknown => {
            refuse_kubelets(container)?;
            begin(client, &container.id).await
        }
    }
}

/// Stops containers, and starts them again.
pub(crate) async fn restart(mut client: Client, args: &Restart) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.of.place).await?;
    let mut failures = Failures::default();
    for name in &args.of.names {
        let restarted = restart_one(&mut client, &objects, name, args.time).await;
        failures.outcome(name, restarted.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

async fn restart_one(
    client: &mut Client,
    objects: &Objects,
    name: &str,
    time: Option<u32>,
) -> Result<()> {
    let container = objects.find_container(name)?;
    refuse_kubelets(container)?;
    if container.state() != api::ContainerState::ContainerCreated {
        refuse_removed(client, container, name).await?;
        let grace_s = objects::grace_s(container, time);
        objects::stop_container(client, &container.id, grace_s).await?;
    }
    begin(client, &container.id).await
}

/// Starts a container, which keeps its id, its files and its log if it has exited. Not by CRI's StartContainer, whose
/// result would depend on whether the daemon has just restarted it.
async fn begin(client: &mut Client, id: &str) -> Result<()> {
    let request = admin::StartAgainRequest { container_id: id.to_owned() };
    client.admin.start_again(request).await?;
    Ok(())
}

/// The daemon removes a pod of `hull run --rm -d` as soon as its container has exited.
async fn refuse_removed(client: &mut Client, container: &api::Container, name: &str) -> Result<()> {
    let filter =
        api::PodSandboxFilter { id: container.pod_sandbox_id.clone(), ..Default::default() };
    let request = api::ListPodSandboxRequest { filter: Some(filter) };
    let pods = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
    if pods.iter().any(|pod| pod.annotations.contains_key(auto_remove::REMOVE)) {
        let text = format!(
            "{name} was run with --rm, so it is removed when it stops: run it again with `hull run`"
        );
        return Err(Error::Usage { text });
    }
    Ok(())
}

fn refuse_kubelets(container: &api::Container) -> Result<()> {
    if container.labels.contains_key(run_pods::KUBELET_LABEL) {
        return Err(Error::OfKubelet { name: container_name(container).to_owned() });
    }
    Ok(())
}

/// Sends a signal to containers.
pub(crate) async fn kill(mut client: Client, args: &Kill) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.of.place).await?;
    let mut failures = Failures::default();
    for name in &args.of.names {
        let killed = match objects.find_container(name) {
            Err(err) => Err(err),
            Ok(of) => {
                let request =
                    admin::KillRequest { container_id: of.id.clone(), signal: args.signal };
                client.admin.kill(request).await.map(drop).map_err(Error::from)
            }
        };
        failures.outcome(name, killed.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

/// Freezes or thaws containers; of a pod, all that run.
pub(crate) async fn pause(mut client: Client, args: &Names, paused: bool) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let mut failures = Failures::default();
    for name in &args.names {
        let done = pause_one(&mut client, &objects, name, paused).await;
        failures.outcome(name, done.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

async fn pause_one(client: &mut Client, objects: &Objects, name: &str, paused: bool) -> Result<()> {
    for container in to_pause(objects, name, paused)? {
        let request = admin::PauseRequest { container_id: container.id.clone(), paused };
        client.admin.pause(request).await?;
    }
    Ok(())
}

/// The container with this name, or the running containers of the pod with this name.
fn to_pause<'o>(objects: &'o Objects, name: &str, paused: bool) -> Result<Vec<&'o api::Container>> {
    match objects.find(name, Prefer::Container)? {
        Object::Container(container) => Ok(vec![container]),
        Object::Pod(pod) => {
            let mut inside = objects.newest_of(&pod.id);
            inside.retain(|of| of.state() == api::ContainerState::ContainerRunning);
            if inside.is_empty() {
                let operation = if paused { "pause" } else { "unpause" };
                let what = format!("pod {name}: none of its containers runs");
                return Err(Error::NotRunning { operation, what });
            }
            Ok(inside)
        }
    }
}

/// Waits for containers one after the other, and prints their exit codes in this order.
pub(crate) async fn wait(mut client: Client, args: &Names) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let mut failures = Failures::default();
    for name in &args.names {
        let ended = match objects.find_container(name) {
            Err(err) => Err(err),
            Ok(of) => wait::until_exited(client.clone(), of.id.clone()).await,
        };
        match ended {
            Ok(status) => output::line(&status.exit_code.to_string())?,
            Err(err) => failures.keep(objects.named(err)),
        }
    }
    failures.result()
}

/// Changes the limits of running containers.
pub(crate) async fn update(mut client: Client, args: &Update) -> Result<()> {
    let resources = resources::resources(&args.limits)?;
    if resources == api::LinuxContainerResources::default() {
        return Err(Error::Usage {
            text: "no limit was given, so there is nothing to change".into(),
        });
    }
    let objects = Objects::fetch_in(&mut client, &args.of.place).await?;
    let mut failures = Failures::default();
    for name in &args.of.names {
        let updated = match objects.find_container(name) {
            Err(err) => Err(err),
            Ok(of) => {
                let request = api::UpdateContainerResourcesRequest {
                    container_id: of.id.clone(),
                    linux: Some(resources.clone()),
                    ..Default::default()
                };
                let updated = client.runtime.update_container_resources(request).await;
                updated.map(drop).map_err(Error::from)
            }
        };
        failures.outcome(name, updated.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

/// Creates a container from files, and prints its id.
pub(crate) async fn create(mut client: Client, args: &CreateContainer) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let request = api::CreateContainerRequest {
        pod_sandbox_id: objects.find_pod(&args.pod)?.id.clone(),
        config: Some(inspect::message(&args.container_config)?),
        sandbox_config: Some(inspect::message(&args.pod_config)?),
    };
    let id = client.runtime.create_container(request).await?.into_inner().container_id;
    output::line(&id)
}

/// Writes a checkpoint.
pub(crate) async fn checkpoint(mut client: Client, args: &Checkpoint) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let location = std::path::absolute(&args.export)
        .map_err(Error::io(format!("find {}", args.export.display())))?;
    let request = api::CheckpointContainerRequest {
        container_id: objects.find_container(&args.name)?.id.clone(),
        location: location.to_string_lossy().into_owned(),
        timeout: 0,
    };
    client.runtime.checkpoint_container(request).await?;
    output::line(&args.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_paused_with_all_of_its_running_containers() {
        let metadata =
            |name: &str| api::PodSandboxMetadata { name: name.into(), ..Default::default() };
        let pod = api::PodSandbox {
            id: "p".into(),
            metadata: Some(metadata("two")),
            ..Default::default()
        };
        let container = |id: &str, state: api::ContainerState| api::Container {
            id: id.into(),
            pod_sandbox_id: "p".into(),
            metadata: Some(api::ContainerMetadata { name: id.into(), attempt: 0 }),
            state: state as i32,
            ..Default::default()
        };
        let running = api::ContainerState::ContainerRunning;
        let ended = container("c", api::ContainerState::ContainerExited);
        let containers = vec![container("a", running), container("b", running), ended];
        let mut objects = Objects { pods: vec![pod], containers };
        let ids = |found: Vec<&api::Container>| -> Vec<String> {
            found.iter().map(|of| of.id.clone()).collect()
        };
        assert_eq!(ids(to_pause(&objects, "two", true).unwrap()), ["a", "b"]);
        assert_eq!(ids(to_pause(&objects, "two/b", true).unwrap()), ["b"]);
        objects.containers.drain(..2);
        assert!(matches!(to_pause(&objects, "two", true), Err(Error::NotRunning { .. })));
    }
}
