// SPDX-License-Identifier: Apache-2.0
//! What each verb says to plugins, and what it does with their answers. Called from the work that a
//! pod's task hands out, never from the task itself.
//!
//! Nothing is put together, and no thread changed, for an event that no plugin hears of.

use super::{Failed, check, evict, resources, update, view};
use crate::container::{self, ContainerRecord};
use crate::error::Error;
use crate::node::Node;
use crate::pod::{self, PodRecord, Sandbox};
use crate::storage::blocking;
use hull_image::Image;
use hull_nri::{Roster, owners_of};
use hull_proto::id::PodId;
use hull_proto::{cri, nri};
use nri::Event;
use std::sync::Arc;

/// What plugins asked for in a new container.
#[derive(Debug, Default)]
pub(crate) struct Adjusted {
    pub(crate) adjust: Option<Box<nri::ContainerAdjustment>>,
    /// Its cgroup, when that is another than it would have.
    pub(crate) cgroup: Option<String>,
    /// Which plugins asked for it.
    pub(crate) plugins: Vec<String>,
}

fn refused(source: hull_nri::Error) -> Error {
    Error::Plugins { source }
}

/// RunPodSandbox: the pod is up, and nobody knows of it yet.
pub(crate) async fn run_pod(
    roster: &Roster,
    record: &PodRecord,
    up: &Sandbox,
) -> Result<(), pod::Error> {
    if !roster.hears(Event::RunPodSandbox) {
        return Ok(());
    }
    let mut record = record.clone();
    record.state = crate::pod::State::Ready { pause_pid: up.pause_pid, ips: up.ips.clone() };
    let told = roster.ask_pod(Event::RunPodSandbox, &view::pod(&record)).await;
    told.map_err(|source| pod::Error::Plugins { source })
}

/// Something about a pod that is so already.
pub(crate) async fn tell_pod(roster: &Roster, event: Event, record: &PodRecord) {
    if roster.hears(event) {
        roster.tell_pod(event, &view::pod(record)).await;
    }
}

/// UpdatePodSandbox: what the pod is to have in all.
pub(crate) async fn update_pod(
    roster: &Roster,
    record: &PodRecord,
    overhead: Option<&cri::LinuxContainerResources>,
    all: Option<&cri::LinuxContainerResources>,
) -> Result<(), Error> {
    if !roster.hears(Event::UpdatePodSandbox) {
        return Ok(());
    }
    let (overhead, all) = (overhead.map(resources::of_cri), all.map(resources::of_cri));
    roster.update_pod(&view::pod(record), overhead, all).await.map_err(refused)
}

/// CreateContainer: plugins adjust what is about to be made, and change what is there.
pub(crate) async fn create(
    node: &Arc<Node>,
    roster: &Roster,
    pod: &PodId,
    pod_record: &Arc<PodRecord>,
    record: &ContainerRecord,
    image: &Arc<Image>,
) -> Result<Adjusted, Error> {
    if !roster.hears(Event::CreateContainer) {
        return Ok(Adjusted::default());
    }
    let container = {
        let (node, pod, pod_record) = (Arc::clone(node), pod.clone(), Arc::clone(pod_record));
        let (record, image) = (record.clone(), Arc::clone(image));
        blocking(move || {
            let spec = container::start::spec(&node, &pod, &pod_record, &record, &image, None)?;
            Ok::<_, Error>(view::container(&record, Some(&spec)))
        })
        .await?
    };
    let created = roster.create(&view::pod(pod_record), container).await.map_err(refused)?;
    let plugins = owners_of(&created.owners, &record.id);
    let unsupported = |source| Error::Adjust { source };
    check::adjustment(&created.adjust, &record.id, &created.owners).map_err(unsupported)?;
    let cgroup = super::cgroup(&created.adjust, &pod_record.cgroup, &record.id);
    let cgroup = cgroup.map_err(|source| unsupported(source).asked_by(&plugins))?;
    change_others(node, created.updates, created.evictions, &created.owners).await?;
    let adjust = Some(created.adjust).filter(|of| *of != nri::ContainerAdjustment::default());
    Ok(Adjusted { adjust: adjust.map(Box::new), cgroup, plugins })
}

/// What plugins want in other containers while a verb is about one. A limit that cannot be had makes
/// the verb fail, unless the plugin says that it may.
async fn change_others(
    node: &Node,
    updates: Vec<nri::ContainerUpdate>,
    evictions: Vec<nri::ContainerEviction>,
    owners: &nri::OwningPlugins,
) -> Result<(), Error> {
    evict(node, "plugins of a verb", evictions);
    let failed = update(node, "plugins of a verb", updates).await;
    match failed.into_iter().find(|of| !of.update.ignore_failure) {
        Some(Failed { update, why }) => {
            let plugins = owners_of(owners, &update.container_id).join("`, `");
            Err(Error::ForeignLimits { container: update.container_id, plugins, why })
        }
        None => Ok(()),
    }
}

/// A container, its pod, and where both are: what most of these verbs are about.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: PodId,
    pub(crate) pod_record: Arc<PodRecord>,
    pub(crate) record: Arc<ContainerRecord>,
}

impl About {
    async fn messages(&self) -> (nri::PodSandbox, nri::Container) {
        let this = self.clone();
        let container =
            blocking(move || view::known(&this.node, &this.pod, &this.pod_record, &this.record));
        (view::pod(&self.pod_record), container.await)
    }

    /// Something that plugins may refuse.
    pub(crate) async fn ask(&self, roster: &Roster, event: Event) -> Result<(), Error> {
        if !roster.hears(event) {
            return Ok(());
        }
        let (pod, container) = self.messages().await;
        roster.ask_container(event, &pod, &container).await.map_err(refused)
    }

    /// Something that is so already.
    pub(crate) async fn tell(&self, roster: &Roster, event: Event) {
        if roster.hears(event) {
            let (pod, container) = self.messages().await;
            roster.tell_container(event, &pod, &container).await;
        }
    }

    /// StopContainer: it ended, and plugins may give what it had to others.
    pub(crate) async fn stopped(&self, roster: &Roster) {
        if roster.hears(Event::StopContainer) {
            let (pod, container) = self.messages().await;
            let updates = roster.stopped(&pod, &container).await;
            // Those that fail are told in the log; it has ended in any case.
            update(&self.node, "plugins at a container's end", updates).await;
        }
    }

    /// UpdateContainer: what plugins make of the limits that were asked for.
    pub(crate) async fn update(
        &self,
        roster: &Roster,
        asked: &cri::LinuxContainerResources,
    ) -> Result<Option<(nri::LinuxResources, Vec<String>)>, Error> {
        if !roster.hears(Event::UpdateContainer) {
            return Ok(None);
        }
        let (pod, container) = self.messages().await;
        let updated = roster.update(&pod, &container, resources::of_cri(asked)).await;
        let updated = updated.map_err(refused)?;
        let (others, owners) = (updated.updates, updated.owners);
        change_others(&self.node, others, updated.evictions, &owners).await?;
        Ok(Some((updated.resources, owners_of(&owners, &self.record.id))))
    }
}
