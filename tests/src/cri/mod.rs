// SPDX-License-Identifier: Apache-2.0
//! A CRI client with the helpers that tests want. What a kubelet would send is filled in; a test
//! changes the messages it cares about.
//!
//! Errors of verbs are returned as they came, because many tests are about them. Helpers that do
//! several verbs panic.

mod config;
mod log;

pub use config::{
    container, idle, image, mount, own_namespaces, pod_namespaces, pod_security, resources,
    security, shell,
};
pub use log::{LogLine, read_log, text};

use crate::eventually::{eventually, with_long_timeout};
use crate::expect::ExpectExt;
use hull_proto::admin::hull_client::HullClient;
use hull_proto::cri::image_service_client::ImageServiceClient;
use hull_proto::cri::runtime_service_client::RuntimeServiceClient;
use hull_proto::cri::{self as api, ContainerConfig, ContainerState, PodSandboxConfig};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

/// Longest answer read: more than any list of a test.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Longest that a verb may take before the test gives up on it.
const VERB_MAX: Duration = Duration::from_secs(60);
/// Its number in the kernel's masks.
const SIGTERM: u32 = 15;

/// The result of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The two CRI services and Hull's own, over one socket.
#[derive(Debug, Clone)]
pub struct Cri {
    /// Client of CRI's RuntimeService.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Client of CRI's ImageService.
    pub image: ImageServiceClient<Channel>,
    /// Client of Hull's own service.
    pub admin: HullClient<Channel>,
    logs: PathBuf,
    pods: Arc<Mutex<HashMap<String, PodSandboxConfig>>>,
}

impl Cri {
    /// A client of the daemon at `socket`; it connects at the first call, and again after a restart.
    /// `logs` is where pods get their log directories.
    #[must_use]
    pub fn at(socket: &Path, logs: &Path) -> Self {
        let channel = channel(socket);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            image: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            admin: HullClient::new(channel),
            logs: logs.to_owned(),
            pods: Arc::default(),
        }
    }

    /// The config of a pod called `name`, as a kubelet sends it.
    #[must_use]
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        // Pods of one name in a row have directories of their own, as kubelets give them by uid.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-of-{name}"),
                namespace: "tests".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.logs.join(format!("{name}-{number}")).display().to_string(),
            linux: Some(api::LinuxPodSandboxConfig {
                security_context: Some(api::LinuxSandboxSecurityContext {
                    namespace_options: Some(own_namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Runs a pod with defaults.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn run_pod(&self, name: &str) -> Result<String, Status> {
        self.run_pod_with(self.pod_config(name)).await
    }

    /// Runs a pod.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn run_pod_with(&self, config: PodSandboxConfig) -> Result<String, Status> {
        self.run_pod_by("", config).await
    }

    /// Runs a pod by the runtime handler with this name.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn run_pod_by(
        &self,
        handler: &str,
        config: PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = api::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.into(),
        };
        let id = self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), config);
        Ok(id)
    }

    /// Stops a pod.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn stop_pod(&self, pod: &str) -> Result<(), Status> {
        let request = api::StopPodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().stop_pod_sandbox(request).await.map(drop)
    }

    /// Removes a pod.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn remove_pod(&self, pod: &str) -> Result<(), Status> {
        let request = api::RemovePodSandboxRequest { pod_sandbox_id: pod.into() };
        self.runtime.clone().remove_pod_sandbox(request).await.map(drop)
    }

    /// A pod's status, with its verbose info.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn pod_status(&self, pod: &str) -> Result<api::PodSandboxStatusResponse, Status> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
        Ok(self.runtime.clone().pod_sandbox_status(request).await?.into_inner())
    }

    /// The address of a pod.
    pub async fn pod_ip(&self, pod: &str) -> String {
        let status = self.pod_status(pod).await.or_fail("get the pod's status").status;
        status.and_then(|status| status.network).or_fail("find the pod's address").ip
    }

    /// Lists all pods.
    pub async fn pods(&self) -> Vec<api::PodSandbox> {
        let listed =
            self.runtime.clone().list_pod_sandbox(api::ListPodSandboxRequest::default()).await;
        listed.or_fail("list pods").into_inner().items
    }

    /// Creates a container; its image must be there.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn create(&self, pod: &str, config: ContainerConfig) -> Result<String, Status> {
        let of_pod = self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(pod).cloned();
        let request = api::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: of_pod,
        };
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn start(&self, container: &str) -> Result<(), Status> {
        let request = api::StartContainerRequest { container_id: container.into() };
        self.runtime.clone().start_container(request).await.map(drop)
    }

    /// Stops a container, with so many seconds before it is killed.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn stop(&self, container: &str, grace_s: i64) -> Result<(), Status> {
        let request =
            api::StopContainerRequest { container_id: container.into(), timeout: grace_s };
        self.runtime.clone().stop_container(request).await.map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn remove(&self, container: &str) -> Result<(), Status> {
        let request = api::RemoveContainerRequest { container_id: container.into() };
        self.runtime.clone().remove_container(request).await.map(drop)
    }

    /// A container's status, with its verbose info.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn inspect(&self, container: &str) -> Result<api::ContainerStatusResponse, Status> {
        let request = api::ContainerStatusRequest { container_id: container.into(), verbose: true };
        Ok(self.runtime.clone().container_status(request).await?.into_inner())
    }

    /// A container's status.
    pub async fn status(&self, container: &str) -> api::ContainerStatus {
        self.inspect(container)
            .await
            .or_fail("get a container's status")
            .status
            .or_fail("read a container's status")
    }

    /// The process id of a container's first process, from the verbose info as crictl users read it.
    pub async fn pid(&self, container: &str) -> i32 {
        let info = self.inspect(container).await.or_fail("get a container's status").info;
        let info = info.get("info").or_fail("find `info` in the verbose status");
        let info: serde_json::Value = serde_json::from_str(info).or_fail("read the verbose status");
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.or_fail(format!("find a pid in {info}"))
    }

    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn exec(&self, container: &str, command: &[&str]) -> Result<Exec, Status> {
        self.exec_for(container, command, 30).await
    }

    /// Runs a command in a container, with a timeout in seconds.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn exec_for(
        &self,
        container: &str,
        command: &[&str],
        timeout_s: i64,
    ) -> Result<Exec, Status> {
        let request = api::ExecSyncRequest {
            container_id: container.into(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: timeout_s,
        };
        let ran = self.runtime.clone().exec_sync(request).await?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Exec { code: ran.exit_code, stdout: text(&ran.stdout), stderr: text(&ran.stderr) })
    }

    /// Pulls an image without an account.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn pull(&self, reference: &str) -> Result<String, Status> {
        self.pull_as(reference, None).await
    }

    /// Pulls an image.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn pull_as(
        &self,
        reference: &str,
        auth: Option<api::AuthConfig>,
    ) -> Result<String, Status> {
        let request =
            api::PullImageRequest { image: Some(image(reference)), auth, ..Default::default() };
        Ok(self.image.clone().pull_image(request).await?.into_inner().image_ref)
    }

    /// The image that goes by this name, if it is there.
    ///
    /// # Errors
    /// As the daemon answers.
    pub async fn image_status(&self, name: &str) -> Result<Option<api::Image>, Status> {
        let request = api::ImageStatusRequest { image: Some(image(name)), verbose: false };
        Ok(self.image.clone().image_status(request).await?.into_inner().image)
    }

    /// Pulls the image when it is missing, creates the container and starts it.
    pub async fn run(&self, pod: &str, config: ContainerConfig) -> String {
        let container = self.make(pod, config).await;
        self.start(&container).await.or_fail("start a container");
        container
    }

    /// Pulls the image when it is missing and creates the container.
    pub async fn make(&self, pod: &str, config: ContainerConfig) -> String {
        let name = config.image.clone().unwrap_or_default().image;
        if self.image_status(&name).await.or_fail("look for an image").is_none() {
            let _id = self.pull(&name).await.or_fail(format!("pull {name}"));
        }
        self.create(pod, config).await.or_fail("create a container")
    }

    /// Runs [`idle`] and waits until it can be stopped.
    pub async fn run_idle(&self, pod: &str, name: &str, of_image: &str) -> String {
        let container = self.run(pod, idle(name, of_image)).await;
        self.catches_term(&container).await;
        container
    }

    /// Waits until a container's first process can be stopped: as first of its pid namespace it is
    /// deaf to SIGTERM as long as it has not set its trap.
    pub async fn catches_term(&self, container: &str) {
        let path = format!("/proc/{}/status", self.pid(container).await);
        eventually("the container catches SIGTERM", || async {
            let status = std::fs::read_to_string(&path).unwrap_or_default();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let mask = u64::from_str_radix(caught.unwrap_or_default().trim(), 16);
            let catches = mask.unwrap_or_default() & (1 << (SIGTERM - 1)) != 0;
            if catches { Ok(()) } else { Err(format!("{caught:?}")) }
        })
        .await;
    }

    /// Waits until a container has ended and gives its status.
    pub async fn ended(&self, container: &str) -> api::ContainerStatus {
        eventually("the container has ended", || async {
            let status = self.status(container).await;
            if status.state() == ContainerState::ContainerExited {
                Ok(status)
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await
    }

    /// Runs a container to its end: exit code and what it printed on both streams.
    pub async fn output(&self, pod: &str, config: ContainerConfig) -> Exec {
        let container = self.run(pod, config).await;
        let status = self.ended(&container).await;
        let logs = self.logs(&container).await;
        Exec {
            code: status.exit_code,
            stdout: text(&logs, "stdout"),
            stderr: text(&logs, "stderr"),
        }
    }

    /// A container's log so far.
    pub async fn logs(&self, container: &str) -> Vec<LogLine> {
        let path = self.status(container).await.log_path;
        read_log(Path::new(&path))
    }

    /// Waits until a container has printed `line` to its standard output. Any output at all is not enough: a
    /// program's complaint, or the first half of what it has to say, would pass for it.
    pub async fn prints(&self, container: &str, line: &str) {
        crate::eventually(format!("{container} prints {line:?}"), || async {
            let printed = text(&self.logs(container).await, "stdout");
            if printed.lines().any(|one| one == line) {
                Ok(())
            } else {
                Err(format!("{printed:?}"))
            }
        })
        .await;
    }

    /// Stops and removes every pod.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn remove_all_pods(&self) -> Result<(), Status> {
        for pod in self.pods().await {
            self.stop_pod(&pod.id).await?;
            self.remove_pod(&pod.id).await?;
        }
        Ok(())
    }
}

/// A connection to the daemon at `socket`, made at the first call and again after a restart.
#[must_use]
pub fn channel(socket: &Path) -> Channel {
    channel_for(socket, VERB_MAX)
}

/// The same, for calls that may take as long as `most`.
#[must_use]
pub fn channel_for(socket: &Path, most: Duration) -> Channel {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
    });
    // The address is never used: the connector above opens the socket.
    let endpoint = Endpoint::from_static("http://localhost").timeout(with_long_timeout(most));
    endpoint.connect_with_connector_lazy(connect)
}
