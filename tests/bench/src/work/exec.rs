// SPDX-License-Identifier: Apache-2.0
//! ExecSync of `true`, as a probe does, with many pods up: in one pod after the other, and eight at a
//! time.

use crate::Result;
use crate::samples::Sink;
use crate::size::Size;
use crate::target::{AT_ONCE, RunningPod, Target, timed};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::time::{Duration, Instant};

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let mut pods = Vec::new();
    target.fill(&mut pods, size.exec_pods).await?;
    let in_turn = || pods.iter().cycle().take(size.execs);
    // The first exec of a pod may make what later ones find.
    for up in &pods {
        target.exec(&up.container, &["true"]).await?;
    }
    let before = target.cpu()?;
    for up in in_turn() {
        timed(sink, "ExecSync true", target.exec(&up.container, &["true"])).await?;
    }
    if let (Some(before), Some(after)) = (before, target.cpu()?) {
        sink.cpu("CPU per ExecSync", Some(after.saturating_sub(before)), size.execs as f64);
    }
    let execs = stream::iter(in_turn()).map(|up| one(target, up));
    let took: Vec<Duration> = execs.buffer_unordered(AT_ONCE).try_collect().await?;
    for took in took {
        sink.ms("ExecSync true, 8 at once", took);
    }
    Ok(())
}

async fn one(target: &Target, up: &RunningPod) -> Result<Duration> {
    let began = Instant::now();
    target.exec(&up.container, &["true"]).await?;
    Ok(began.elapsed())
}
