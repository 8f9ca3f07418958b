// SPDX-License-Identifier: Apache-2.0
//! Calls of a verb to all plugins of a set, one after the other, and the merged result.
//!
//! The rules: each plugin sees the adjustments of those before it. If a request can be refused, the first
//! refusal ends it. Other events (an exit, or something that has happened already) are sent to all plugins,
//! and a refusal is only logged.

use crate::Error;
use crate::merge::{Created, Creation, Updated, Updates};
use crate::method::method;
use crate::plugin_set::PluginSet;
use futures_util::future::join_all;
use hull_proto::nri::{
    Container, ContainerRequest, ContainerUpdate, CreateContainerResponse, Event, LinuxResources,
    PluginInstance, PodRequest, PodSandbox, StopContainerResponse, UpdateContainerRequest,
    UpdateContainerResponse, UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use tracing::warn;

impl PluginSet {
    /// Whether any plugin is subscribed to `event`. If none is, no message needs to be built.
    #[must_use]
    pub fn is_subscribed(&self, event: Event) -> bool {
        self.plugins.iter().any(|plugin| plugin.is_subscribed(event))
    }

    /// Sends an event of a pod to each plugin, until one refuses.
    ///
    /// # Errors
    /// A plugin refuses, or one that requires its answer gives none.
    pub async fn request_pod(&self, event: Event, pod: &PodSandbox) -> Result<(), Error> {
        let request = PodRequest { pod: Some(pod.clone()) };
        for plugin in &self.plugins {
            plugin.notify(event, &request, (pod, None)).await?;
        }
        Ok(())
    }

    /// Sends an event of a pod to every plugin. Errors are logged.
    pub async fn notify_pod(&self, event: Event, pod: &PodSandbox) {
        let request = PodRequest { pod: Some(pod.clone()) };
        for plugin in &self.plugins {
            log_error(event, plugin.notify(event, &request, (pod, None)).await);
        }
    }

    /// Sends the pod-level resources that a pod shall have to each plugin, until one refuses.
    ///
    /// # Errors
    /// As [`Self::request_pod`].
    pub async fn update_pod(
        &self,
        pod: &PodSandbox,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> Result<(), Error> {
        let request = UpdatePodSandboxRequest {
            pod: Some(pod.clone()),
            overhead_linux_resources: overhead,
            linux_resources: resources,
        };
        for plugin in &self.plugins {
            plugin.notify(Event::UpdatePodSandbox, &request, (pod, None)).await?;
        }
        Ok(())
    }

    /// Sends an event of a container to each plugin, until one refuses.
    ///
    /// # Errors
    /// As [`Self::request_pod`].
    pub async fn request_container(
        &self,
        event: Event,
        pod: &PodSandbox,
        container: &Container,
    ) -> Result<(), Error> {
        let request = container_request(pod, container);
        for plugin in &self.plugins {
            plugin.notify(event, &request, (pod, Some(container))).await?;
        }
        Ok(())
    }

    /// Sends an event of a container to every plugin. Errors are logged.
    pub async fn notify_container(&self, event: Event, pod: &PodSandbox, container: &Container) {
        let request = container_request(pod, container);
        for plugin in &self.plugins {
            log_error(event, plugin.notify(event, &request, (pod, Some(container))).await);
        }
    }

    /// Collects the plugins' adjustments for a container that is about to be created, and validates them.
    ///
    /// # Errors
    /// As [`Self::request_pod`]; also if two plugins set the same field, or a validating plugin rejects the result.
    pub async fn create_container(
        &self,
        pod: &PodSandbox,
        container: Container,
    ) -> Result<Created, Error> {
        let original = container.clone();
        let mut creation = Creation::of(container);
        let mut consulted = Vec::new();
        for plugin in &self.plugins {
            let request = container_request(pod, creation.current());
            consulted
                .push(PluginInstance { name: plugin.name.clone(), index: plugin.index.clone() });
            let response: Option<CreateContainerResponse> =
                plugin.request(Event::CreateContainer, &request).await?;
            let Some(response) = response else { continue };
            creation.adjust(response.adjust.unwrap_or_default(), &plugin.full_name())?;
            creation.update(response.update, &plugin.full_name())?;
            creation.evict(response.evict);
        }
        let created = creation.finish();
        let validated =
            self.plugins.iter().filter(|of| of.is_subscribed(Event::ValidateContainerAdjustment));
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(original),
            adjust: Some(created.adjust.clone()),
            update: created.updates.clone(),
            owners: Some(created.owners.clone()),
            plugins: consulted,
        };
        let verdicts = validated.map(|plugin| {
            let request = &request;
            async move {
                let verdict: ValidateContainerAdjustmentResponse = plugin.validate(request).await?;
                if verdict.reject {
                    return Err(Error::Rejected {
                        plugin: plugin.full_name(),
                        why: verdict.reason,
                    });
                }
                Ok(())
            }
        });
        join_all(verdicts).await.into_iter().collect::<Result<(), Error>>()?;
        Ok(created)
    }

    /// Collects the plugins' changes to an update of a container's limits.
    ///
    /// # Errors
    /// As [`Self::request_pod`]; also if two plugins set the same field.
    pub async fn update_container(
        &self,
        pod: &PodSandbox,
        container: &Container,
        resources: LinuxResources,
    ) -> Result<Updated, Error> {
        let mut updates = Updates::of(Some((container.id.clone(), resources)));
        for plugin in &self.plugins {
            let request = UpdateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(container.clone()),
                linux_resources: updates.subject_resources(),
            };
            let response: Option<UpdateContainerResponse> =
                plugin.request(Event::UpdateContainer, &request).await?;
            let Some(response) = response else { continue };
            updates.add(response.update, &plugin.full_name())?;
            updates.evict(response.evict);
        }
        Ok(updates.finish())
    }

    /// Sends the end of a container to every plugin. Returns their updates of other containers; errors are logged.
    pub async fn stop_container(
        &self,
        pod: &PodSandbox,
        container: &Container,
    ) -> Vec<ContainerUpdate> {
        let event = Event::StopContainer;
        let request = container_request(pod, container);
        let mut updates = Updates::of(None);
        for plugin in &self.plugins {
            let response = plugin.request::<StopContainerResponse>(event, &request).await;
            let added = response.and_then(|response| {
                updates.add(response.unwrap_or_default().update, &plugin.full_name())
            });
            log_error(event, added);
        }
        updates.finish().updates
    }
}

fn container_request(pod: &PodSandbox, container: &Container) -> ContainerRequest {
    ContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) }
}

/// Logs the error of an event that no plugin can refuse.
fn log_error(event: Event, result: Result<(), Error>) {
    if let Err(err) = result {
        warn!(call = method(event), error = %err, hint = err.hint(), "plugin failed an event that it cannot refuse");
    }
}
