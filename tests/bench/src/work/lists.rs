// SPDX-License-Identifier: Apache-2.0
//! Lists and statistics of all pods, which a kubelet requests every second to ten seconds, and their CPU time.

use crate::Result;
use crate::error::verb;
use crate::samples::Sink;
use crate::size::Size;
use crate::target::{AT_ONCE, Network, RunningPod, Target, timed};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hull_proto::cri as api;

/// Containers of a pod where they are many.
const PER_POD: usize = 10;
/// RunningPod to here every container has a pod of its own.
const ALONE_MAX: usize = 50;

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let mut pods: Vec<RunningPod> = Vec::new();
    let mut containers = 0;
    for &count in &size.lists_at {
        let wanted_pods = if count <= ALONE_MAX { count } else { count.div_ceil(PER_POD) };
        let had = pods.len();
        target.fill(&mut pods, wanted_pods).await?;
        containers += pods.len() - had;
        more_containers(target, &pods, &mut containers, count).await?;
        for verb in ListVerb::ALL {
            ask(target, size, verb, count, sink).await?;
        }
    }
    Ok(())
}

/// Adds containers to the pods until there are `wanted`.
async fn more_containers(
    target: &Target,
    pods: &[RunningPod],
    containers: &mut usize,
    wanted: usize,
) -> Result<()> {
    let missing = wanted.saturating_sub(*containers);
    let starts = stream::iter(pods.iter().cycle().take(missing).enumerate()).map(
        |(number, up)| async move {
            let config = target.idle(&format!("more-{wanted}-{number}"), Network::Pod);
            let made = target.create(&up.pod, config).await?;
            target.start(&made).await
        },
    );
    starts.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    *containers += missing;
    Ok(())
}

#[derive(Clone, Copy)]
enum ListVerb {
    Containers,
    Pods,
    ContainerStats,
    PodStats,
}

impl ListVerb {
    const ALL: [Self; 4] = [Self::Containers, Self::Pods, Self::ContainerStats, Self::PodStats];

    fn name(self) -> &'static str {
        match self {
            Self::Containers => "ListContainers",
            Self::Pods => "ListPodSandbox",
            Self::ContainerStats => "ListContainerStats",
            Self::PodStats => "ListPodSandboxStats",
        }
    }

    /// How many are in the answer.
    async fn ask(self, target: &Target) -> Result<usize> {
        let mut runtime = target.cri.runtime.clone();
        let failed = verb(self.name());
        let length = match self {
            Self::Containers => {
                let request = api::ListContainersRequest::default();
                runtime.list_containers(request).await.map(|got| got.into_inner().containers.len())
            }
            Self::Pods => {
                let request = api::ListPodSandboxRequest::default();
                runtime.list_pod_sandbox(request).await.map(|got| got.into_inner().items.len())
            }
            Self::ContainerStats => {
                let request = api::ListContainerStatsRequest::default();
                runtime.list_container_stats(request).await.map(|got| got.into_inner().stats.len())
            }
            Self::PodStats => {
                let request = api::ListPodSandboxStatsRequest::default();
                runtime
                    .list_pod_sandbox_stats(request)
                    .await
                    .map(|got| got.into_inner().stats.len())
            }
        };
        length.map_err(failed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
async fn ask(
    target: &Target,
    size: &Size,
    asked: ListVerb,
    count: usize,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let name = format!("{}, {count} containers", asked.name());
    let before = target.cpu()?;
    for _ in 0..size.lists {
        let length = timed(sink, &name, asked.ask(target)).await?;
        if length == 0 {
            return Err(crate::Error::Answer { verb: asked.name(), what: "anything" });
        }
    }
    if let (Some(before), Some(after)) = (before, target.cpu()?) {
        let spent = Some(after.saturating_sub(before));
        sink.cpu(&format!("CPU per {name}"), spent, size.lists as f64);
    }
    Ok(())
}
