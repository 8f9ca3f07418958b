// SPDX-License-Identifier: Apache-2.0
//! Pods: what is recorded of one, what is shown of one, and the task that owns it.
//!
//! ```text
//! verb ──Command──▶ task (one per pod, the only writer) ──▶ record on disk, then the host
//!   ▲                 │ publishes
//!   └──── View ◀──────┘   status and lists read the view and never wait for the task
//! ```

pub(crate) mod driver;
pub(crate) mod files;
pub(crate) mod parts;
pub(crate) mod recover;
pub(crate) mod registry;
pub(crate) mod state;
pub(crate) mod task;

use crate::container::ContainerView;
use crate::error::{Error, Result};
use crate::limits::waits;
use hull_proto::id::{ContainerId, PodId};
use hull_proto::{cri, nri};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use state::State;

/// What is kept of a pod on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) id: String,
    /// As the kubelet asked for it.
    pub(crate) config: cri::PodSandboxConfig,
    /// RuntimeClass handler; empty is the native one.
    pub(crate) handler: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Path of the pod's cgroup below each hierarchy's root.
    pub(crate) cgroup: String,
    /// We made that cgroup, so we take it away.
    pub(crate) cgroup_is_ours: bool,
    pub(crate) state: State,
}

impl PodRecord {
    /// Uses the host's network?
    pub(crate) fn host_network(&self) -> bool {
        let node = cri::NamespaceMode::Node as i32;
        self.namespaces().is_some_and(|options| options.network == node)
    }

    /// `namespace/name`, as people call it.
    pub(crate) fn full_name(&self) -> String {
        let metadata = self.config.metadata.as_ref();
        metadata.map_or_else(String::new, |of| format!("{}/{}", of.namespace, of.name))
    }

    /// Has a user namespace of its own? Checked when it was asked for.
    pub(crate) fn id_maps(&self) -> Option<hull_plan::IdMaps> {
        crate::spec::userns::of_pod(&self.config).ok().flatten()
    }

    pub(crate) fn namespaces(&self) -> Option<&cri::NamespaceOption> {
        self.config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()
    }
}

/// What is shown of a pod. Published whole at every change.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) id: PodId,
    pub(crate) record: Arc<PodRecord>,
    /// But for those that are still being made.
    pub(crate) containers: BTreeMap<ContainerId, Arc<ContainerView>>,
    /// The ids of all images that its containers need, also of those that are being made.
    pub(crate) images: BTreeSet<String>,
    /// Why it could not be built; set before it disappears.
    pub(crate) failure: Option<Arc<Error>>,
    /// Speaks to its monitor, while there is one.
    pub(crate) client: Option<crate::monitors::Client>,
    /// Its record is gone: this is the last view of it.
    pub(crate) gone: bool,
}

impl View {
    /// Gets hold of the pause process, for what is read of the pod without waiting. One that has ended
    /// meanwhile is not held: there is nothing to read.
    pub(crate) async fn hold_pause(&self) {
        if let (Some(client), State::Ready { pause_pid, .. }) = (&self.client, &self.record.state)
            && !self.record.host_network()
            && !client.hangs()
        {
            // One that hangs does not keep the numbers of others.
            let held = tokio::time::timeout(waits::PAUSE_MAX, client.pause(*pause_pid)).await;
            if !matches!(held, Ok(Ok(_))) {
                tracing::debug!(pod = %self.id.short(), ?held, "pause process not held");
            }
        }
    }

    /// The pod's network namespace, when its pause process is held and runs.
    pub(crate) fn netns(&self) -> Option<std::os::fd::OwnedFd> {
        self.client.as_ref()?.known_pause()?.netns().ok()
    }
}

/// What a pod is to have in all, as the kubelet reckons it. It writes the pod's cgroup itself.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    pub(crate) overhead: Option<cri::LinuxContainerResources>,
    pub(crate) resources: Option<cri::LinuxContainerResources>,
}

/// Where the answer to a command goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What a pod's task can be asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Create {
        config: Box<cri::ContainerConfig>,
        reply: Reply<ContainerId>,
    },
    Start {
        id: ContainerId,
        reply: Reply<()>,
    },
    Stop {
        id: ContainerId,
        grace_s: u64,
        reply: Reply<()>,
    },
    Remove {
        id: ContainerId,
        reply: Reply<()>,
    },
    Update {
        id: ContainerId,
        resources: Box<cri::LinuxContainerResources>,
        reply: Reply<()>,
    },
    /// Other limits, as a plugin asks for them.
    Limit {
        id: ContainerId,
        resources: Box<nri::LinuxResources>,
        reply: Reply<()>,
    },
    ReopenLog {
        id: ContainerId,
        reply: Reply<()>,
    },
    UpdatePod {
        sizes: Box<Sizes>,
        reply: Reply<()>,
    },
    StopPod {
        reply: Reply<()>,
    },
    RemovePod {
        reply: Reply<()>,
    },
}

/// A handle on a pod's task.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: PodId,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
}

impl Pod {
    /// What is shown of it now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Waits until it is built; or could not be, and is taken away again.
    pub(crate) async fn built(&self) -> Result<()> {
        let settled = |view: &Arc<View>| {
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
        let runs = |view: &Arc<View>| {
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
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
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
