// SPDX-License-Identifier: Apache-2.0
//! The handle on a pod's task: sends it commands, and reads the snapshot that it publishes.

use super::command::{Command, Reply, Requested};
use super::snapshot::PodSnapshot;
use super::state::State;
use crate::error::{Error, Result};
use crate::tracer;
use hull_proto::id::{ContainerId, PodId};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// A handle on a pod's task.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: PodId,
    pub(super) commands: mpsc::Sender<Requested>,
    pub(super) view: watch::Receiver<Arc<PodSnapshot>>,
}

impl Pod {
    /// The current snapshot of the pod.
    pub(crate) fn view(&self) -> Arc<PodSnapshot> {
        Arc::clone(&self.view.borrow())
    }

    /// Waits until its setup has succeeded, or has failed and everything of it is removed.
    pub(crate) async fn built(&self) -> Result<()> {
        let settled = |view: &Arc<PodSnapshot>| {
            view.failure.is_some()
                || matches!(view.record.state, State::Ready { .. } | State::Stopped)
        };
        let mut view = self.view.clone();
        match view.wait_for(settled).await {
            Ok(view) => match (&view.failure, view.record.state.is_ready()) {
                (Some(failure), _) => Err(Arc::clone(failure)),
                (None, true) => Ok(()),
                (None, false) => Err(Arc::new(Error::WrongState {
                    verb: "start",
                    kind: "pod",
                    id: self.id.to_string(),
                    state: view.record.state.name(),
                })),
            },
            Err(_) => Err(gone()),
        }
    }

    /// Waits until the container does not run any more.
    pub(crate) async fn container_ended(&self, id: &ContainerId) {
        use crate::container::State;
        let mut view = self.view.clone();
        let runs = |view: &Arc<PodSnapshot>| {
            let container = view.containers.get(id);
            container.is_some_and(|of| matches!(of.record.state, State::Running { .. }))
        };
        // A task that is gone has taken its containers away.
        let _gone = view.wait_for(|view| !runs(view)).await;
    }

    /// Waits until it no longer is ready.
    pub(crate) async fn stopped(&self) {
        let mut view = self.view.clone();
        // A task that is gone has taken its pod away.
        let _gone = view.wait_for(|view| !view.record.state.is_ready()).await;
    }

    /// Hands a command to the task and waits for its answer.
    pub(crate) async fn request<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let requested = Requested { command: command(reply), span: tracer::current() };
        self.commands.send(requested).await.map_err(|_| gone())?;
        answer.await.map_err(|_| if self.commands.is_closed() { gone() } else { panicked() })?
    }
}

/// The work that had to answer ended without an answer, while its pod lives.
fn panicked() -> Arc<Error> {
    Arc::new(Error::Internal { what: "the work for this request panicked".into() })
}

fn gone() -> Arc<Error> {
    Arc::new(Error::NotFound { kind: "pod", id: "just removed".into() })
}
