// SPDX-License-Identifier: Apache-2.0
//! `hull stop` and `rm`, for pods and containers, and their forms for pods alone.

use super::args::pods::{PodNames, RemovePods};
use super::args::{Rm, Stop};
use super::client::Client;
use super::error::{Error, Result};
use super::failures::Failures;
use super::names::{Object, Objects, Prefer, container_name, pod_name};
use super::output::{self, short};
use super::run_config::STOP_TIMEOUT;
use super::run_logs;
use crate::pod::run_pods::{self, UID_LABEL};
use hull_proto::cri as api;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown};
use std::collections::HashMap;

/// Grace period of containers without one of their own, in seconds.
const GRACE_S: i64 = 10;

/// Stops containers or pods.
pub(crate) async fn stop(mut client: Client, args: &Stop) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let mut failures = Failures::default();
    for name in &args.names {
        let stopped = match objects.find(name, Prefer::Container) {
            Ok(Object::Container(container)) => {
                let grace_s = grace_s(container, args.time);
                stop_container(&mut client, &container.id, grace_s).await
            }
            Ok(Object::Pod(pod)) => stop_pod(&mut client, &objects, pod, args.time).await,
            Err(err) => Err(err),
        };
        failures.outcome(name, stopped.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

/// Stops the containers of a pod with a grace period, then the pod.
pub(crate) async fn stop_pod(
    client: &mut Client,
    objects: &Objects,
    pod: &api::PodSandbox,
    time: Option<u32>,
) -> Result<()> {
    let running = api::ContainerState::ContainerRunning;
    for container in &objects.containers {
        if container.pod_sandbox_id == pod.id && container.state() == running {
            stop_container(client, &container.id, grace_s(container, time)).await?;
        }
    }
    let pod_sandbox_id = pod.id.clone();
    client.runtime.stop_pod_sandbox(api::StopPodSandboxRequest { pod_sandbox_id }).await?;
    Ok(())
}

/// The grace period in seconds: the given one, else that of `hull run --stop-timeout`, else ten seconds.
pub(crate) fn grace_s(container: &api::Container, given: Option<u32>) -> i64 {
    let own = || container.annotations.get(STOP_TIMEOUT).and_then(|text| text.parse::<u32>().ok());
    given.or_else(own).map_or(GRACE_S, i64::from)
}

/// Stops the pods with these names, and prints the names.
pub(crate) async fn stop_pods(mut client: Client, args: &PodNames) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let mut failures = Failures::default();
    for name in &args.names {
        let stopped = match objects.find_pod(name) {
            Ok(pod) => stop_pod(&mut client, &objects, pod, None).await,
            Err(err) => Err(err),
        };
        failures.outcome(name, stopped.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

/// Stops one container.
pub(crate) async fn stop_container(client: &mut Client, id: &str, timeout: i64) -> Result<()> {
    let request = api::StopContainerRequest { container_id: id.to_owned(), timeout };
    client.runtime.stop_container(request).await?;
    Ok(())
}

/// Stops and removes a pod, and the log directory of `hull run`.
pub(crate) async fn remove_pod(client: &mut Client, pod: &api::PodSandbox) -> Result<()> {
    let id = || pod.id.clone();
    client.runtime.stop_pod_sandbox(api::StopPodSandboxRequest { pod_sandbox_id: id() }).await?;
    client
        .runtime
        .remove_pod_sandbox(api::RemovePodSandboxRequest { pod_sandbox_id: id() })
        .await?;
    run_logs::remove(client, pod).await
}

/// Removes the pod that `hull run` or `hull play` made with this uid, complete or not, and its directory, which may be
/// there without a pod.
pub(crate) async fn remove_by_uid(client: &mut Client, uid: &str) -> Result<()> {
    let label_selector = HashMap::from([(UID_LABEL.to_owned(), uid.to_owned())]);
    let filter = api::PodSandboxFilter { label_selector, ..Default::default() };
    let request = api::ListPodSandboxRequest { filter: Some(filter) };
    let pods = client.runtime.list_pod_sandbox(request).await?.into_inner().items;
    for pod in &pods {
        remove_pod(client, pod).await.inspect_err(|_| {
            output::to_stderr(&format!(
                "warning: pod {} was not removed; `hull rm -f {}` tries again\n",
                shown(pod_name(pod), MESSAGE_BYTES_MAX),
                short(&pod.id)
            ));
        })?;
    }
    if pods.is_empty() { run_logs::remove_without_pod(client, uid).await } else { Ok(()) }
}

/// Removes containers or pods.
pub(crate) async fn remove(mut client: Client, args: &Rm) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let names: Vec<&str> = if args.all {
        objects.pods.iter().map(|pod| pod.id.as_str()).collect()
    } else {
        args.names.iter().map(String::as_str).collect()
    };
    let found = names.iter().map(|name| (*name, objects.find(name, Prefer::Pod)));
    remove_each(&mut client, &objects, found.collect(), args.force).await
}

/// Removes the pods with these names, or all of them.
pub(crate) async fn remove_pods(mut client: Client, args: &RemovePods) -> Result<()> {
    let objects = Objects::fetch_in(&mut client, &args.place).await?;
    let names: Vec<&str> = if args.all {
        objects.pods.iter().map(|pod| pod.id.as_str()).collect()
    } else {
        args.names.iter().map(String::as_str).collect()
    };
    let found = names.iter().map(|name| (*name, objects.find_pod(name).map(Object::Pod)));
    remove_each(&mut client, &objects, found.collect(), args.force).await
}

async fn remove_each(
    client: &mut Client,
    objects: &Objects,
    found: Vec<(&str, Result<Object<'_>>)>,
    force: bool,
) -> Result<()> {
    let mut failures = Failures::default();
    for (name, object) in found {
        let removed = match object {
            Ok(object) => remove_one(client, objects, object, force).await,
            Err(err) => Err(err),
        };
        failures.outcome(name, removed.map_err(|err| objects.named(err)))?;
    }
    failures.result()
}

async fn remove_one(
    client: &mut Client,
    objects: &Objects,
    object: Object<'_>,
    force: bool,
) -> Result<()> {
    if !force {
        refuse_running(objects, object)?;
    }
    match object {
        Object::Container(container) => match sole_pod(objects, container) {
            // The pod of `hull run` is there for its container only.
            Some(pod) => remove_pod(client, pod).await,
            None => remove_container(client, container).await,
        },
        Object::Pod(pod) => remove_pod(client, pod).await,
    }
}

/// Removes a container; the daemon kills one that runs, without a grace period.
pub(crate) async fn remove_container(
    client: &mut Client,
    container: &api::Container,
) -> Result<()> {
    let container_id = container.id.clone();
    client.runtime.remove_container(api::RemoveContainerRequest { container_id }).await?;
    Ok(())
}

/// The pod of `hull run` whose only container this is.
fn sole_pod<'k>(objects: &'k Objects, container: &api::Container) -> Option<&'k api::PodSandbox> {
    let is_alone = objects
        .containers
        .iter()
        .all(|of| of.id == container.id || of.pod_sandbox_id != container.pod_sandbox_id);
    let pod = objects.pod_of(container).filter(|_| is_alone)?;
    is_of_run(pod).then_some(pod)
}

/// Whether `hull run` or `hull play` made this pod.
pub(crate) fn is_of_run(pod: &api::PodSandbox) -> bool {
    run_pods::is_made_by_cli(pod.metadata.as_ref(), &pod.labels)
}

/// Refuses to remove running containers without force. A pod counts as running if one of its containers runs;
/// its pause process does not matter.
fn refuse_running(objects: &Objects, object: Object<'_>) -> Result<()> {
    let is_running = |of: &&api::Container| of.state() == api::ContainerState::ContainerRunning;
    let running = match object {
        Object::Container(container) => Some(container).filter(is_running),
        Object::Pod(pod) => {
            objects.containers.iter().filter(|of| of.pod_sandbox_id == pod.id).find(is_running)
        }
    };
    match running {
        Some(container) => Err(Error::Running {
            what: format!("container {} ({})", short(&container.id), container_name(container)),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_with_a_running_container_is_not_removed_without_force() {
        let pod = api::PodSandbox { id: "p".into(), ..Default::default() };
        let mut container =
            api::Container { id: "c".into(), pod_sandbox_id: "p".into(), ..Default::default() };
        container.set_state(api::ContainerState::ContainerRunning);
        let mut objects = Objects { pods: vec![pod.clone()], containers: vec![container] };
        refuse_running(&objects, Object::Pod(&pod)).unwrap_err();
        objects.containers[0].set_state(api::ContainerState::ContainerExited);
        refuse_running(&objects, Object::Pod(&pod)).unwrap();
    }
}
