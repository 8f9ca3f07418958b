// SPDX-License-Identifier: Apache-2.0
//! How the start of one more pod grows with the number of those that are up.

use crate::Result;
use crate::samples::Sink;
use crate::size::Size;
use crate::target::{Network, Target, timed};

pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let mut pods = Vec::new();
    for &count in &size.growth_at {
        // The one more is the last of `count`.
        target.fill(&mut pods, count.saturating_sub(1)).await?;
        for _ in 0..size.growth_lives {
            let name = format!("pod up as number {count}");
            let up = timed(sink, &name, target.up(Network::Pod)).await?;
            target.down(&up).await?;
        }
    }
    Ok(())
}
