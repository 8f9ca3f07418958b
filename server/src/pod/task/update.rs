// SPDX-License-Identifier: Apache-2.0
//! Updates of a container's limits, requested by the kubelet (after NRI plugins) or by a plugin.
//!
//! If the container runs, all limits are set or none, and then recorded: the status shows the limits in force.
//! Limits of plugins are recorded separately from the kubelet's, and a later start applies both. The daemon writes
//! the cgroup itself, so a hung monitor, or one of an older release, makes no difference.

use super::containers::{not_found, wrong_state};
use super::data::{Task, answer};
use super::result::{Decision, WorkResult};
use crate::container::{self, State};
use crate::error::Error;
use crate::nri::{self, resources};
use crate::oci_spec;
use crate::pod::Reply;
use crate::storage::blocking;
use hull_nri::{PluginSet, overlay};
use hull_proto::cri;
use hull_proto::id::ContainerId;
use hull_proto::nri::{Event, LinuxResources};
use std::sync::Arc;

/// The decision if no plugin is subscribed to updates.
fn as_requested(
    requested: cri::LinuxContainerResources,
    plugin_set: Arc<PluginSet>,
) -> std::result::Result<Box<Decision>, Error> {
    let limits = oci_spec::limits(&requested).map_err(|source| Error::Spec { source })?;
    Ok(Box::new(Decision {
        kubelets: requested,
        plugins: None,
        limits,
        plugin_set: Some(plugin_set),
    }))
}

/// The decision after plugins changed the request.
fn as_changed(
    requested: &cri::LinuxContainerResources,
    changed: LinuxResources,
    plugin_set: Arc<PluginSet>,
) -> std::result::Result<Box<Decision>, Error> {
    let limits = resources::limits(&changed).map_err(|source| Error::Adjust { source })?;
    let mut kubelets = resources::to_cri(&changed);
    kubelets.oom_score_adj = requested.oom_score_adj;
    Ok(Box::new(Decision {
        kubelets,
        plugins: Some(changed),
        limits,
        plugin_set: Some(plugin_set),
    }))
}

impl Task {
    /// UpdateContainerResources: plugins are asked first.
    pub(super) async fn update(
        &mut self,
        id: &ContainerId,
        requested: cri::LinuxContainerResources,
        reply: Reply<()>,
    ) {
        let plugin_set = self.node.plugins.current();
        let Some((waiter, nri_context)) = self.begin_update(id, reply) else { return };
        if !plugin_set.is_subscribed(Event::UpdateContainer) {
            return self.decided(id, waiter, as_requested(requested, plugin_set)).await;
        }
        let (id, failed) = (id.clone(), id.clone());
        let panicked = move |err| WorkResult::UpdateDecided(failed, waiter, Err(err));
        self.work.spawn("call plugins about new limits", panicked, async move {
            let decided = match nri_context.update(&plugin_set, &requested).await {
                Ok(Some((changed, plugins))) => as_changed(&requested, changed, plugin_set)
                    .map_err(|err| err.asked_by(&plugins)),
                Ok(None) => as_requested(requested, plugin_set),
                Err(refused) => Err(refused),
            };
            WorkResult::UpdateDecided(id, waiter, decided)
        });
    }

    /// An update that a plugin requests on its own. Other plugins are neither called nor notified.
    pub(super) async fn limit(
        &mut self,
        id: &ContainerId,
        requested: LinuxResources,
        reply: Reply<()>,
    ) {
        let Some((waiter, _)) = self.begin_update(id, reply) else { return };
        let limits = resources::limits(&requested).map_err(|source| Error::Adjust { source });
        let decided = limits.map(|limits| {
            Box::new(Decision {
                kubelets: cri::LinuxContainerResources::default(),
                plugins: Some(requested),
                limits,
                plugin_set: None,
            })
        });
        self.decided(id, waiter, decided).await;
    }

    /// Adds the caller to those that wait, unless the container cannot be updated.
    fn begin_update(
        &mut self,
        id: &ContainerId,
        reply: Reply<()>,
    ) -> Option<(u64, nri::verbs::NriContext)> {
        let nri_context = self.nri_context(id);
        let (Some(nri_context), Some(entry)) = (nri_context, self.containers.get_mut(id)) else {
            answer(Some(reply), Err(not_found(id)));
            return None;
        };
        if !matches!(entry.record.state, State::Created | State::Running { .. }) {
            let err = wrong_state("update", id, &entry.record.state);
            answer(Some(reply), Err(Arc::new(err)));
            return None;
        }
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        entry.updates.waiters.insert(waiter, reply);
        Some((waiter, nri_context))
    }

    /// Sets the limits if the container runs, then records them.
    pub(super) async fn decided(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        decided: std::result::Result<Box<Decision>, Error>,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let decision = match decided {
            Ok(decision) => decision,
            Err(err) => return answer(entry.updates.waiters.remove(&waiter), Err(Arc::new(err))),
        };
        let id = id.clone();
        if entry.operation.is_starting() {
            // What is on its way has the limits of its record. It is known soon whether it runs.
            let mut state = entry.state.subscribe();
            let failed = id.clone();
            let panicked = move |err| WorkResult::UpdateDecided(failed, waiter, Err(err));
            self.work.spawn("wait for the start", panicked, async move {
                // One that is gone is found out by the next try.
                let _gone = state.wait_for(|state| *state != State::Created).await;
                WorkResult::UpdateDecided(id, waiter, Ok(decision))
            });
            return;
        }
        match &entry.record.state {
            State::Created => self.updated(&id, waiter, decision, Ok(())).await,
            State::Running { .. } => {
                let (node, path) = (Arc::clone(&self.node), entry.record.cgroup.clone());
                let turn = Arc::clone(&entry.updates.turn);
                let failed = id.clone();
                let panicked = move |err| WorkResult::UpdateDecided(failed, waiter, Err(err));
                let mut decision = decision;
                self.work.spawn("set the limits", panicked, async move {
                    // One update after the other, or one could put back what another has set.
                    let _turn = turn.acquire().await;
                    let limits = decision.limits.clone();
                    let score = decision.kubelets.oom_score_adj;
                    let set = blocking(move || {
                        let cgroup = hull_cgroup::Cgroup::at(&node.cgroups, &path)?;
                        cgroup.update(&limits)?;
                        if score == 0 {
                            Ok(true)
                        } else {
                            container::oom_score::set(&cgroup, score)
                        }
                    });
                    let set = set.await.map_err(|source| Error::SetLimits { source });
                    if matches!(set, Ok(false)) {
                        // What is recorded is what holds.
                        decision.kubelets.oom_score_adj = 0;
                    }
                    WorkResult::Updated(id, waiter, decision, set.map(drop))
                });
            }
            state @ (State::Creating | State::Exited { .. } | State::Removing) => {
                let err = wrong_state("update", &id, state);
                answer(entry.updates.waiters.remove(&waiter), Err(Arc::new(err)));
            }
        }
    }

    pub(super) async fn updated(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        decision: Box<Decision>,
        result: std::result::Result<(), Error>,
    ) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let reply = entry.updates.waiters.remove(&waiter);
        let Decision { kubelets, plugins, plugin_set, .. } = *decision;
        if result.is_ok() {
            let record = Arc::make_mut(&mut entry.record);
            let linux = record.config.linux.get_or_insert_default();
            oci_spec::merge_resources(linux.resources.get_or_insert_default(), &kubelets);
            if let Some(plugins) = plugins {
                let adjust = record.adjust.get_or_insert_default();
                let linux = adjust.linux.get_or_insert_default();
                overlay(linux.resources.get_or_insert_default(), &plugins);
            }
            entry.execs = container::ExecTemplate::default();
            self.save_container(id).await;
            self.publish();
        }
        let result = result.map_err(Arc::new);
        match plugin_set {
            Some(plugin_set) => {
                let waiters = reply.into_iter().collect();
                self.notify_then_answer(
                    id,
                    plugin_set,
                    Event::PostUpdateContainer,
                    waiters,
                    result,
                );
            }
            None => answer(reply, result),
        }
    }
}
