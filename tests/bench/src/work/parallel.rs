// SPDX-License-Identifier: Apache-2.0
//! Pods per second, up and down, with eight requests under way at any time.

use crate::Result;
use crate::samples::{Sink, Unit};
use crate::size::Size;
use crate::target::{AT_ONCE, Target};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::time::Instant;

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(super) async fn run(target: &Target, size: &Size, sink: &mut Sink<'_>) -> Result<()> {
    let mut pods = Vec::new();
    let began = Instant::now();
    target.fill(&mut pods, size.parallel).await?;
    sink.add(
        "pods up, 8 at once",
        Unit::PerSecond,
        size.parallel as f64 / began.elapsed().as_secs_f64(),
    );

    let began = Instant::now();
    let downs = stream::iter(&pods).map(|up| target.down(up));
    downs.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    sink.add(
        "pods down, 8 at once",
        Unit::PerSecond,
        size.parallel as f64 / began.elapsed().as_secs_f64(),
    );
    Ok(())
}
