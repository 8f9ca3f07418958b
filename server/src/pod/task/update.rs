// SPDX-License-Identifier: Apache-2.0
//! Other limits for a container: as the kubelet wants them, after plugins had their say; or as a plugin
//! wants them.
//!
//! Recorded in both cases, the plugins' apart from the kubelet's, so that a container that is started
//! later has them too.

use super::containers::{not_found, wrong_state};
use super::{Finished, Task, answer};
use crate::container::{self, State};
use crate::error::Error;
use crate::nri::{self, resources};
use crate::pod::Reply;
use crate::spec;
use hull_nri::{Roster, overlay};
use hull_plan::Limits;
use hull_proto::cri;
use hull_proto::id::ContainerId;
use hull_proto::monitor::Verb;
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
                Ok(Some(changed)) => as_changed(&asked, changed, roster),
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

    /// Recorded, then done by the monitor when the container runs.
    pub(super) fn decided(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        decided: std::result::Result<Box<Decision>, Error>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let Decision { kubelets, plugins, limits, roster } = match decided {
            Ok(decision) => *decision,
            Err(err) => return answer(held.updating.remove(&waiter), Err(Arc::new(err))),
        };
        let runs = matches!(held.record.state, State::Running { .. });
        let record = Arc::make_mut(&mut held.record);
        let linux = record.config.linux.get_or_insert_default();
        spec::merge_resources(linux.resources.get_or_insert_default(), &kubelets);
        if let Some(plugins) = plugins {
            let adjust = record.adjust.get_or_insert_default();
            let linux = adjust.linux.get_or_insert_default();
            overlay(linux.resources.get_or_insert_default(), &plugins);
        }
        held.execs = container::Execs::default();
        let client = self.client.clone().filter(|_| runs);
        let id = id.clone();
        self.work.spawn(async move {
            let Some(client) = client else { return Finished::Updated(id, waiter, Ok(()), roster) };
            let verb = Verb::Update { container: id.clone(), limits: hull_plan::encode(&limits) };
            let told = client.tell(verb, Vec::new()).await;
            let told = told
                .map_err(|source| Error::Monitor { doing: "set the container's limits", source });
            Finished::Updated(id, waiter, told, roster)
        });
    }

    pub(super) fn updated(
        &mut self,
        id: &ContainerId,
        waiter: u64,
        result: std::result::Result<(), Error>,
        roster: Option<Arc<Roster>>,
    ) {
        let Some(held) = self.containers.get_mut(id) else { return };
        let reply = held.updating.remove(&waiter);
        self.save_container(id);
        self.publish();
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
