// SPDX-License-Identifier: Apache-2.0
//! `hull ps` and `hull pods`.

use super::args::Ps;
use super::args::pods::ListPods;
use super::client::Client;
use super::error::{Error, Result};
use super::format::{self, Field, Filter, Kind, Kinds, Row};
use super::names::{Objects, attempt, container_name, namespace, pod_name};
use super::wait;
use crate::pod::run_pods;
use hull_proto::{admin, cri as api};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;

/// The fields of containers.
pub(crate) const CONTAINERS: Kinds = Kinds {
    verb: "ps",
    fields: &[
        Field::always(
            "id",
            "CONTAINER",
            Kind::Id,
            "Id of the container; empty for a pod without containers.",
        ),
        Field::always("name", "NAME", Kind::Text, "Name of the container in its pod."),
        Field::always("pod", "POD", Kind::Text, "Name of the pod."),
        Field::always("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::always("image", "IMAGE", Kind::Text, "Image, as its pod names it."),
        Field::always(
            "state",
            "STATE",
            Kind::Word,
            "State: created, running, paused, restarting, exited or unknown; for a pod without containers `pod ready` or `pod not ready`.",
        ),
        Field::always("reason", "REASON", Kind::Word, "Reason of the exit, with the exit code."),
        Field::always("attempt", "ATTEMPT", Kind::Number, "Number of the attempt, from 0."),
        Field::always("created", "AGE", Kind::Time, "Time of creation."),
        Field::wide(
            "ip",
            "IP",
            Kind::Word,
            "First address of the pod; empty on the network of the host.",
        ),
        Field::wide(
            "restarts",
            "RESTARTS",
            Kind::Number,
            "Number of restarts by the daemon since it was started by a person.",
        ),
        Field::wide("podId", "POD ID", Kind::Id, "Id of the pod."),
        Field::wide("imageId", "IMAGE ID", Kind::Id, "Id of the image."),
        Field::never("names", Kind::Text, "NAMESPACE/POD/NAME, which every command accepts."),
        Field::never(
            "restartPolicy",
            Kind::Text,
            "Policy of `hull run --restart`; empty for containers of others.",
        ),
        Field::never("exitCode", Kind::Number, "Exit code; null unless it has exited."),
        Field::never("labels", Kind::Map, "Labels of the container."),
        Field::never("annotations", Kind::Map, "Annotations of the container."),
    ],
    id: "id",
    name: "names",
};

/// The fields of pods.
pub(crate) const PODS: Kinds = Kinds {
    verb: "pods",
    fields: &[
        Field::always("id", "POD ID", Kind::Id, "Id of the pod."),
        Field::always("name", "NAME", Kind::Text, "Name of the pod."),
        Field::always("namespace", "NAMESPACE", Kind::Text, "Namespace of the pod."),
        Field::always("state", "STATE", Kind::Word, "State: ready or notready."),
        Field::always(
            "ip",
            "IP",
            Kind::Word,
            "First address of the pod; empty on the network of the host.",
        ),
        Field::always("attempt", "ATTEMPT", Kind::Number, "Number of the attempt, from 0."),
        Field::always("created", "AGE", Kind::Time, "Time of creation."),
        Field::wide(
            "handler",
            "HANDLER",
            Kind::Text,
            "Runtime handler, as a RuntimeClass names it.",
        ),
        Field::never("names", Kind::Text, "NAMESPACE/NAME, which every command accepts."),
        Field::never("uid", Kind::Text, "Uid of the pod."),
        Field::never("ips", Kind::List, "All addresses of the pod."),
        Field::never("labels", Kind::Map, "Labels of the pod."),
        Field::never("annotations", Kind::Map, "Annotations of the pod."),
    ],
    id: "id",
    name: "names",
};

/// Lists the containers.
pub(crate) async fn containers(mut client: Client, args: &Ps) -> Result<()> {
    let mut objects = Objects::fetch(&mut client).await?;
    if let Some(name) = &args.namespace {
        objects.pods.retain(|pod| namespace(pod) == name);
        // As docker and crictl have it, `-n 5` would be the last five; an empty list would say nothing.
        if objects.pods.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::NotFound { kind: "a pod in namespace", name: name.clone() });
        }
    }
    if let Some(pod) = &args.pod {
        let id = objects.find_pod(pod)?.id.clone();
        objects.pods.retain(|pod| pod.id == id);
    }
    let is_of = |of: &api::Container| objects.pods.iter().any(|pod| pod.id == of.pod_sandbox_id);
    let mut listed: Vec<api::Container> =
        objects.containers.iter().filter(|of| is_of(of)).cloned().collect();
    listed.sort_by_key(|of| Reverse(of.created_at));
    let by_state = args.list.filter.iter().any(Filter::is_of_state);
    let last = if args.latest { Some(1) } else { args.last };
    let all = args.all || last.is_some() || by_state;
    let running = api::ContainerState::ContainerRunning as i32;
    let marks = marks(&mut client).await?;
    let is_active =
        |of: &api::Container| of.state == running || marks.restarting_ids.contains(&of.id);
    listed.retain(|container| all || is_active(container));
    listed.truncate(last.unwrap_or(usize::MAX));
    let ips = ips(&mut client, &objects, &listed).await;
    let mut rows = Vec::new();
    for container in &listed {
        let exit = exit(&mut client, container).await;
        let pod = objects.pod_of(container);
        rows.push(container_row(container, pod, exit, &marks, &ips));
    }
    // Pods without containers have no ids that a script could pass on.
    if args.all && !args.list.quiet {
        for pod in &objects.pods {
            if !objects.containers.iter().any(|of| of.pod_sandbox_id == pod.id) {
                rows.push(empty_pod(pod));
            }
        }
    }
    format::list(&CONTAINERS, rows, &args.list)
}

/// Lists the pods.
pub(crate) async fn pods(mut client: Client, args: &ListPods) -> Result<()> {
    let mut pods = Objects::fetch(&mut client).await?.pods;
    if let Some(name) = &args.namespace {
        pods.retain(|pod| namespace(pod) == name);
    }
    pods.sort_by_key(|pod| Reverse(pod.created_at));
    let mut rows = Vec::new();
    for pod in &pods {
        let ips = addresses(&mut client, &pod.id).await;
        rows.push(pod_row(pod, &ips));
    }
    format::list(&PODS, rows, &args.list)
}

fn pod_row(pod: &api::PodSandbox, ips: &[String]) -> Row {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let ready = pod.state() == api::PodSandboxState::SandboxReady;
    row(json!({
        "id": pod.id,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "state": if ready { "ready" } else { "notready" },
        "ip": ips.first().cloned().unwrap_or_default(),
        "attempt": metadata.attempt,
        "created": format::time(pod.created_at),
        "handler": pod.runtime_handler,
        "names": format!("{}/{}", metadata.namespace, metadata.name),
        "uid": metadata.uid,
        "ips": ips,
        "labels": pod.labels,
        "annotations": pod.annotations,
    }))
}

fn container_row(
    of: &api::Container,
    pod: Option<&api::PodSandbox>,
    exit: Option<api::ContainerStatus>,
    marks: &admin::PausedResponse,
    ips: &HashMap<String, Vec<String>>,
) -> Row {
    let name = container_name(of);
    let (pod_name, namespace) = (pod.map_or("", pod_name), pod.map_or("", namespace));
    let image = of.image.as_ref().map_or("", |image| match image.user_specified_image.as_str() {
        "" => image.image.as_str(),
        written => written,
    });
    let image =
        if image.starts_with("sha256:") { super::output::short(image) } else { image.to_owned() };
    let ip = ips.get(&of.pod_sandbox_id).and_then(|ips| ips.first()).cloned().unwrap_or_default();
    let state = if marks.container_ids.contains(&of.id) {
        "paused"
    } else if marks.restarting_ids.contains(&of.id) {
        "restarting"
    } else {
        state(of.state())
    };
    let annotation = |key: &str| of.annotations.get(key).map(String::as_str).unwrap_or_default();
    row(json!({
        "id": of.id,
        "name": name,
        "pod": pod_name,
        "namespace": namespace,
        "image": image,
        "state": state,
        "reason": exit.as_ref().map_or_else(String::new, |of| format!("{} ({})", of.reason, of.exit_code)),
        "attempt": attempt(of),
        "created": format::time(of.created_at),
        "ip": ip,
        "restarts": annotation(run_pods::RESTARTS).parse().unwrap_or(0_u32),
        "restartPolicy": annotation(run_pods::RESTART),
        "podId": of.pod_sandbox_id,
        "imageId": of.image_id,
        "names": format!("{namespace}/{pod_name}/{name}"),
        "exitCode": exit.map(|of| of.exit_code),
        "labels": of.labels,
        "annotations": of.annotations,
    }))
}

fn empty_pod(pod: &api::PodSandbox) -> Row {
    let ready = pod.state() == api::PodSandboxState::SandboxReady;
    row(json!({
        "id": "",
        "name": "-",
        "pod": pod_name(pod),
        "namespace": namespace(pod),
        "image": "-",
        "state": if ready { "pod ready" } else { "pod not ready" },
        "reason": "",
        "attempt": null,
        "created": format::time(pod.created_at),
        "ip": "",
        "restarts": null,
        "restartPolicy": "",
        "podId": pod.id,
        "imageId": "",
        "names": format!("{}/{}", namespace(pod), pod_name(pod)),
        "exitCode": null,
        "labels": pod.labels,
        "annotations": pod.annotations,
    }))
}

/// A document as a row; empty if it is not an object.
pub(crate) fn row(document: Value) -> Row {
    match document {
        Value::Object(row) => row,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Row::new()
        }
    }
}

/// The name of a state.
pub(crate) fn state(state: api::ContainerState) -> &'static str {
    match state {
        api::ContainerState::ContainerCreated => "created",
        api::ContainerState::ContainerRunning => "running",
        api::ContainerState::ContainerExited => "exited",
        api::ContainerState::ContainerUnknown => "unknown",
    }
}

/// The status of an exited container; none if it was removed meanwhile.
async fn exit(client: &mut Client, of: &api::Container) -> Option<api::ContainerStatus> {
    if of.state() != api::ContainerState::ContainerExited {
        return None;
    }
    wait::status_of(client, &of.id).await.ok()
}

/// The ids of paused containers, and of those that will be restarted.
pub(crate) async fn marks(client: &mut Client) -> Result<admin::PausedResponse> {
    match client.admin.paused(admin::PausedRequest {}).await {
        Ok(answer) => Ok(answer.into_inner()),
        // A daemon of an earlier release pauses nothing.
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(Default::default()),
        Err(status) => Err(status.into()),
    }
}

/// The addresses of the pods of these containers, by id of the pod.
async fn ips(
    client: &mut Client,
    objects: &Objects,
    of: &[api::Container],
) -> HashMap<String, Vec<String>> {
    let mut ips = HashMap::new();
    for pod in &objects.pods {
        if of.iter().any(|container| container.pod_sandbox_id == pod.id) {
            ips.insert(pod.id.clone(), addresses(client, &pod.id).await);
        }
    }
    ips
}

/// The addresses of a pod; none if it was removed meanwhile.
pub(crate) async fn addresses(client: &mut Client, pod: &str) -> Vec<String> {
    let request = api::PodSandboxStatusRequest { pod_sandbox_id: pod.to_owned(), verbose: false };
    let answer = client.runtime.pod_sandbox_status(request).await;
    let network = answer.ok().and_then(|answer| answer.into_inner().status?.network);
    let Some(network) = network.filter(|network| !network.ip.is_empty()) else { return Vec::new() };
    let more = network.additional_ips.into_iter().map(|of| of.ip);
    [network.ip].into_iter().chain(more).collect()
}
