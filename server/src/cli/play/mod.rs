// SPDX-License-Identifier: Apache-2.0
//! `hull play kube`: the pods of a manifest without a cluster, made as a kubelet makes them.
//!
//! The rule: a manifest is checked as a whole before anything is created, and a pod that cannot be started whole is
//! removed.

mod configs;
mod data;
mod env;
mod fields;
mod files;
mod manifest;
mod quantity;
mod read;
mod unsupported;
mod validate;
mod volumes;

use super::args::pods::Kube;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Kind, Kinds, Row};
use super::names::{Objects, namespace, pod_name};
use super::ps::row;
use super::run_logs::Making;
use super::signals::EndSignals;
use super::{images, objects, output, ps, pull, run_logs, wait};
use configs::Setting;
use fields::PodFacts;
use hull_proto::cri as api;
use manifest::{Container, Pod};
use read::Manifest;
use serde_json::json;

/// The fields of the pods that were run.
pub(crate) const PLAYED: Kinds = Kinds {
    verb: "play kube",
    fields: &[
        Field::always("name", "NAME", Kind::Text, "Name of the pod."),
        Field::always("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::always("id", "POD ID", Kind::Id, "Id of the pod."),
        Field::always("state", "STATE", Kind::Word, "What happened: started or removed."),
        Field::never("containers", Kind::List, "Ids of its containers, without init containers."),
        Field::never("names", Kind::Text, "NAMESPACE/NAME, which every command accepts."),
    ],
    id: "id",
    name: "names",
};

/// Runs or removes the pods of a manifest.
pub(crate) async fn kube(mut client: Client, args: &Kube) -> Result<()> {
    let manifest = read::read(&args.file)?;
    if !args.down && !args.replace {
        // All of them before the first is created.
        for pod in &manifest.pods {
            if let Some(holder) = existing(&mut client, pod).await?.first() {
                let name = format!("{}/{}", pod.metadata.namespace(), pod.metadata.name);
                let instead = "replace it with --replace, or end the pods of the file with --down";
                let holder = output::short(&holder.id);
                return Err(Error::NameTaken { name, holder, instead });
            }
        }
    }
    let mut rows = Vec::new();
    let all = play(&mut client, &manifest, args, &mut rows).await;
    // Also those that were run before an error.
    if all.is_ok() || !rows.is_empty() {
        format::print(&PLAYED, &rows, &args.output)?;
    }
    all
}

async fn play(
    client: &mut Client,
    manifest: &Manifest,
    args: &Kube,
    rows: &mut Vec<Row>,
) -> Result<()> {
    for pod in &manifest.pods {
        let existing = existing(client, pod).await?;
        if args.down || args.replace {
            let objects = Objects::fetch(client).await?;
            for pod in &existing {
                objects::stop_pod(client, &objects, pod, None).await?;
                objects::remove_pod(client, pod).await?;
            }
        }
        if args.down {
            rows.extend(existing.iter().map(|pod| {
                row(json!({
                    "name": pod_name(pod), "namespace": namespace(pod), "id": pod.id,
                    "state": "removed", "containers": [],
                    "names": format!("{}/{}", namespace(pod), pod_name(pod)),
                }))
            }));
            continue;
        }
        let (id, containers) = run(client, pod, manifest).await?;
        rows.push(row(json!({
            "name": pod.metadata.name, "namespace": pod.metadata.namespace(), "id": id,
            "state": "started", "containers": containers,
            "names": format!("{}/{}", pod.metadata.namespace(), pod.metadata.name),
        })));
    }
    Ok(())
}

/// The pods of this name that `hull` made.
async fn existing(client: &mut Client, pod: &Pod) -> Result<Vec<api::PodSandbox>> {
    let listed = client.runtime.list_pod_sandbox(api::ListPodSandboxRequest::default()).await?;
    let is_same = |of: &api::PodSandbox| {
        pod_name(of) == pod.metadata.name && namespace(of) == pod.metadata.namespace()
    };
    let found =
        listed.into_inner().items.into_iter().filter(|of| is_same(of) && objects::is_of_run(of));
    Ok(found.collect())
}

/// Runs a pod, and returns its id and those of its containers. Whatever interrupts it, nothing incomplete is left.
async fn run(client: &mut Client, pod: &Pod, manifest: &Manifest) -> Result<(String, Vec<String>)> {
    let mut signals = EndSignals::new()?;
    let uid = run_logs::new_uid()?;
    let mut own = client.clone();
    let made = tokio::select! {
        made = make(&mut own, pod, manifest, &uid) => made,
        _ = signals.next() => Err(Error::PlayInterrupted),
    };
    if made.is_err() {
        let left = tokio::select! {
            left = objects::remove_by_uid(client, &uid) => left,
            _ = signals.next() => Err(Error::Interrupted),
        };
        // The first error is the result.
        if let Err(left) = left {
            output::to_stderr(&left.lines());
        }
    }
    made
}

/// Makes everything of a pod with this uid.
async fn make(
    client: &mut Client,
    pod: &Pod,
    manifest: &Manifest,
    uid: &str,
) -> Result<(String, Vec<String>)> {
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        image(client, container).await?;
    }
    let missing = Error::Response { operation: "find the log directory", missing: "path" };
    let directory = run_logs::directory(client, uid).await?.ok_or(missing)?;
    let _making = Making::begin(&directory)?;
    let bad = |why| manifest.bad(pod, why);
    let facts = PodFacts { pod, uid, node: &manifest.node, ips: &[] };
    for volume in &pod.spec.volumes {
        let content = files::of(volume, &facts, &manifest.data).map_err(bad)?;
        volumes::prepare(volume, &directory, content.as_ref())?;
    }
    let config = configs::pod(pod, uid, &directory).map_err(bad)?;
    let request = api::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: pod.spec.runtime_class_name.clone().unwrap_or_default(),
    };
    let id = client.runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    // The addresses are known only now.
    let ips = ps::addresses(client, &id).await;
    let facts = PodFacts { ips: &ips, ..facts };
    let at = Setting { facts, data: &manifest.data, directory: &directory };
    let containers = start(client, manifest, &id, &config, &at).await?;
    Ok((id, containers))
}

/// Starts init containers one after the other, then all containers.
async fn start(
    client: &mut Client,
    manifest: &Manifest,
    id: &str,
    config: &api::PodSandboxConfig,
    at: &Setting<'_>,
) -> Result<Vec<String>> {
    let pod = at.facts.pod;
    let bad = |why| manifest.bad(pod, why);
    let mut ids = Vec::new();
    let all = pod.spec.init_containers.iter().map(|of| (true, of));
    for (is_init, container) in all.chain(pod.spec.containers.iter().map(|of| (false, of))) {
        let made = configs::container(container, is_init, at).map_err(bad)?;
        let request = api::CreateContainerRequest {
            pod_sandbox_id: id.to_owned(),
            config: Some(made),
            sandbox_config: Some(config.clone()),
        };
        let container_id =
            client.runtime.create_container(request).await?.into_inner().container_id;
        let request = api::StartContainerRequest { container_id: container_id.clone() };
        client.runtime.start_container(request).await?;
        if !is_init {
            ids.push(container_id);
            continue;
        }
        let status = wait::until_exited(client.clone(), container_id).await?;
        if status.exit_code != 0 {
            let why =
                format!("init container `{}` exited with {}", container.name, status.exit_code);
            return Err(bad(why));
        }
    }
    Ok(ids)
}

/// Pulls the image of a container as its policy says; by default if it is missing.
async fn image(client: &mut Client, container: &Container) -> Result<()> {
    let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let is_there = policy != "Always" && images::find(client, &container.image).await?.is_some();
    if policy == "Never" && !is_there {
        return Err(Error::NotFound { kind: "image", name: container.image.clone() });
    }
    if !is_there {
        pull::one(client, &container.image, &pull::saved(&container.image).await?, false).await?;
    }
    Ok(())
}
