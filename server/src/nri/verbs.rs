// SPDX-License-Identifier: Apache-2.0
//! The calls of each verb to plugins, and the use of their answers. Called from the work that a pod's task
//! hands out, never from the task itself.
//!
//! For an event without a subscribed plugin, no message is built and no thread is switched.

use super::service::{FailedUpdate, evict, update};
use super::{messages, resources, validate};
use crate::container::{self, ContainerRecord};
use crate::error::Error;
use crate::node::Node;
use crate::pod::{self, PodRecord, Sandbox};
use crate::storage::blocking;
use hull_image::Image;
use hull_nri::{PluginSet, owners_of};
use hull_proto::id::PodId;
use hull_proto::{cri, nri};
use nri::Event;
use std::sync::Arc;

/// The plugins' adjustment of a new container.
#[derive(Debug, Default)]
pub(crate) struct Adjustment {
    pub(crate) adjust: Option<Box<nri::ContainerAdjustment>>,
    /// Its cgroup, if a plugin has chosen another one.
    pub(crate) cgroup: Option<String>,
    /// The plugins that set any of it, as `<index>-<name>`.
    pub(crate) plugins: Vec<String>,
}

fn plugins_error(source: hull_nri::Error) -> Error {
    Error::Plugins { source }
}

/// RunPodSandbox: the pod is set up, but not visible yet.
pub(crate) async fn run_pod(
    plugin_set: &PluginSet,
    record: &PodRecord,
    up: &Sandbox,
) -> Result<(), pod::Error> {
    if !plugin_set.is_subscribed(Event::RunPodSandbox) {
        return Ok(());
    }
    let mut record = record.clone();
    record.state = crate::pod::State::Ready { pause_pid: up.pause_pid, ips: up.ips.clone() };
    let approved = plugin_set.request_pod(Event::RunPodSandbox, &messages::pod(&record)).await;
    approved.map_err(|source| pod::Error::Plugins { source })
}

/// An event of a pod that has happened already.
pub(crate) async fn notify_pod(plugin_set: &PluginSet, event: Event, record: &PodRecord) {
    if plugin_set.is_subscribed(event) {
        plugin_set.notify_pod(event, &messages::pod(record)).await;
    }
}

/// UpdatePodSandbox: new pod-level resources.
pub(crate) async fn update_pod(
    plugin_set: &PluginSet,
    record: &PodRecord,
    overhead: Option<&cri::LinuxContainerResources>,
    all: Option<&cri::LinuxContainerResources>,
) -> Result<(), Error> {
    if !plugin_set.is_subscribed(Event::UpdatePodSandbox) {
        return Ok(());
    }
    let (overhead, all) = (overhead.map(resources::of_cri), all.map(resources::of_cri));
    plugin_set.update_pod(&messages::pod(record), overhead, all).await.map_err(plugins_error)
}

/// CreateContainer: plugins adjust the new container, and update or evict others.
pub(crate) async fn create_container(
    node: &Arc<Node>,
    plugin_set: &PluginSet,
    pod: &PodId,
    pod_record: &Arc<PodRecord>,
    record: &ContainerRecord,
    image: &Arc<Image>,
) -> Result<Adjustment, Error> {
    if !plugin_set.is_subscribed(Event::CreateContainer) {
        return Ok(Adjustment::default());
    }
    let container = {
        let (node, pod, pod_record) = (Arc::clone(node), pod.clone(), Arc::clone(pod_record));
        let (record, image) = (record.clone(), Arc::clone(image));
        blocking(move || {
            let spec = container::start::spec(&node, &pod, &pod_record, &record, &image, None)?;
            Ok::<_, Error>(messages::container(&record, Some(&spec)))
        })
        .await?
    };
    let created = plugin_set
        .create_container(&messages::pod(pod_record), container)
        .await
        .map_err(plugins_error)?;
    let plugins = owners_of(&created.owners, &record.id);
    let unsupported = |source| Error::Adjust { source };
    validate::adjustment(&created.adjust, &record.id, &created.owners).map_err(unsupported)?;
    let cgroup = super::cgroup(&created.adjust, &pod_record.cgroup, &record.id);
    let cgroup = cgroup.map_err(|source| unsupported(source).asked_by(&plugins))?;
    change_others(node, created.updates, created.evictions, &created.owners).await?;
    let adjust = Some(created.adjust).filter(|of| *of != nri::ContainerAdjustment::default());
    Ok(Adjustment { adjust: adjust.map(Box::new), cgroup, plugins })
}

/// Applies the plugins' changes of other containers during a verb. A failed update fails the verb, unless the
/// plugin allows it to fail.
async fn change_others(
    node: &Node,
    updates: Vec<nri::ContainerUpdate>,
    evictions: Vec<nri::ContainerEviction>,
    owners: &nri::OwningPlugins,
) -> Result<(), Error> {
    evict(node, "plugins of a verb", evictions);
    let failed = update(node, "plugins of a verb", updates).await;
    match failed.into_iter().find(|of| !of.update.ignore_failure) {
        Some(FailedUpdate { update, why }) => {
            let plugins = owners_of(owners, &update.container_id).join("`, `");
            Err(Error::ForeignLimits { container: update.container_id, plugins, why })
        }
        None => Ok(()),
    }
}

/// A container and its pod, as needed for messages to plugins.
#[derive(Debug, Clone)]
pub(crate) struct NriContext {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: PodId,
    pub(crate) pod_record: Arc<PodRecord>,
    pub(crate) record: Arc<ContainerRecord>,
}

impl NriContext {
    async fn messages(&self) -> (nri::PodSandbox, nri::Container) {
        let this = self.clone();
        let container = blocking(move || {
            messages::existing_container(&this.node, &this.pod, &this.pod_record, &this.record)
        });
        (messages::pod(&self.pod_record), container.await)
    }

    /// Sends an event that plugins may refuse.
    pub(crate) async fn request(&self, plugin_set: &PluginSet, event: Event) -> Result<(), Error> {
        if !plugin_set.is_subscribed(event) {
            return Ok(());
        }
        let (pod, container) = self.messages().await;
        plugin_set.request_container(event, &pod, &container).await.map_err(plugins_error)
    }

    /// Sends an event that has happened already.
    pub(crate) async fn notify(&self, plugin_set: &PluginSet, event: Event) {
        if plugin_set.is_subscribed(event) {
            let (pod, container) = self.messages().await;
            plugin_set.notify_container(event, &pod, &container).await;
        }
    }

    /// StopContainer: the container has ended, and plugins may give its resources to others.
    pub(crate) async fn notify_stopped(&self, plugin_set: &PluginSet) {
        if plugin_set.is_subscribed(Event::StopContainer) {
            let (pod, container) = self.messages().await;
            let updates = plugin_set.stop_container(&pod, &container).await;
            // Failures are logged; the container has ended in any case.
            update(&self.node, "plugins at a container's end", updates).await;
        }
    }

    /// UpdateContainer: the requested limits with the changes of plugins; `None` if no plugin is subscribed.
    pub(crate) async fn update(
        &self,
        plugin_set: &PluginSet,
        asked: &cri::LinuxContainerResources,
    ) -> Result<Option<(nri::LinuxResources, Vec<String>)>, Error> {
        if !plugin_set.is_subscribed(Event::UpdateContainer) {
            return Ok(None);
        }
        let (pod, container) = self.messages().await;
        let updated = plugin_set.update_container(&pod, &container, resources::of_cri(asked)).await;
        let updated = updated.map_err(plugins_error)?;
        let (others, owners) = (updated.updates, updated.owners);
        change_others(&self.node, others, updated.evictions, &owners).await?;
        Ok(Some((updated.resources, owners_of(&owners, &self.record.id))))
    }
}
