// SPDX-License-Identifier: Apache-2.0
//! Puts together what several plugins ask for. Pure.
//!
//! The rules: each thing has one owner, the plugin that set it first. A second plugin that sets it too is
//! an error that names both, unless it took the first one's away before, which it says itself (a key with
//! `-` before it). Hooks add up. What is asked for is never dropped: it ends up in the result, which the
//! daemon applies or refuses.

mod adjust;
mod owners;
mod resources;
#[cfg(test)]
mod tests;

pub use owners::{owner, owners_of};
pub use resources::overlay;

use crate::{Created, Error, Updated};
use hull_proto::nri::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, LinuxContainerUpdate,
    LinuxResources,
};
use owners::Owners;
use resources::claimed;

/// A container that is about to be made, and what is asked for so far.
#[derive(Debug)]
pub(crate) struct Creation {
    /// As the next plugin sees it.
    seen: Container,
    adjust: ContainerAdjustment,
    updates: Updates,
}

impl Creation {
    pub(crate) fn of(container: Container) -> Self {
        Self { seen: container, adjust: ContainerAdjustment::default(), updates: Updates::of(None) }
    }

    pub(crate) fn seen(&self) -> &Container {
        &self.seen
    }

    /// Takes what `plugin` asks for in the new container.
    pub(crate) fn adjust(&mut self, asked: ContainerAdjustment, plugin: &str) -> Result<(), Error> {
        let mut claims = self.updates.owners.of(&self.seen.id, plugin);
        adjust::take(&mut self.seen, &mut self.adjust, asked, &mut claims)
    }

    /// Takes what `plugin` asks for in other containers.
    pub(crate) fn update(
        &mut self,
        asked: Vec<ContainerUpdate>,
        plugin: &str,
    ) -> Result<(), Error> {
        if asked.iter().any(|update| update.container_id == self.seen.id) {
            let container = self.seen.id.clone();
            return Err(Error::UpdatesNew { plugin: plugin.to_owned(), container });
        }
        self.updates.take(asked, plugin)
    }

    pub(crate) fn evict(&mut self, asked: Vec<ContainerEviction>) {
        self.updates.evict(asked);
    }

    pub(crate) fn finish(self) -> Created {
        let Updates { others, evictions, owners, .. } = self.updates;
        Created { adjust: self.adjust, updates: others, evictions, owners: owners.all }
    }
}

/// New limits for containers that are there, as far as asked for.
#[derive(Debug)]
pub(crate) struct Updates {
    /// The container whose update it is all about, if one is.
    subject: Option<(String, LinuxResources)>,
    others: Vec<ContainerUpdate>,
    evictions: Vec<ContainerEviction>,
    owners: Owners,
}

impl Updates {
    pub(crate) fn of(subject: Option<(String, LinuxResources)>) -> Self {
        Self { subject, others: Vec::new(), evictions: Vec::new(), owners: Owners::default() }
    }

    /// What is wanted for the subject by now.
    pub(crate) fn wanted(&self) -> Option<LinuxResources> {
        self.subject.as_ref().map(|(_, resources)| resources.clone())
    }

    pub(crate) fn take(&mut self, asked: Vec<ContainerUpdate>, plugin: &str) -> Result<(), Error> {
        for update in asked {
            let may_fail = update.ignore_failure;
            match self.take_one(update, plugin) {
                Err(err) if !may_fail => return Err(err),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn take_one(&mut self, update: ContainerUpdate, plugin: &str) -> Result<(), Error> {
        let ContainerUpdate { container_id: id, linux, ignore_failure } = update;
        let Some(new) = linux.and_then(|linux| linux.resources) else { return Ok(()) };
        let mut claims = self.owners.of(&id, plugin);
        if let Some((subject, resources)) = &mut self.subject
            && *subject == id
        {
            return claimed(resources, &new, &mut claims);
        }
        let at = self.others.iter().position(|other| other.container_id == id);
        let mut other = match at {
            Some(at) => self.others[at].clone(),
            None => ContainerUpdate { container_id: id, linux: None, ignore_failure: true },
        };
        // On a copy: a conflict that may be passed over must not leave half of it.
        other.ignore_failure = match at {
            Some(_) => other.ignore_failure && ignore_failure,
            None => ignore_failure,
        };
        let linux = other.linux.get_or_insert_with(LinuxContainerUpdate::default);
        claimed(linux.resources.get_or_insert_default(), &new, &mut claims)?;
        match at {
            Some(at) => self.others[at] = other,
            None => self.others.push(other),
        }
        Ok(())
    }

    pub(crate) fn evict(&mut self, asked: Vec<ContainerEviction>) {
        for eviction in asked {
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
