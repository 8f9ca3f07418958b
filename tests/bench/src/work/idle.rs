// SPDX-License-Identifier: Apache-2.0
//! CPU time that a runtime uses while pods are up and nobody asks it anything.

use crate::samples::{Sink, Unit};
use crate::size::Size;
use crate::target::Target;
use crate::{Error, Result};
use std::time::{Duration, Instant};

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let mut pods = Vec::new();
    target.fill(&mut pods, size.idle_pods).await?;
    let missing = || Error::Option { option: "--cgroup" };
    let before = target.cpu()?.ok_or_else(missing)?;
    let (began, all) = (Instant::now(), Duration::from_secs(size.idle_s));
    // Time passing is what is measured here.
    let _over = tokio::time::timeout(all, std::future::pending::<()>()).await;
    let spent = target.cpu()?.ok_or_else(missing)?.saturating_sub(before);
    let share = spent.as_secs_f64() / began.elapsed().as_secs_f64() * 1e3;
    sink.add(&format!("CPU while {} pods idle", size.idle_pods), Unit::CpuPerMille, share);
    Ok(())
}
