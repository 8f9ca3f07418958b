// SPDX-License-Identifier: Apache-2.0
//! Other limits for a container: as the kubelet wants them, after plugins had their say; or as a plugin
//! wants them.
//!
//! Set first when the container runs, all of them or none, and recorded then: what is shown is what holds. The
//! plugins' are recorded apart from the kubelet's; a container that is started later has both. The daemon writes
//! the cgroup itself, so that a monitor that hangs, or is of an older release, changes nothing about that.

use super::containers::{not_found, wrong_state};
use super::{Finished, Task, answer};
use crate::container::{self, State};
use crate::error::Error;
use crate::node::blocking;
use crate::nri::{self, resources};
use crate::pod::Reply;
use crate::spec;
use hull_nri::{Roster, overlay};
use hull_plan::Limits;
use hull_proto::cri;
use hull_proto::id::ContainerId;
use hull_proto::nri::{Event, LinuxResources};
use std::sync::Arc;

/// What is to be set.
#[derive(Debug)]
pub(super) struct Decision {
    /// What the kubelet asked for, as plugins left it.
    kubelets: cri::LinuxContainerResources,
    /// The same in the plugins' form, when they had a say.
    plugins: Option<LinuxResources>,
    limits: Limits,
    /// Who is told when it is done.
    roster: Option<Arc<Roster>>,
}

/// Without a plugin that hears of updates.
fn as_asked(
    asked: cri::LinuxContainerResources,
    roster: Arc<Roster>,
) -> std::result::Result<Box<Decision>, Error> {
    let limits = spec::limits(&asked).map_err(|source| Error::Spec { source })?;
    Ok(Box::new(Decision { kubelets: asked, plugins: None, limits, roster: Some(roster) }))
}

/// As plugins made it.
fn as_changed(
    asked: &cri::LinuxContainerResources,
    changed: LinuxResources,
    roster: Arc<Roster>,
) -> std::result::Result<Box<Decision>, Error> {
    let limits = resources::limits(&changed).map_err(|source| Error::Adjust { source })?;
    let mut kubelets = resources::to_cri(&changed);
    kubelets.oom_score_adj = asked.oom_score_adj;
    Ok(Box::new(Decision { kubelets, plugins: Some(changed), limits, roster: Some(roster) }))
}

impl Task {
    /// UpdateContainerResources: plugins are asked first.
    pub(super) fn update(
        &mut self,
        id: &ContainerId,
        asked: cri::LinuxContainerResources,
        reply: Reply<()>,
    ) {
        let roster = self.node.plugins.roster();
        let Some((waiter, about)) = self.begin_update(id, reply) else { return };
        if !roster.hears(Event::UpdateContainer) {
            return self.decided(id, waiter, as_asked(asked, roster));
        }
        let id = id.clone();
        self.work.spawn(async move {
            let decided = match about.update(&roster, &asked).await {
                Ok(Some((changed, plugins))) => {
                    as_changed(&asked, changed, roster).map_err(|err| err.asked_by(&plugins))
                }
                Ok(None) => as_asked(asked, roster),
                Err(refused) => Err(refused),
            };
            Finished::Decided(id, waiter, decided)
        });
    }

    /// A plugin wants it, without being asked. No plugin is asked or told about that.
    pub(super) fn limit(&mut self, id: &ContainerId, asked: LinuxResources, reply: Reply<()>) {
        let Some((waiter, _)) = self.begin_update(id, reply) else { return };
        let limits = resources::limits(&asked).map_err(|source| Error::Adjust { source });
        let decided = limits.map(|limits| {
            Box::new(Decision {
                kubelets: cri::LinuxContainerResources::default(),
                plugins: Some(asked),
                limits,
                roster: None,
            })
        });
        self.decided(id, waiter, decided);
    }

    /// Enters who waits, unless the container is not there to be updated.
    fn begin_update(
        &mut self,
        id: &ContainerId,
        reply: Reply<()>,
    ) -> Option<(u64, nri::verbs::About)> {
        let about = self.about(id);
        let (Some(about), Some(held)) = (about, self.containers.get_mut(id)) else {
            answer(Some(reply), Err(not_found(id)));
            return None;
        };
        if !matches!(held.record.state, State::Created | State::Running { .. }) {
            let err = wrong_state("update", id, &held.record.state);
            answer(Some(reply), Err(Arc::new(err)));
            return None;
        }
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        held.updating.insert(waiter, reply);
        Some((waiter, about))
    }

    /// Set when the container runs, and recorded.
    pub(super) fn decided(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        decided: std::result::Result<Box<Decision>, Error>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let decision = match decided {
            Ok(decision) => decision,
            Err(err) => return answer(held.updating.remove(&waiter), Err(Arc::new(err))),
        };
        let id = id.clone();
        if held.starting.is_some() {
            // What is on its way has the limits of its record. It is known soon whether it runs.
            let mut state = held.state.subscribe();
            self.work.spawn(async move {
                // One that is gone is found out by the next try.
                let _gone = state.wait_for(|state| *state != State::Created).await;
                Finished::Decided(id, waiter, Ok(decision))
            });
            return;
        }
        match &held.record.state {
            State::Created => self.updated(&id, waiter, decision, Ok(())),
            State::Running { .. } => {
                let (node, path) = (Arc::clone(&self.node), held.record.cgroup.clone());
                let turn = Arc::clone(&held.limits_turn);
                self.work.spawn(async move {
                    // One update after the other, or one could put back what another has set.
                    let _turn = turn.acquire().await;
                    let limits = decision.limits.clone();
                    let set = blocking(move || {
                        let cgroup = hull_cgroup::Cgroup::at(&node.cgroups, &path)?;
                        cgroup.update(&limits)
                    });
                    let set = set.await.map_err(|source| Error::SetLimits { source });
                    Finished::Updated(id, waiter, decision, set)
                });
            }
            state @ (State::Creating | State::Exited { .. } | State::Removing) => {
                let err = wrong_state("update", &id, state);
                answer(held.updating.remove(&waiter), Err(Arc::new(err)));
            }
        }
    }

    pub(super) fn updated(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        decision: Box<Decision>,
        result: std::result::Result<(), Error>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let reply = held.updating.remove(&waiter);
        let Decision { kubelets, plugins, roster, .. } = *decision;
        if result.is_ok() {
            let record = Arc::make_mut(&mut held.record);
            let linux = record.config.linux.get_or_insert_default();
            spec::merge_resources(linux.resources.get_or_insert_default(), &kubelets);
            if let Some(plugins) = plugins {
                let adjust = record.adjust.get_or_insert_default();
                let linux = adjust.linux.get_or_insert_default();
                overlay(linux.resources.get_or_insert_default(), &plugins);
            }
            held.execs = container::Execs::default();
            self.save_container(id);
            self.publish();
        }
        let result = result.map_err(Arc::new);
        match roster {
            Some(roster) => {
                let waiters = reply.into_iter().collect();
                self.tell_then_answer(id, roster, Event::PostUpdateContainer, waiters, result);
            }
            None => answer(reply, result),
        }
    }
}
