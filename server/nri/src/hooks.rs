// SPDX-License-Identifier: Apache-2.0
//! What a verb tells the plugins, each in its turn, and what it gets back.
//!
//! The rules: the next plugin sees what those before it asked for. One that refuses ends a call that can
//! be refused. What cannot be (an end, or what has happened) is told to all, and a refusal is only logged.

use crate::Error;
use crate::merge::{Creation, Updates};
use crate::plugin::method;
use crate::roster::Roster;
use futures_util::future::join_all;
use hull_proto::nri::{
    Container, ContainerAdjustment, ContainerEviction, ContainerRequest, ContainerUpdate,
    CreateContainerResponse, Event, LinuxResources, OwningPlugins, PluginInstance, PodRequest,
    PodSandbox, StopContainerResponse, UpdateContainerRequest, UpdateContainerResponse,
    UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use tracing::warn;

/// What plugins ask for when a container is made.
#[derive(Debug, Clone, Default)]
pub struct Created {
    /// In the new container.
    pub adjust: ContainerAdjustment,
    /// In others.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be ended.
    pub evictions: Vec<ContainerEviction>,
    /// Which plugin set what.
    pub owners: OwningPlugins,
}

/// What plugins make of an update.
#[derive(Debug, Clone, Default)]
pub struct Updated {
    /// What is to be set: what was wanted, and what they changed in it.
    pub resources: LinuxResources,
    /// In other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be ended.
    pub evictions: Vec<ContainerEviction>,
    /// Which plugin set what.
    pub owners: OwningPlugins,
}

impl Roster {
    /// Whether anybody wants to hear of `event`; so that nothing is put together for nobody.
    #[must_use]
    pub fn hears(&self, event: Event) -> bool {
        self.plugins.iter().any(|plugin| plugin.hears(event))
    }

    /// Tells of a pod, until one refuses.
    ///
    /// # Errors
    /// A plugin refuses, or gave no answer and wants that to count.
    pub async fn ask_pod(&self, event: Event, pod: &PodSandbox) -> Result<(), Error> {
        let request = PodRequest { pod: Some(pod.clone()) };
        for plugin in &self.plugins {
            plugin.tell(event, &request, (pod, None)).await?;
        }
        Ok(())
    }

    /// Tells all of a pod.
    pub async fn tell_pod(&self, event: Event, pod: &PodSandbox) {
        let request = PodRequest { pod: Some(pod.clone()) };
        for plugin in &self.plugins {
            logged(event, plugin.tell(event, &request, (pod, None)).await);
        }
    }

    /// Tells of what a pod is to have in all, until one refuses.
    ///
    /// # Errors
    /// As [`Self::ask_pod`].
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
            plugin.tell(Event::UpdatePodSandbox, &request, (pod, None)).await?;
        }
        Ok(())
    }

    /// Tells of a container, until one refuses.
    ///
    /// # Errors
    /// As [`Self::ask_pod`].
    pub async fn ask_container(
        &self,
        event: Event,
        pod: &PodSandbox,
        container: &Container,
    ) -> Result<(), Error> {
        let request = about(pod, container);
        for plugin in &self.plugins {
            plugin.tell(event, &request, (pod, Some(container))).await?;
        }
        Ok(())
    }

    /// Tells all of a container.
    pub async fn tell_container(&self, event: Event, pod: &PodSandbox, container: &Container) {
        let request = about(pod, container);
        for plugin in &self.plugins {
            logged(event, plugin.tell(event, &request, (pod, Some(container))).await);
        }
    }

    /// Has the plugins adjust a container that is about to be made.
    ///
    /// # Errors
    /// As [`Self::ask_pod`]; and when two plugins want different things, or a validator rejects it.
    pub async fn create(&self, pod: &PodSandbox, container: Container) -> Result<Created, Error> {
        let pristine = container.clone();
        let mut creation = Creation::of(container);
        let mut consulted = Vec::new();
        for plugin in &self.plugins {
            let request = about(pod, creation.seen());
            consulted
                .push(PluginInstance { name: plugin.name.clone(), index: plugin.index.clone() });
            let asked: Option<CreateContainerResponse> =
                plugin.ask(Event::CreateContainer, &request).await?;
            let Some(asked) = asked else { continue };
            creation.adjust(asked.adjust.unwrap_or_default(), &plugin.title())?;
            creation.update(asked.update, &plugin.title())?;
            creation.evict(asked.evict);
        }
        let created = creation.finish();
        let validated =
            self.plugins.iter().filter(|of| of.hears(Event::ValidateContainerAdjustment));
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(pristine),
            adjust: Some(created.adjust.clone()),
            update: created.updates.clone(),
            owners: Some(created.owners.clone()),
            plugins: consulted,
        };
        let verdicts = validated.map(|plugin| {
            let request = &request;
            async move {
                let said: ValidateContainerAdjustmentResponse = plugin.validate(request).await?;
                if said.reject {
                    return Err(Error::Rejected { plugin: plugin.title(), why: said.reason });
                }
                Ok(())
            }
        });
        join_all(verdicts).await.into_iter().collect::<Result<(), Error>>()?;
        Ok(created)
    }

    /// Has the plugins change an update of a container.
    ///
    /// # Errors
    /// As [`Self::ask_pod`]; and when two plugins want different things.
    pub async fn update(
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
                linux_resources: updates.wanted(),
            };
            let asked: Option<UpdateContainerResponse> =
                plugin.ask(Event::UpdateContainer, &request).await?;
            let Some(asked) = asked else { continue };
            updates.take(asked.update, &plugin.title())?;
            updates.evict(asked.evict);
        }
        Ok(updates.finish())
    }

    /// Tells all of a container that ended. What they want changed in others.
    pub async fn stopped(&self, pod: &PodSandbox, container: &Container) -> Vec<ContainerUpdate> {
        let event = Event::StopContainer;
        let request = about(pod, container);
        let mut updates = Updates::of(None);
        for plugin in &self.plugins {
            let asked = plugin.ask::<StopContainerResponse>(event, &request).await;
            let taken = asked
                .and_then(|asked| updates.take(asked.unwrap_or_default().update, &plugin.title()));
            logged(event, taken);
        }
        updates.finish().updates
    }
}

fn about(pod: &PodSandbox, container: &Container) -> ContainerRequest {
    ContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) }
}

/// For what has happened already, whatever a plugin says.
fn logged(event: Event, result: Result<(), Error>) {
    if let Err(err) = result {
        warn!(call = method(event), error = %err, hint = err.hint(), "plugin's refusal changes nothing here");
    }
}
