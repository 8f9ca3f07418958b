// SPDX-License-Identifier: Apache-2.0
//! `hull ps`, `stop`, `rm` and `inspect`: commands for both pods and containers.

use super::args::{Inspect, Ps, Rm, Stop};
use super::client::Client;
use super::error::{Error, Result};
use super::names::{Object, Objects, Prefer, container_name, pod_name};
use super::output::{self, Table, short};
use super::{images, run_logs, wait};
use hull_proto::cri as api;
use hull_sys::time::now_ns;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Grace period of containers that are stopped to be removed, in seconds.
const GRACE_S: i64 = 10;

/// Lists the containers.
pub(crate) async fn list(mut client: Client, args: &Ps) -> Result<()> {
    let mut objects = Objects::fetch(&mut client).await?;
    let running = api::ContainerState::ContainerRunning as i32;
    objects.containers.retain(|container| args.all || container.state == running);
    objects.containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    if args.quiet {
        return output::print(
            &objects.containers.iter().map(|of| format!("{}\n", of.id)).collect::<String>(),
        );
    }
    let mut table = Table::new(&["CONTAINER", "NAME", "POD", "IMAGE", "STATE", "REASON", "AGE"]);
    let now = now_ns();
    for container in &objects.containers {
        let image = container.image.as_ref().map_or("", |image| image.image.as_str());
        table.row([
            short(&container.id),
            container_name(container).to_owned(),
            objects.pod_of(container).map_or("-", pod_name).to_owned(),
            if image.starts_with("sha256:") { short(image) } else { image.to_owned() },
            state(container.state()).to_owned(),
            reason(&mut client, container).await,
            output::age(container.created_at, now),
        ]);
    }
    if args.all {
        for pod in &objects.pods {
            if objects.containers.iter().any(|of| of.pod_sandbox_id == pod.id) {
                continue;
            }
            let ready = pod.state() == api::PodSandboxState::SandboxReady;
            let state = if ready { "pod ready" } else { "pod not ready" };
            let dash = || String::from("-");
            let (name, age) = (pod_name(pod).to_owned(), output::age(pod.created_at, now));
            table.row([dash(), dash(), name, dash(), state.into(), String::new(), age]);
        }
    }
    output::print(&table.shown())
}

fn state(state: api::ContainerState) -> &'static str {
    match state {
        api::ContainerState::ContainerCreated => "created",
        api::ContainerState::ContainerRunning => "running",
        api::ContainerState::ContainerExited => "exited",
        api::ContainerState::ContainerUnknown => "unknown",
    }
}

/// The exit code and reason of an exited container.
async fn reason(client: &mut Client, container: &api::Container) -> String {
    if container.state() != api::ContainerState::ContainerExited {
        return String::new();
    }
    // If it was removed meanwhile, the row has no details.
    match wait::status_of(client, &container.id).await {
        Ok(status) => format!("{} ({})", status.reason, status.exit_code),
        Err(_) => String::new(),
    }
}

/// Stops containers or pods.
pub(crate) async fn stop(mut client: Client, args: &Stop) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    // All names first, so that a misspelt one stops nothing.
    let selected: Vec<_> = args
        .names
        .iter()
        .map(|name| objects.find(name, Prefer::Container))
        .collect::<Result<_>>()?;
    for (object, name) in selected.into_iter().zip(&args.names) {
        match object {
            Object::Container(container) => {
                stop_container(&mut client, &container.id, i64::from(args.time)).await?;
            }
            Object::Pod(pod) => {
                let running = api::ContainerState::ContainerRunning;
                for container in &objects.containers {
                    if container.pod_sandbox_id == pod.id && container.state() == running {
                        stop_container(&mut client, &container.id, i64::from(args.time)).await?;
                    }
                }
                let pod_sandbox_id = pod.id.clone();
                client
                    .runtime
                    .stop_pod_sandbox(api::StopPodSandboxRequest { pod_sandbox_id })
                    .await?;
            }
        }
        output::line(name)?;
    }
    Ok(())
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

/// Removes containers or pods.
pub(crate) async fn remove(mut client: Client, args: &Rm) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    let names: Vec<&str> = if args.all {
        objects.pods.iter().map(|pod| pod.id.as_str()).collect()
    } else {
        args.names.iter().map(String::as_str).collect()
    };
    let selected: Vec<_> =
        names.iter().map(|name| objects.find(name, Prefer::Pod)).collect::<Result<_>>()?;
    if !args.force {
        selected.iter().try_for_each(|object| refuse_running(&objects, *object))?;
    }
    for (object, name) in selected.into_iter().zip(names) {
        match object {
            Object::Container(container) => {
                let container_id = container.id.clone();
                if container.state() == api::ContainerState::ContainerRunning {
                    stop_container(&mut client, &container.id, GRACE_S).await?;
                }
                client
                    .runtime
                    .remove_container(api::RemoveContainerRequest { container_id })
                    .await?;
            }
            Object::Pod(pod) => remove_pod(&mut client, pod).await?,
        }
        output::line(name)?;
    }
    Ok(())
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

/// Prints the full state of a pod, container or image.
pub(crate) async fn inspect(mut client: Client, args: &Inspect) -> Result<()> {
    let objects = Objects::fetch(&mut client).await?;
    let object = match objects.find(&args.name, Prefer::Container) {
        Ok(object) => object,
        Err(Error::NotFound { .. }) => {
            let Some(image) = images::find(&mut client, &args.name).await? else {
                let kind = "container, pod or image";
                return Err(Error::NotFound { kind, name: args.name.clone() });
            };
            return print_json("image", json!(image.image), &image.info);
        }
        Err(other) => return Err(other),
    };
    match object {
        Object::Container(container) => {
            let request =
                api::ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
            let answer = client.runtime.container_status(request).await?.into_inner();
            print_json("status", json!(answer.status), &answer.info)
        }
        Object::Pod(pod) => {
            let request =
                api::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: true };
            let answer = client.runtime.pod_sandbox_status(request).await?.into_inner();
            print_json("status", json!(answer.status), &answer.info)
        }
    }
}

/// The document `{ "<what>": …, "info": … }`. The values of `info` are strings with JSON.
fn print_json(what: &str, status: Value, info: &HashMap<String, String>) -> Result<()> {
    let mut all = serde_json::Map::from_iter([(what.to_owned(), status)]);
    for (key, text) in info {
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        all.insert(key.clone(), value);
    }
    output::json(&format!("{:#}\n", Value::Object(all)))
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
