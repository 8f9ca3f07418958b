// SPDX-License-Identifier: Apache-2.0
//! Work that a pod's task has handed out, and what its panic means.
//!
//! A panic is a bug, but it must not leave an operation in progress for ever: it becomes the result that the work
//! would have had if it had failed.

use super::result::WorkResult;
use crate::error::Error;
use std::collections::HashMap;
use tokio::task::{Id, JoinSet};
use tracing::{Instrument as _, error};

/// Makes a result of the error that stands for a panic.
type OnPanic = Box<dyn FnOnce(Error) -> WorkResult + Send + Sync>;

/// The work in progress.
#[derive(Default)]
pub(super) struct WorkSet {
    running: JoinSet<WorkResult>,
    on_panic: HashMap<Id, (&'static str, OnPanic)>,
}

impl WorkSet {
    /// Hands out `work`, which is the operation `doing`. If it panics, [`next`](Self::next) gives what `on_panic`
    /// makes of an internal error that names the operation.
    pub(super) fn spawn(
        &mut self,
        doing: &'static str,
        on_panic: impl FnOnce(Error) -> WorkResult + Send + Sync + 'static,
        work: impl Future<Output = WorkResult> + Send + 'static,
    ) {
        let id = self.running.spawn(work.in_current_span()).id();
        self.on_panic.insert(id, (doing, Box::new(on_panic)));
    }

    /// The next result; `None` while nothing is in progress.
    pub(super) async fn next(&mut self) -> Option<WorkResult> {
        match self.running.join_next_with_id().await? {
            Ok((id, result)) => {
                self.on_panic.remove(&id);
                Some(result)
            }
            Err(err) => {
                let (doing, on_panic) = self.on_panic.remove(&err.id())?;
                let what = format!("{doing} panicked");
                error!(error = %err, "{what}; this is a bug in hull");
                Some(on_panic(Error::Internal { what }))
            }
        }
    }
}

impl std::fmt::Debug for WorkSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let doing = self.on_panic.values().map(|(doing, _)| doing);
        f.debug_set().entries(doing).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod;

    #[tokio::test]
    async fn a_panic_is_the_failure_of_its_operation() {
        let mut work = WorkSet::default();
        let torn_down =
            |source| WorkResult::TornDown(Err(pod::Error::Internal { source: Box::new(source) }));
        work.spawn("tear down the pod", torn_down, async { panic!("a bug") });
        let Some(WorkResult::TornDown(Err(err))) = work.next().await else {
            panic!("the panic of a teardown is not its failure")
        };
        let text = crate::error::Chain(&err).to_string();
        assert!(text.contains("tear down the pod panicked"), "{text}");
        assert!(work.next().await.is_none() && work.on_panic.is_empty());
    }

    #[tokio::test]
    async fn a_panic_on_a_blocking_thread_is_no_different() {
        let mut work = WorkSet::default();
        let nothing = |_| WorkResult::Nothing;
        work.spawn("write a record", nothing, async {
            crate::storage::blocking(|| panic!("a bug")).await
        });
        assert!(matches!(work.next().await, Some(WorkResult::Nothing)));
    }
}
