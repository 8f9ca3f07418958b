// SPDX-License-Identifier: Apache-2.0
//! The verbs about pod sandboxes.

use super::service::Cri;
use super::{convert, filter, names, status};
use crate::config::Handler;
use crate::container::log;
use crate::error::{Chain, Error};
use crate::node::{new_pod_id, now_ns};
use crate::observe::stats;
use crate::oci_spec;
use crate::pod::registry::Key;
use crate::pod::{
    Command, Pod, PodRecord, PodSnapshot, Sizes, State, files, handler, pause_plan, task,
    user_namespace,
};
use crate::storage::blocking;
use hull_proto::cri as api;
use hull_sys::text::shown_json;
use std::sync::Arc;
use tonic::{Code, Status};
use tracing::Span;

impl Cri {
    /// Starts a pod, or waits for the same pod that is being started already: a retry after the
    /// kubelet's deadline joins, and gets the same id.
    pub(super) async fn run_pod(
        &self,
        request: api::RunPodSandboxRequest,
    ) -> Result<api::RunPodSandboxResponse, Status> {
        let handler = request.runtime_handler;
        let settings = handler::find(&self.node.config.current(), &handler).map_err(status::of)?;
        let config = request.config.ok_or_else(|| status::invalid("config", "it is missing"))?;
        if let Some(of) = &config.metadata {
            Span::current().record("pod", format!("{}/{}", of.namespace, of.name));
        }
        let metadata = check(&config)?;
        let key = Key::of(&metadata);
        let pod = match self.node.registry.named(&key) {
            Some(pod) => pod,
            None => self.new_pod(key, config, (handler, settings)).await.map_err(status::of)?,
        };
        pod.built().await.map_err(status::of)?;
        Ok(api::RunPodSandboxResponse { pod_sandbox_id: pod.id.to_string() })
    }

    /// A new pod under this name, being built; or the one that a concurrent request has entered.
    async fn new_pod(
        &self,
        key: Key,
        config: api::PodSandboxConfig,
        (handler, handler_settings): (String, Option<Handler>),
    ) -> Result<Pod, Error> {
        let node = Arc::clone(&self.node);
        let id = new_pod_id();
        let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let (cgroup, ours) = node
            .driver
            .cgroup_path(&id, parent)
            .map_err(|why| Error::Invalid { field: "config.linux.cgroup_parent", why })?;
        if let Some(settings) = &handler_settings {
            let facts = handler::NodeFacts {
                user_namespaces: &node.user_namespaces,
                cgroup_namespaces: node.host.cgroup_v2,
            };
            handler::check((&handler, settings), facts, &config)?;
        }
        let mut record = PodRecord {
            id: id.to_string(),
            cgroup,
            cgroup_is_ours: ours,
            config,
            assigned_userns: None,
            handler,
            handler_settings,
            created_ns: now_ns(),
            state: State::Building,
            last_ready: None,
            restarts_cancelled: std::collections::BTreeSet::new(),
        };
        let (record, ids) = {
            // Refused before anything is made: what the sandbox asks for and cannot have.
            let node = Arc::clone(&node);
            let checked = blocking(move || {
                let ids = user_namespace::assign(&node, &mut record)
                    .map_err(|source| Error::UserNamespace { source })?;
                let spec = |source| Error::Spec { source };
                pause_plan(&node, &record).map_err(spec)?;
                oci_spec::ports(&record.config).map_err(spec)?;
                Ok::<_, Error>((record, ids))
            });
            checked.await?
        };
        let (monitor_events_in, monitor_events) = task::monitor_events();
        let (pod, start) = task::prepare(&node, id, record, monitor_events_in, monitor_events);
        let earlier = node.registry.enter(key, &pod);
        // From here on, the pod's record in the registry holds its ids.
        drop(ids);
        if let Some(earlier) = earlier {
            return Ok(earlier);
        }
        start.run();
        Ok(pod)
    }

    /// Kills the pod's containers and gives its network back. Idempotent: a pod that is stopped
    /// already, or does not exist, is a success.
    pub(super) async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        self.request_if_found(id, |reply| Command::StopPod { reply }).await
    }

    /// Stops the pod and removes everything of it. Idempotent as [`stop_pod`](Self::stop_pod).
    pub(super) async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        self.request_if_found(id, |reply| Command::RemovePod { reply }).await
    }

    /// Records the pod-level resources so that later status calls can report them: in-place resize (KEP-1287) ends
    /// with this call. The kubelet has written the pod's cgroup by then.
    pub(super) async fn resize_pod(
        &self,
        request: api::UpdatePodSandboxResourcesRequest,
    ) -> Result<(), Status> {
        let pod = self.pod(&request.pod_sandbox_id)?;
        let sizes = Sizes { overhead: request.overhead, resources: request.resources };
        let sizes = Box::new(sizes);
        pod.request(|reply| Command::UpdatePod { sizes, reply }).await.map_err(status::of)
    }

    async fn request_if_found(
        &self,
        id: &str,
        command: impl FnOnce(crate::pod::Reply<()>) -> Command,
    ) -> Result<(), Status> {
        if id.is_empty() {
            return Err(status::invalid("pod_sandbox_id", "it is empty"));
        }
        let Some(pod) = self.node.registry.pod(id) else { return Ok(()) };
        match pod.request(command).await.map_err(status::of) {
            // Somebody else's removal was quicker.
            Err(gone) if gone.code() == Code::NotFound => Ok(()),
            other => other,
        }
    }

    pub(super) async fn pod_status(
        &self,
        request: &api::PodSandboxStatusRequest,
    ) -> Result<api::PodSandboxStatusResponse, Status> {
        let view = self.pod(&request.pod_sandbox_id)?.view();
        let info = if request.verbose { self.pod_info(&view).await } else { Default::default() };
        // No timestamp and no statuses of containers, as with other runtimes: with a timestamp, a kubelet that watches
        // events takes the containers from here, but does not count them as those of the pod's current sandbox, and
        // starts its init containers again (Kubernetes 1.33 to 1.37).
        Ok(api::PodSandboxStatusResponse {
            status: Some(convert::pod_status(&view)),
            info,
            ..Default::default()
        })
    }

    /// Verbose info of a pod, as JSON by key. Takes as long as the check of its network.
    async fn pod_info(&self, view: &PodSnapshot) -> std::collections::HashMap<String, String> {
        let (node, id) = (Arc::clone(&self.node), view.id.clone());
        let checked = blocking(move || {
            (node.network.check_pod(id.as_str()), node.network.remarks(id.as_str()))
        });
        let (network, remarks) = match checked.await {
            (Ok(()), remarks) => ("as it was made".to_owned(), remarks),
            (Err(err), remarks) => (format!("cannot {}", Chain(&err)), remarks),
        };
        let spec = pause_plan(&self.node, &view.record).ok().map(|(_, spec)| spec);
        let pid = match view.record.state {
            State::Ready { pause_pid, .. } => pause_pid,
            State::Building | State::Stopping | State::Stopped => 0,
        };
        let info = serde_json::json!({
            "pid": pid,
            "state": view.record.state.name(),
            "runtimeHandler": view.record.handler,
            "handlerSettings": view.record.handler_settings,
            "cgroup": view.record.cgroup,
            "directory": self.node.pod_dir(&view.id),
            "files": self.node.pod_files(&view.id),
            "config": view.record.config,
            "runtimeSpec": spec,
            "network": network,
            "remarks": remarks,
            "timeline": self.node.history.of(view.id.as_str()),
        });
        let info = shown_json(&info.to_string()).into_owned();
        std::collections::HashMap::from([("info".into(), info)])
    }

    pub(super) fn list_pods(&self, by: Option<&api::PodSandboxFilter>) -> Vec<api::PodSandbox> {
        let views = self.node.registry.views();
        let wanted = views.iter().filter(|view| filter::pod(by, view));
        wanted.map(|view| convert::pod(view)).collect()
    }

    pub(super) async fn pod_stats(&self, id: &str) -> Result<api::PodSandboxStats, Status> {
        let view = self.pod(id)?.view();
        view.hold_pause().await;
        let node = Arc::clone(&self.node);
        blocking(move || stats::pod(&node, &view)).await.map_err(status::of)
    }

    pub(super) async fn list_pod_stats(
        &self,
        by: Option<api::PodSandboxStatsFilter>,
    ) -> Result<Vec<api::PodSandboxStats>, Status> {
        let (node, views) = (Arc::clone(&self.node), self.held_views().await);
        blocking(move || {
            let wanted = views.iter().filter(|view| {
                view.record.state.is_ready() && filter::pod_stats(by.as_ref(), view)
            });
            wanted.map(|view| stats::pod(&node, view)).collect::<Result<_, _>>()
        })
        .await
        .map_err(status::of)
    }
}

impl Cri {
    /// All pods, the pause process of each held.
    async fn held_views(&self) -> Vec<Arc<PodSnapshot>> {
        let views = self.node.registry.views();
        futures_util::future::join_all(views.iter().map(|view| view.hold_pause())).await;
        views
    }

    pub(super) async fn list_pod_metrics(&self) -> Result<Vec<api::PodSandboxMetrics>, Status> {
        let (node, views) = (Arc::clone(&self.node), self.held_views().await);
        blocking(move || {
            let wanted = views.iter().filter(|view| view.record.state.is_ready());
            wanted.map(|view| crate::observe::metrics::pod(&node, view)).collect::<Result<_, _>>()
        })
        .await
        .map_err(status::of)
    }
}

/// Refuses what could not be run or kept, by field.
fn check(config: &api::PodSandboxConfig) -> Result<api::PodSandboxMetadata, Status> {
    let metadata = config
        .metadata
        .clone()
        .ok_or_else(|| status::invalid("config.metadata", "it is missing"))?;
    if metadata.name.is_empty() {
        return Err(status::invalid("config.metadata.name", "it is empty"));
    }
    if metadata.uid.is_empty() {
        return Err(status::invalid("config.metadata.uid", "it is empty"));
    }
    for (field, text) in [
        ("config.metadata.name", &metadata.name),
        ("config.metadata.namespace", &metadata.namespace),
        ("config.metadata.uid", &metadata.uid),
    ] {
        names::check(field, text)?;
    }
    if !config.log_directory.is_empty() {
        log::check_directory(&config.log_directory)
            .map_err(|why| status::invalid("config.log_directory", why))?;
    }
    files::check(config).map_err(|why| status::invalid("config", why))?;
    Ok(metadata)
}
