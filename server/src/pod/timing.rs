// SPDX-License-Identifier: Apache-2.0
//! How long the parts of a setup or teardown take, for the log.

use std::time::Instant;

/// Does `work`, and logs at level debug how long this part took.
pub(super) async fn timed<T>(part: &'static str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    tracing::debug!(part, took_us = began.elapsed().as_micros(), "part done");
    done
}
