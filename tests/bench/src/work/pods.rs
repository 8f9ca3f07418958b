// SPDX-License-Identifier: Apache-2.0
//! A pod's life, verb by verb: RunPodSandbox, CreateContainer, StartContainer; StopContainer by KILL,
//! RemoveContainer, StopPodSandbox, RemovePodSandbox. On the pods' own network also a stop by TERM.

use crate::Result;
use crate::error::verb;
use crate::samples::Sink;
use crate::size::Size;
use crate::target::{Network, Target, timed};
use hull_tests::cri::idle;
use std::time::Instant;

/// A grace period that no stop here uses up.
const GRACE_S: i64 = 30;

pub(super) async fn run(
    target: &Target,
    size: &Size,
    network: Network,
    sink: &mut Sink<'_>,
) -> Result<()> {
    // The first pod of all makes bridges and caches.
    target.down(&target.up(network).await?).await?;
    let before = target.cpu()?;
    for _ in 0..size.lives {
        life(target, network, sink).await?;
    }
    if let (Some(before), Some(after)) = (before, target.cpu()?) {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        sink.cpu("CPU per pod life", Some(after.saturating_sub(before)), size.lives as f64);
    }
    if network == Network::Pod {
        for _ in 0..size.lives {
            ended_by_term(target, sink).await?;
        }
    }
    Ok(())
}

async fn life(target: &Target, network: Network, sink: &mut Sink<'_>) -> Result<()> {
    let cri = &target.cri;
    let began = Instant::now();
    let pod = timed(sink, "RunPodSandbox", target.run_pod(network)).await?;
    let config = target.idle("main", network);
    let made = timed(sink, "CreateContainer", target.create(&pod, config)).await?;
    timed(sink, "StartContainer", target.start(&made)).await?;
    sink.ms("pod up", began.elapsed());

    let began = Instant::now();
    let stop = async { cri.stop(&made, 0).await.map_err(verb("StopContainer")) };
    timed(sink, "StopContainer by KILL", stop).await?;
    let remove = async { cri.remove(&made).await.map_err(verb("RemoveContainer")) };
    timed(sink, "RemoveContainer", remove).await?;
    let stop = async { cri.stop_pod(&pod).await.map_err(verb("StopPodSandbox")) };
    timed(sink, "StopPodSandbox", stop).await?;
    let remove = async { cri.remove_pod(&pod).await.map_err(verb("RemovePodSandbox")) };
    timed(sink, "RemovePodSandbox", remove).await?;
    sink.ms("pod down", began.elapsed());
    Ok(())
}

/// Stops a container whose process ends at once on SIGTERM.
async fn ended_by_term(target: &Target, sink: &mut Sink<'_>) -> Result<()> {
    let pod = target.run_pod(Network::Pod).await?;
    let mut config = target.idle("main", Network::Pod);
    config.command = idle("main", "").command;
    let made = target.create(&pod, config).await?;
    target.start(&made).await?;
    target.cri.catches_term(&made).await;
    let stop = async { target.cri.stop(&made, GRACE_S).await.map_err(verb("StopContainer")) };
    timed(sink, "StopContainer by TERM", stop).await?;
    target.cri.stop_pod(&pod).await.map_err(verb("StopPodSandbox"))?;
    target.cri.remove_pod(&pod).await.map_err(verb("RemovePodSandbox"))
}
