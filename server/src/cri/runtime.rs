// SPDX-License-Identifier: Apache-2.0
//! RuntimeService: delegates each verb to the file of its subject, and has the verbs about the node itself.

use super::network_status;
use super::pagination::batched;
use super::service::Cri;
use super::status;
use crate::config::Config;
use crate::error::Error;
use crate::node::PodCidr;
use crate::pod::handler;
use crate::storage::blocking;
use hull_proto::cri as api;
use hull_proto::cri::runtime_service_server::RuntimeService;
use hull_sys::text::{MESSAGE_BYTES_MAX, shown, shown_json};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// The CRI version that this server implements.
const CRI_VERSION: &str = "v1";
/// The version of the kubelet's side of the interface, as crictl and the kubelet name it.
const KUBE_API_VERSION: &str = "0.1.0";

#[tonic::async_trait]
impl RuntimeService for Cri {
    async fn version(&self, _: Request<api::VersionRequest>) -> Answer<api::VersionResponse> {
        Ok(Response::new(api::VersionResponse {
            version: KUBE_API_VERSION.into(),
            runtime_name: "hull".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: CRI_VERSION.into(),
        }))
    }

    async fn status(&self, request: Request<api::StatusRequest>) -> Answer<api::StatusResponse> {
        let node = Arc::clone(&self.node);
        let images = Arc::clone(&self.node.images);
        let (network, writable) = tokio::join!(
            blocking(move || network_status::check(&node)),
            blocking(move || images.check_writable()),
        );
        let network = condition("NetworkReady", network);
        // Not the runtime's readiness: for that a kubelet would evict what runs here, and runs on.
        let data_dir = condition(
            "DataDirWritable",
            writable.map(|()| String::new()).map_err(|err| {
                let hint = err.hint().map_or(String::new(), |hint| format!(" (hint: {hint})"));
                format!("cannot {}{hint}", crate::error::Chain(&err))
            }),
        );
        let features = api::RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: self.node.user_namespaces.is_ok(),
        };
        let of_handler = |name| api::RuntimeHandler { name, features: Some(features) };
        let handlers = handler::names(&self.node.config.current());
        let info = if request.into_inner().verbose { self.info() } else { HashMap::new() };
        Ok(Response::new(api::StatusResponse {
            status: Some(api::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", Ok(String::new())), network, data_dir],
            }),
            info,
            runtime_handlers: handlers.into_iter().map(of_handler).collect(),
            features: Some(api::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: self.node.user_namespaces.is_ok(),
                mount_options: true,
            }),
        }))
    }

    async fn runtime_config(
        &self,
        _: Request<api::RuntimeConfigRequest>,
    ) -> Answer<api::RuntimeConfigResponse> {
        let systemd = self.node.driver.is_systemd();
        let driver = if systemd { api::CgroupDriver::Systemd } else { api::CgroupDriver::Cgroupfs };
        let linux = api::LinuxRuntimeConfiguration { cgroup_driver: driver as i32 };
        Ok(Response::new(api::RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<api::RunPodSandboxRequest>,
    ) -> Answer<api::RunPodSandboxResponse> {
        self.run_pod(request.into_inner()).await.map(Response::new)
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<api::StopPodSandboxRequest>,
    ) -> Answer<api::StopPodSandboxResponse> {
        self.stop_pod(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(api::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<api::RemovePodSandboxRequest>,
    ) -> Answer<api::RemovePodSandboxResponse> {
        self.remove_pod(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(api::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<api::PodSandboxStatusRequest>,
    ) -> Answer<api::PodSandboxStatusResponse> {
        self.pod_status(&request.into_inner()).await.map(Response::new)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<api::ListPodSandboxRequest>,
    ) -> Answer<api::ListPodSandboxResponse> {
        let items = self.list_pods(request.into_inner().filter.as_ref());
        Ok(Response::new(api::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<api::CreateContainerRequest>,
    ) -> Answer<api::CreateContainerResponse> {
        let container_id = self.create(request.into_inner()).await?;
        Ok(Response::new(api::CreateContainerResponse { container_id }))
    }

    async fn start_container(
        &self,
        request: Request<api::StartContainerRequest>,
    ) -> Answer<api::StartContainerResponse> {
        self.start(&request.into_inner().container_id).await?;
        Ok(Response::new(api::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<api::StopContainerRequest>,
    ) -> Answer<api::StopContainerResponse> {
        let api::StopContainerRequest { container_id, timeout } = request.into_inner();
        self.stop(&container_id, timeout).await?;
        Ok(Response::new(api::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<api::RemoveContainerRequest>,
    ) -> Answer<api::RemoveContainerResponse> {
        self.remove(&request.into_inner().container_id).await?;
        Ok(Response::new(api::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<api::ListContainersRequest>,
    ) -> Answer<api::ListContainersResponse> {
        let containers = self.list_containers_by(request.into_inner().filter.as_ref());
        Ok(Response::new(api::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<api::ContainerStatusRequest>,
    ) -> Answer<api::ContainerStatusResponse> {
        self.container_status_of(request.into_inner()).await.map(Response::new)
    }

    async fn update_container_resources(
        &self,
        request: Request<api::UpdateContainerResourcesRequest>,
    ) -> Answer<api::UpdateContainerResourcesResponse> {
        self.update(request.into_inner()).await?;
        Ok(Response::new(api::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<api::ReopenContainerLogRequest>,
    ) -> Answer<api::ReopenContainerLogResponse> {
        self.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(api::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(
        &self,
        request: Request<api::ExecSyncRequest>,
    ) -> Answer<api::ExecSyncResponse> {
        self.exec(request.into_inner()).await
    }

    async fn container_stats(
        &self,
        request: Request<api::ContainerStatsRequest>,
    ) -> Answer<api::ContainerStatsResponse> {
        let stats = self.stats_of(&request.into_inner().container_id).await?;
        Ok(Response::new(api::ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<api::ListContainerStatsRequest>,
    ) -> Answer<api::ListContainerStatsResponse> {
        let stats = self.list_stats(request.into_inner().filter).await?;
        Ok(Response::new(api::ListContainerStatsResponse { stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<api::PodSandboxStatsRequest>,
    ) -> Answer<api::PodSandboxStatsResponse> {
        let stats = self.pod_stats(&request.into_inner().pod_sandbox_id).await?;
        Ok(Response::new(api::PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<api::ListPodSandboxStatsRequest>,
    ) -> Answer<api::ListPodSandboxStatsResponse> {
        let stats = self.list_pod_stats(request.into_inner().filter).await?;
        Ok(Response::new(api::ListPodSandboxStatsResponse { stats }))
    }

    async fn exec(&self, request: Request<api::ExecRequest>) -> Answer<api::ExecResponse> {
        let url = self.exec_url(request.into_inner())?;
        Ok(Response::new(api::ExecResponse { url }))
    }

    async fn attach(&self, request: Request<api::AttachRequest>) -> Answer<api::AttachResponse> {
        let url = self.attach_url(request.get_ref())?;
        Ok(Response::new(api::AttachResponse { url }))
    }

    async fn port_forward(
        &self,
        request: Request<api::PortForwardRequest>,
    ) -> Answer<api::PortForwardResponse> {
        let url = self.port_forward_url(request.get_ref())?;
        Ok(Response::new(api::PortForwardResponse { url }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<api::UpdateRuntimeConfigRequest>,
    ) -> Answer<api::UpdateRuntimeConfigResponse> {
        self.set_pod_cidr(request.into_inner()).await?;
        Ok(Response::new(api::UpdateRuntimeConfigResponse {}))
    }

    async fn checkpoint_container(
        &self,
        request: Request<api::CheckpointContainerRequest>,
    ) -> Answer<api::CheckpointContainerResponse> {
        self.checkpoint(request.into_inner()).await?;
        Ok(Response::new(api::CheckpointContainerResponse {}))
    }

    async fn checkpoint_pod(
        &self,
        _: Request<api::CheckpointPodRequest>,
    ) -> Answer<api::CheckpointPodResponse> {
        Err(status::no_pod_checkpoints("checkpoint the pod"))
    }

    async fn restore_pod(
        &self,
        _: Request<api::RestorePodRequest>,
    ) -> Answer<api::RestorePodResponse> {
        Err(status::no_pod_checkpoints("restore the pod"))
    }

    async fn get_container_events(
        &self,
        _: Request<api::GetEventsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::ContainerEventResponse>> {
        let reading = self.node.events.read();
        Ok(Response::new(super::events::stream(Arc::clone(&self.node), reading)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<api::ListMetricDescriptorsRequest>,
    ) -> Answer<api::ListMetricDescriptorsResponse> {
        let descriptors = crate::observe::metrics::descriptors();
        Ok(Response::new(api::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<api::ListPodSandboxMetricsRequest>,
    ) -> Answer<api::ListPodSandboxMetricsResponse> {
        let pod_metrics = self.list_pod_metrics().await?;
        Ok(Response::new(api::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<api::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<api::UpdatePodSandboxResourcesResponse> {
        self.resize_pod(request.into_inner()).await?;
        Ok(Response::new(api::UpdatePodSandboxResourcesResponse {}))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<api::StreamPodSandboxesRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamPodSandboxesResponse>> {
        let items = self.list_pods(request.into_inner().filter.as_ref());
        Ok(batched(items, |pod_sandboxes| api::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn stream_containers(
        &self,
        request: Request<api::StreamContainersRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamContainersResponse>> {
        let items = self.list_containers_by(request.into_inner().filter.as_ref());
        Ok(batched(items, |containers| api::StreamContainersResponse { containers }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<api::StreamContainerStatsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamContainerStatsResponse>> {
        let items = self.list_stats(request.into_inner().filter).await?;
        Ok(batched(items, |container_stats| api::StreamContainerStatsResponse { container_stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<api::StreamPodSandboxStatsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamPodSandboxStatsResponse>> {
        let items = self.list_pod_stats(request.into_inner().filter).await?;
        Ok(batched(items, |pod_sandbox_stats| api::StreamPodSandboxStatsResponse {
            pod_sandbox_stats,
        }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<api::StreamPodSandboxMetricsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<api::StreamPodSandboxMetricsResponse>> {
        let items = self.list_pod_metrics().await?;
        Ok(batched(items, |pod_sandbox_metrics| api::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        }))
    }
}

impl Cri {
    /// The kubelet's subnets for the built-in network: one, or one per family with a comma between.
    /// A kubelet that was given none sends nothing.
    async fn set_pod_cidr(&self, request: api::UpdateRuntimeConfigRequest) -> Result<(), Status> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        let text = network.unwrap_or_default().pod_cidr;
        let subnets = text.split(',').map(str::trim).filter(|subnet| !subnet.is_empty());
        let subnets: Result<Vec<ipnet::IpNet>, _> = subnets.map(str::parse).collect();
        let subnets = subnets.map_err(|_| {
            let shown: String = text.chars().take(100).collect();
            let why = format!("{shown:?} is not a subnet such as 10.244.1.0/24, or a list of them");
            status::invalid("runtime_config.network_config.pod_cidr", why)
        })?;
        if subnets.is_empty() {
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        let cidr = PodCidr { subnets };
        blocking(move || {
            node.network.set_pod_cidr(&cidr.subnets).map_err(|err| status::of_network(&err))?;
            let saved = node.settings.save(PodCidr::NAME, &cidr);
            saved.map_err(|source| status::of(Error::Store { source }))
        })
        .await
    }

    /// Verbose info of the node, as JSON by key.
    fn info(&self) -> HashMap<String, String> {
        let config = shown_config(&self.node.config.current(), self.node.driver.is_systemd());
        let version = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cgroup": format!("{:?}", self.node.cgroups.version()),
        });
        HashMap::from([("config".into(), config), ("hull".into(), version.to_string())])
    }
}

/// The configuration as JSON, without accounts in addresses: `crictl info` prints it, and people pass it on.
fn shown_config(config: &Config, is_systemd: bool) -> String {
    let mut config = serde_json::to_value(config.without_accounts()).unwrap_or_default();
    // Where containerd has it: minikube gives the kubelet the driver that it finds there.
    let options = serde_json::json!({"SystemdCgroup": is_systemd});
    if let Some(config) = config.as_object_mut() {
        let containerd = serde_json::json!({"runtimes": {"runc": {"options": options}}});
        config.insert("containerd".into(), containerd);
    }
    shown_json(&config.to_string()).into_owned()
}

fn condition(r#type: &str, state: Result<String, String>) -> api::RuntimeCondition {
    let (reason, message) = match &state {
        Ok(message) => (String::new(), message.clone()),
        Err(why) => {
            let reason = match r#type.strip_suffix("Ready") {
                Some(what) => format!("{what}NotReady"),
                None => format!("{type}False"),
            };
            (reason, why.clone())
        }
    };
    let message = shown(message, MESSAGE_BYTES_MAX);
    api::RuntimeCondition { r#type: r#type.into(), status: state.is_ok(), reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_info_shows_no_account_of_a_mirror() {
        let config = toml::from_str(
            "[[image.registry]]\nhost = \"docker.io\"\nmirrors = [\"https://me:hunter2@mirror.example/v2\"]\n",
        );
        let shown = shown_config(&config.unwrap(), true);
        assert!(!shown.contains("hunter2") && shown.contains("@mirror.example"), "{shown}");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let options = &shown["containerd"]["runtimes"]["runc"]["options"];
        assert_eq!(options["SystemdCgroup"], true);
    }
}
