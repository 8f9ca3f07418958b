// SPDX-License-Identifier: Apache-2.0
//! Merges the adjustments of several plugins. Pure.
//!
//! The rules: each field or entry has one owner, the plugin that set it first. A second plugin that sets it
//! is an error that names both, unless the second plugin removes the first one's value explicitly (a key
//! with the prefix `-`). Hooks are concatenated. No adjustment is dropped: all are part of the result, which
//! the daemon applies or refuses.

mod adjust;
mod owners;
mod resources;
#[cfg(test)]
mod tests;

pub use owners::{owner, owners_of};
pub use resources::overlay;

use crate::Error;
use hull_proto::nri::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, LinuxContainerUpdate,
    LinuxResources, OwningPlugins,
};
use owners::Owners;
use resources::overlay_claimed;

/// The plugins' merged answer to the creation of a container.
#[derive(Debug, Clone, Default)]
pub struct Created {
    /// Adjustments of the new container.
    pub adjust: ContainerAdjustment,
    /// Updates of other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be stopped.
    pub evictions: Vec<ContainerEviction>,
    /// The plugin that set each field, by container.
    pub owners: OwningPlugins,
}

/// The plugins' merged answer to an update of a container's limits.
#[derive(Debug, Clone, Default)]
pub struct Updated {
    /// The requested limits, with the changes of the plugins.
    pub resources: LinuxResources,
    /// Updates of other containers.
    pub updates: Vec<ContainerUpdate>,
    /// Containers to be stopped.
    pub evictions: Vec<ContainerEviction>,
    /// The plugin that set each field, by container.
    pub owners: OwningPlugins,
}

/// A container that is about to be created, with the adjustments so far.
#[derive(Debug)]
pub(crate) struct Creation {
    /// The container with all adjustments applied, as the next plugin sees it.
    current: Container,
    adjust: ContainerAdjustment,
    updates: Updates,
}

impl Creation {
    pub(crate) fn of(container: Container) -> Self {
        Self {
            current: container,
            adjust: ContainerAdjustment::default(),
            updates: Updates::of(None),
        }
    }

    pub(crate) fn current(&self) -> &Container {
        &self.current
    }

    /// Adds the adjustments of `plugin` to the new container.
    pub(crate) fn adjust(&mut self, new: ContainerAdjustment, plugin: &str) -> Result<(), Error> {
        let mut claims = self.updates.owners.claims_of(&self.current.id, plugin);
        adjust::apply(&mut self.current, &mut self.adjust, new, &mut claims)
    }

    /// Adds the updates of other containers by `plugin`.
    pub(crate) fn update(
        &mut self,
        updates: Vec<ContainerUpdate>,
        plugin: &str,
    ) -> Result<(), Error> {
        if updates.iter().any(|update| update.container_id == self.current.id) {
            let container = self.current.id.clone();
            return Err(Error::UpdatesNew { plugin: plugin.to_owned(), container });
        }
        self.updates.add(updates, plugin)
    }

    pub(crate) fn evict(&mut self, evictions: Vec<ContainerEviction>) {
        self.updates.evict(evictions);
    }

    pub(crate) fn finish(self) -> Created {
        let Updates { others, evictions, owners, .. } = self.updates;
        Created { adjust: self.adjust, updates: others, evictions, owners: owners.all }
    }
}

/// The updates of existing containers so far.
#[derive(Debug)]
pub(crate) struct Updates {
    /// The container whose limits the verb updates, if it updates one, and its new limits.
    subject: Option<(String, LinuxResources)>,
    others: Vec<ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
    owners: Owners,
}

impl Updates {
    pub(crate) fn of(subject: Option<(String, LinuxResources)>) -> Self {
        Self { subject, others: Vec::new(), evictions: Vec::new(), owners: Owners::default() }
    }

    /// The limits of the verb's container with all changes so far.
    pub(crate) fn subject_resources(&self) -> Option<LinuxResources> {
        self.subject.as_ref().map(|(_, resources)| resources.clone())
    }

    /// Adds the updates by `plugin`. A conflict is an error, unless the update may fail.
    pub(crate) fn add(&mut self, updates: Vec<ContainerUpdate>, plugin: &str) -> Result<(), Error> {
        for update in updates {
            let may_fail = update.ignore_failure;
            match self.add_one(update, plugin) {
                Err(err) if !may_fail => return Err(err),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn add_one(&mut self, update: ContainerUpdate, plugin: &str) -> Result<(), Error> {
        let ContainerUpdate { container_id: id, linux, ignore_failure } = update;
        let Some(new) = linux.and_then(|linux| linux.resources) else { return Ok(()) };
        let mut claims = self.owners.claims_of(&id, plugin);
        if let Some((subject, resources)) = &mut self.subject
            && *subject == id
        {
            return overlay_claimed(resources, &new, &mut claims);
        }
        let at = self.others.iter().position(|other| other.container_id == id);
        let mut other = match at {
            Some(at) => self.others[at].clone(),
            None => ContainerUpdate { container_id: id, linux: None, ignore_failure: true },
        };
        // On a copy: a conflict that may be ignored must not leave half of the update.
        other.ignore_failure = match at {
            Some(_) => other.ignore_failure && ignore_failure,
            None => ignore_failure,
        };
        let linux = other.linux.get_or_insert_with(LinuxContainerUpdate::default);
        overlay_claimed(linux.resources.get_or_insert_default(), &new, &mut claims)?;
        match at {
            Some(at) => self.others[at] = other,
            None => self.others.push(other),
        }
        Ok(())
    }

    pub(crate) fn evict(&mut self, evictions: Vec<ContainerEviction>) {
        for eviction in evictions {
            let again = self.evictions.iter().any(|of| of.container_id == eviction.container_id);
            if !again {
                self.evictions.push(eviction);
            }
        }
    }

    pub(crate) fn finish(self) -> Updated {
        let resources = self.subject.map(|(_, resources)| resources).unwrap_or_default();
        let (updates, evictions, owners) = (self.others, self.evictions, self.owners.all);
        Updated { resources, updates, evictions, owners }
    }
}
