// SPDX-License-Identifier: Apache-2.0
//! Runs blocking work on the threads that tokio keeps for it.

use crate::error::Cause;

/// Runs `run` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, Cause> {
    // Its events belong to the pull that has it done.
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(run)).await.unwrap_or_else(|_| Err(ended()))
}

/// The error for a task that ended without a result: it panicked, or the runtime is shutting down.
pub(super) fn ended() -> Cause {
    Cause::Document {
        what: "a layer".into(),
        why: "the thread that unpacked it ended without a result".into(),
    }
}
