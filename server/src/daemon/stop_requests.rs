// SPDX-License-Identifier: Apache-2.0
//! SIGTERM and SIGINT, which end the daemon: the first one after the calls under way, the second one without them.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The number of requests so far.
#[derive(Debug, Clone)]
pub(super) struct StopRequests(watch::Receiver<u32>);

impl StopRequests {
    /// Counts the signals from now on.
    ///
    /// # Errors
    /// `sigaction(2)` fails.
    pub(super) fn listen() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let (counter, count) = watch::channel(0_u32);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                counter.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Ok(Self(count))
    }

    /// Waits until the daemon was asked to end `count` times. Cancel safe.
    pub(super) async fn wait_for(&mut self, count: u32) {
        if self.0.wait_for(|so_far| *so_far >= count).await.is_err() {
            // The task that counts ends with the runtime.
            std::future::pending::<()>().await;
        }
    }
}
