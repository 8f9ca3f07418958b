// SPDX-License-Identifier: Apache-2.0
//! The part of a pod's task that builds the pod, and monitor_events that its sandbox ended by itself.

use super::data::Task;
use super::result::WorkResult;
use super::teardown_state::NriVisibility;
use super::timeline::stage;
use crate::diagnostics::ending;
use crate::error::{Chain, Error};
use crate::history::timed;
use crate::node::now_ns;
use crate::nri::verbs;
use crate::pod::state::Event;
use crate::pod::{self, State, setup};
use hull_proto::nri;
use std::sync::Arc;
use tracing::{info, warn};

impl Task {
    pub(super) fn build(&mut self) {
        self.begin_timeline();
        let (node, id, record) =
            (Arc::clone(&self.node), self.id.clone(), Arc::clone(&self.record));
        let monitor_events = self.monitor_events_in.clone();
        let plugins = self.node.plugins.current();
        let panicked =
            |err| WorkResult::Built(Err(pod::Error::Internal { source: Box::new(err) }), plugins);
        self.work.spawn("build the pod", panicked, async move {
            let built = setup::setup(&node, &id, &record, monitor_events).await;
            let plugin_set = node.plugins.current();
            let built = match built {
                Ok(up) => {
                    let called = verbs::run_pod(&plugin_set, &record, &up);
                    let called = if plugin_set.is_subscribed(nri::Event::RunPodSandbox) {
                        let part = (stage::START_POD, "plugins");
                        timed(&node.history, id.as_str(), part, called).await
                    } else {
                        called.await
                    };
                    called.map(|()| up)
                }
                Err(source) => Err(source),
            };
            WorkResult::Built(built, plugin_set)
        });
    }

    pub(super) async fn built(&mut self, up: setup::Sandbox) {
        self.nri = NriVisibility::Running;
        self.client = Some(up.client);
        self.end_stage(stage::START_POD, None);
        if !matches!(self.record.state, State::Building) {
            // Stopped while it was being built.
            self.tear_down().await;
            return;
        }
        self.transition(&Event::Built { pause_pid: up.pause_pid, ips: up.ips }).await;
        info!(took_ms = self.began.elapsed().as_millis(), "pod ready");
    }

    pub(super) async fn build_failed(&mut self, source: pod::Error) {
        warn!(error = %Chain(&source), "pod could not be built");
        // If one plugin refused it, others may have seen it.
        if matches!(source, pod::Error::Plugins { .. }) {
            self.nri = NriVisibility::Running;
        }
        let failure = Error::Parts { doing: "build", source };
        self.record_build_failure(&failure);
        self.failure = Some(Arc::new(failure));
        self.transition(&Event::BuildFailed).await;
        // Nobody can request the removal of a pod whose id was never returned.
        self.tear_down().await;
    }

    /// The sandbox ended by itself: what is left of the pod is removed, and the kubelet sees it NOTREADY.
    pub(super) async fn lost_sandbox(&mut self) {
        self.node.history.end(self.id.as_str(), ending::of_lost_sandbox(now_ns()));
        self.transition(&Event::SandboxLost).await;
        if self.client.is_none() {
            self.lose_containers().await;
        }
        self.tear_down().await;
    }
}
