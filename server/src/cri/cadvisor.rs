// SPDX-License-Identifier: Apache-2.0
//! The methods by which cAdvisor finds the labels of a cgroup: three of containerd's, read only.
//!
//! The cAdvisor inside a kubelet knows no runtime by CRI. It asks the socket `/run/containerd/containerd.sock` about
//! every cgroup whose name contains 64 hexadecimal digits, as the cgroups of Hull's containers and pause processes do.
//! Where that path leads to Hull's socket, the series of `/metrics/cadvisor` have their labels, and `/stats/summary`
//! has the network of each pod, without `PodAndContainerStatsFromCRI`.

use super::service::Cri;
use super::status;
use crate::container::{ContainerSnapshot, State};
use crate::error::Error;
use crate::pod::{PodSnapshot, State as PodState};
use hull_proto::containerd::containers::{
    self, GetContainerRequest, GetContainerResponse, containers_server::Containers,
};
use hull_proto::containerd::tasks::{self, GetRequest, GetResponse, tasks_server::Tasks};
use hull_proto::containerd::version::{VersionRequest, VersionResponse, version_server::Version};
use hull_proto::id::ID_LEN;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The label by which cAdvisor knows the cgroup whose process has the pod's network.
const KIND: &str = "io.cri-containerd.kind";
/// The spec, of which cAdvisor reads the environment if it is to show variables.
const SPEC: &str = r#"{"process":{"env":[]}}"#;
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SECOND_NS: i64 = 1_000_000_000;

/// The object that an id names.
enum Named {
    Container(Arc<ContainerSnapshot>),
    Pod(Arc<PodSnapshot>),
}

impl Cri {
    fn named(&self, id: &str) -> Result<Named, Status> {
        // Whole ids only, as names of cgroups have them; CRI takes the beginning of one.
        if id.len() != ID_LEN {
            return Err(status::of(Error::NotFound { kind: "container", id: id.to_owned() }));
        }
        if let Some((found, pod)) = self.node.registry.container(id)
            && let Some(view) = pod.view().containers.get(&found)
        {
            return Ok(Named::Container(Arc::clone(view)));
        }
        Ok(Named::Pod(self.pod(id)?.view()))
    }
}

fn described(named: &Named) -> containers::Container {
    let (id, labels, kind, image, created_ns) = match named {
        Named::Container(view) => {
            let record = &view.record;
            let image = record.image_name();
            (&record.id, &record.config.labels, "container", image, record.created_ns)
        }
        Named::Pod(view) => {
            let record = &view.record;
            (&record.id, &record.config.labels, "sandbox", "", record.created_ns)
        }
    };
    let mut labels = labels.clone();
    labels.insert(KIND.into(), kind.into());
    containers::Container {
        id: id.clone(),
        labels,
        image: image.into(),
        spec: Some(containers::Any { type_url: SPEC_TYPE.into(), value: SPEC.into() }),
        created_at: Some(containers::Timestamp {
            seconds: created_ns.div_euclid(SECOND_NS),
            nanos: i32::try_from(created_ns.rem_euclid(SECOND_NS)).unwrap_or(0),
        }),
    }
}

/// Its process, once it was started: until then cAdvisor asks again.
fn process(named: &Named) -> Option<tasks::Process> {
    let (id, pid, status, exit_status) = match named {
        Named::Container(view) => match &view.record.state {
            State::Running { pid, .. } => (&view.record.id, *pid, tasks::Status::Running, 0),
            State::Exited { how, .. } => {
                (&view.record.id, 0, tasks::Status::Stopped, how.exit_code())
            }
            State::Creating | State::Created | State::Removing => return None,
        },
        Named::Pod(view) => match view.record.state {
            PodState::Ready { pause_pid, .. } => {
                (&view.record.id, pause_pid, tasks::Status::Running, 0)
            }
            PodState::Stopping | PodState::Stopped => {
                (&view.record.id, 0, tasks::Status::Stopped, 0)
            }
            PodState::Building => return None,
        },
    };
    Some(tasks::Process {
        container_id: id.clone(),
        id: id.clone(),
        pid: u32::try_from(pid).unwrap_or(0),
        status: status.into(),
        exit_status: u32::try_from(exit_status).unwrap_or(0),
    })
}

#[tonic::async_trait]
impl Version for Cri {
    async fn version(
        &self,
        _request: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        let version = concat!("hull-", env!("CARGO_PKG_VERSION")).into();
        Ok(Response::new(VersionResponse { version, revision: String::new() }))
    }
}

#[tonic::async_trait]
impl Containers for Cri {
    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let named = self.named(&request.into_inner().id)?;
        Ok(Response::new(GetContainerResponse { container: Some(described(&named)) }))
    }
}

#[tonic::async_trait]
impl Tasks for Cri {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let id = request.into_inner().container_id;
        let process = process(&self.named(&id)?);
        let process = process
            .ok_or_else(|| status::of(Error::NotFound { kind: "process of", id: id.clone() }))?;
        Ok(Response::new(GetResponse { process: Some(process) }))
    }
}
