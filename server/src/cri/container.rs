// SPDX-License-Identifier: Apache-2.0
//! The verbs about containers.

use super::service::Cri;
use super::{convert, filter, names, status, termination};
use crate::container::{self, ContainerRecord, ContainerSnapshot, State};
use crate::container::{checkpoint, exec, logging};
use crate::diagnostics::explain;
use crate::error::Error;
use crate::limits::waits::{CHECKPOINT_MAX, CHECKPOINT_S_MAX};
use crate::node::Node;
use crate::observe::stats;
use crate::pod::run_pods::{self, RestartPolicy};
use crate::pod::{Command, PodSnapshot};
use crate::storage::blocking;
use hull_proto::cri as api;
use hull_sys::text::shown_json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Response, Status};
use tracing::Span;

impl Cri {
    pub(super) async fn create(
        &self,
        request: api::CreateContainerRequest,
    ) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| status::invalid("config", "it is missing"))?;
        let metadata = config
            .metadata
            .as_ref()
            .ok_or_else(|| status::invalid("config.metadata", "it is missing"))?;
        if metadata.name.is_empty() {
            return Err(status::invalid("config.metadata.name", "it is empty"));
        }
        Span::current().record("container", metadata.name.as_str());
        names::check("config.metadata.name", &metadata.name)?;
        let pod = self.pod(&request.pod_sandbox_id)?;
        let config = Box::new(config);
        let id =
            pod.request(|reply| Command::Create { config, reply }).await.map_err(status::of)?;
        Ok(id.to_string())
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Status> {
        let (id, pod) = self.container(id)?;
        pod.request(|reply| Command::Start { id, reply }).await.map_err(status::of)
    }

    /// Starts a container for a person, also one that has exited.
    pub(super) async fn start_again_of(&self, id: &str) -> Result<(), Status> {
        let (id, pod) = self.container(id)?;
        pod.request(|reply| Command::StartAgain { id, reply }).await.map_err(status::of)
    }

    /// Idempotent: a container that does not run, or is not there, is stopped.
    pub(super) async fn stop(&self, id: &str, timeout_s: i64) -> Result<(), Status> {
        if id.is_empty() {
            return Err(status::invalid("container_id", "it is empty"));
        }
        let Some((id, pod)) = self.node.registry.container(id) else { return Ok(()) };
        let grace_s = u64::try_from(timeout_s).unwrap_or(0);
        ignore_not_found(
            pod.request(|reply| Command::Stop { id, grace_s, reply }).await.map_err(status::of),
        )
    }

    /// Idempotent as [`stop`](Self::stop); a running container is killed first.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Status> {
        if id.is_empty() {
            return Err(status::invalid("container_id", "it is empty"));
        }
        let Some((id, pod)) = self.node.registry.container(id) else { return Ok(()) };
        ignore_not_found(
            pod.request(|reply| Command::Remove { id, reply }).await.map_err(status::of),
        )
    }

    pub(super) fn list_containers_by(
        &self,
        by: Option<&api::ContainerFilter>,
    ) -> Vec<api::Container> {
        let views = self.node.registry.views();
        views
            .iter()
            .flat_map(|view| view.containers.values())
            .filter(|view| filter::container(by, view))
            .map(|view| convert::container(&self.node, view))
            .collect()
    }

    pub(super) async fn container_status_of(
        &self,
        request: api::ContainerStatusRequest,
    ) -> Result<api::ContainerStatusResponse, Status> {
        let (pod, view) = self.shown(&request.container_id)?;
        let info = if request.verbose {
            // It looks at devices and profiles, which may be on storage that does not answer.
            let (node, shown, pod) = (Arc::clone(&self.node), Arc::clone(&view), Arc::clone(&pod));
            blocking(move || container_info(&node, &pod, &shown)).await
        } else {
            HashMap::new()
        };
        Ok(api::ContainerStatusResponse {
            status: Some(
                termination::container_status(&self.node, &pod, &view, request.verbose).await,
            ),
            info,
        })
    }

    /// The snapshots of a container and of its pod.
    fn shown(&self, id: &str) -> Result<(Arc<PodSnapshot>, Arc<ContainerSnapshot>), Status> {
        let (id, pod) = self.container(id)?;
        let pod = pod.view();
        let view = pod.containers.get(&id).cloned();
        let view = view
            .ok_or_else(|| status::of(Error::NotFound { kind: "container", id: id.to_string() }))?;
        Ok((pod, view))
    }

    pub(super) async fn update(
        &self,
        request: api::UpdateContainerResourcesRequest,
    ) -> Result<(), Status> {
        let (id, pod) = self.container(&request.container_id)?;
        let Some(resources) = request.linux else {
            return Err(status::invalid("linux", "it is missing: there is nothing to update"));
        };
        let resources = Box::new(resources);
        pod.request(|reply| Command::Update { id, resources, reply }).await.map_err(status::of)
    }

    pub(super) async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let (id, pod) = self.container(id)?;
        pod.request(|reply| Command::ReopenLog { id, reply }).await.map_err(status::of)
    }

    pub(super) async fn checkpoint(
        &self,
        request: api::CheckpointContainerRequest,
    ) -> Result<(), Status> {
        let limit = match u64::try_from(request.timeout) {
            Ok(0) => CHECKPOINT_MAX,
            Ok(seconds) => Duration::from_secs(seconds.min(CHECKPOINT_S_MAX)),
            Err(_) => return Err(status::invalid("timeout", "it is negative")),
        };
        if request.location.is_empty() {
            return Err(status::invalid("location", "it is empty"));
        }
        let (id, pod) = self.container(&request.container_id)?;
        let location = request.location.into();
        checkpoint::write(&self.node, &pod, &id, location, limit).await.map_err(status::of)
    }

    pub(super) async fn exec(
        &self,
        request: api::ExecSyncRequest,
    ) -> Result<Response<api::ExecSyncResponse>, Status> {
        let (id, pod) = self.container(&request.container_id)?;
        let limit = match u64::try_from(request.timeout) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err(status::invalid("timeout", "it is negative")),
        };
        let output =
            exec::sync(&self.node, &id, &pod, &request.cmd, limit).await.map_err(status::of)?;
        let mut answer = Response::new(api::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.code,
        });
        answer.extensions_mut().insert(output.held);
        Ok(answer)
    }

    pub(super) async fn stats_of(&self, id: &str) -> Result<api::ContainerStats, Status> {
        let (_, view) = self.shown(id)?;
        let node = Arc::clone(&self.node);
        blocking(move || stats::container(&node, &view)).await.map_err(status::of)
    }

    pub(super) async fn list_stats(
        &self,
        by: Option<api::ContainerStatsFilter>,
    ) -> Result<Vec<api::ContainerStats>, Status> {
        let node = Arc::clone(&self.node);
        blocking(move || {
            let views = node.registry.views();
            views
                .iter()
                .flat_map(|view| view.containers.values())
                .filter(|view| matches!(view.record.state, State::Running { .. }))
                .filter(|view| filter::container_stats(by.as_ref(), view))
                .map(|view| stats::container(&node, view))
                .collect::<Result<_, _>>()
        })
        .await
        .map_err(status::of)
    }
}

/// Verbose info of a container, as JSON by key.
fn container_info(
    node: &Node,
    pod: &PodSnapshot,
    view: &ContainerSnapshot,
) -> HashMap<String, String> {
    let record = &view.record;
    let image = node.images.find(&record.image_id);
    let spec = image.as_ref().and_then(|image| {
        container::start::spec(node, &pod.id, &pod.record, record, image, None).ok()
    });
    let mut spec = serde_json::json!(spec);
    // Those of its creation: the files that they are from may have changed.
    if let (true, Some(hooks)) = (spec.is_object(), node.bundles.of_spec(&record.id)) {
        spec["hooks"] = hooks;
    }
    let rootfs = image.map(|image| {
        let of = node.images.rootfs(&record.id, &image);
        let at = node.rootfs_dir();
        serde_json::json!({"lower": of.lower, "upper": of.upper, "work": of.work, "at": at})
    });
    let pid = match record.state {
        State::Running { pid, .. } => pid,
        State::Creating | State::Created | State::Exited { .. } | State::Removing => 0,
    };
    let mut info = serde_json::json!({
        "sandboxID": record.pod,
        "pid": pid,
        "state": record.state,
        "exitMessage": ended(record),
        "remarks": record.remarks,
        "cgroup": record.cgroup,
        "config": record.config,
        "runtimeSpec": spec,
        "timeline": node.history.of(&record.id),
        "rootfs": rootfs,
        "log": logging::info(&node.config.current().logs, &pod.record, record),
    });
    if let (Some(restart), Some(info)) = (restart_info(pod, view), info.as_object_mut()) {
        info.insert("restart".into(), restart);
    }
    if let (Some(previous), Some(info)) = (&record.previous, info.as_object_mut()) {
        info.insert("previousRun".into(), serde_json::json!(previous));
    }
    HashMap::from([("info".into(), shown_json(&info.to_string()).into_owned())])
}

/// The policy and the number of restarts of a container of `hull run --restart`.
fn restart_info(pod: &PodSnapshot, view: &ContainerSnapshot) -> Option<serde_json::Value> {
    let config = &view.record.config;
    match RestartPolicy::of(&pod.record, config) {
        RestartPolicy::No => None,
        policy @ (RestartPolicy::OnFailure { .. }
        | RestartPolicy::Always
        | RestartPolicy::UnlessStopped) => Some(serde_json::json!({
            "policy": policy.to_string(),
            "count": run_pods::restart_count(config),
            "pending": view.restarting,
            "stopped": pod.record.restarts_cancelled.contains(view.record.metadata().0),
        })),
    }
}

/// The explanation of its exit, if there is anything to explain.
fn ended(record: &ContainerRecord) -> Option<String> {
    let State::Exited { how, .. } = &record.state else { return None };
    Some(explain::end(record, how).1).filter(|text| !text.is_empty())
}

fn ignore_not_found(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(gone) if gone.code() == Code::NotFound => Ok(()),
        other => other,
    }
}
