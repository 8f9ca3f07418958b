// SPDX-License-Identifier: Apache-2.0
//! Blocking work, off the runtime's threads.

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Its events belong to who has it done.
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(done) => done,
        // The runtime only gives up blocking work when it is being dropped itself.
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}
