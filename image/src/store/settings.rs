// SPDX-License-Identifier: Apache-2.0
//! The settings of an open store. They may change while it is in use: each operation takes them once, so a change
//! concerns the operations that begin after it.

use crate::error::Error;
use crate::limits::Limits;
use crate::policy::{Policy, Rule};
use crate::reference::Reference;
use crate::registry::Clients;
use crate::types::{Config, Remote};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// The settings that may change.
#[derive(Debug)]
pub(super) struct Settings {
    remote: Remote,
    pub(super) clients: Arc<Clients>,
    pub(super) policy: Option<Arc<Policy>>,
    /// Docker's `config.json`: credentials for pulls that bring none.
    pub(super) docker_config: Option<PathBuf>,
    pub(super) concurrent_layers: usize,
    pub(super) limits: Limits,
    /// Store the compressed layers too.
    pub(super) keep_blobs: bool,
}

impl Settings {
    /// The settings of `config`. Connections, tokens and breakers of `before` are kept if its registries are the same.
    pub(super) fn of(config: &Config, before: Option<&Self>) -> Result<Self, Error> {
        let policy = config.policy.as_deref().map(Policy::read).transpose()?.map(Arc::new);
        let clients = match before {
            Some(before) if before.remote == config.remote => Arc::clone(&before.clients),
            Some(before) => Arc::new(before.clients.with(config.remote.clone())),
            None => Arc::new(Clients::new(config.remote.clone())),
        };
        Ok(Self {
            remote: config.remote.clone(),
            clients,
            policy,
            docker_config: config.remote.docker_config.clone(),
            concurrent_layers: config.concurrent_layers,
            limits: config.limits,
            keep_blobs: config.keep_blobs,
        })
    }

    /// The rule of the policy, if there is a policy.
    pub(super) fn rule(&self, reference: &Reference) -> Option<(&Policy, &Rule)> {
        self.policy.as_deref().map(|policy| (policy, policy.rule(reference)))
    }
}

/// Settings that have been read and are not in force yet.
#[derive(Debug)]
pub struct NewSettings {
    pub(super) settings: Settings,
    pub(super) pinned: BTreeSet<String>,
    is_policy_edited: bool,
}

impl NewSettings {
    pub(super) fn read(config: &Config, before: &Settings) -> Result<Self, Error> {
        let settings = Settings::of(config, Some(before))?;
        let of_policy = (before.policy.as_ref(), settings.policy.as_ref());
        let is_policy_edited = matches!(
            of_policy,
            (Some(old), Some(new)) if old.path == new.path && old != new
        );
        Ok(Self { settings, pinned: pinned(config), is_policy_edited })
    }

    /// Whether the policy file is the one that was in force when they were read, and has other rules or keys now.
    #[must_use]
    pub fn is_policy_edited(&self) -> bool {
        self.is_policy_edited
    }
}

/// The settings in force, shared by the parts of a store.
#[derive(Debug, Clone)]
pub(super) struct LiveSettings(Arc<RwLock<Arc<Settings>>>);

impl LiveSettings {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }

    /// The settings for an operation that begins now.
    pub(super) fn current(&self) -> Arc<Settings> {
        // The lock holds one pointer, which a panic leaves whole.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, settings: Settings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }
}

/// The full names of the images that the kubelet must not remove.
pub(super) fn pinned(config: &Config) -> BTreeSet<String> {
    let names = config.pinned.iter().filter_map(|name| Reference::parse(name).ok());
    names.map(|name| name.to_string()).collect()
}
