// SPDX-License-Identifier: Apache-2.0
//! Talks to registries: the pull half of the OCI distribution protocol.
//!
//! ```text
//! directory, hosts   settings in the layout that containerd made known
//! endpoint           where a registry is really asked, in which order    client  with which trust
//! breaker            who is left alone for a while
//! exchange           one request: challenges, redirects, waiting as told, errors in words
//! challenge          what a registry wants    token  how it is got and kept
//! fetch              manifests whole, layers as a stream that survives broken connections
//! pace               whether a stream still goes on
//! ```
//!
//! The rule: what was got with some credentials is never used for others, and no token, password or
//! query of an address gets into an error.

mod breaker;
mod challenge;
mod client;
mod directory;
mod endpoint;
mod exchange;
mod fetch;
mod hosts;
mod pace;
mod token;

#[cfg(feature = "fuzz")]
pub(crate) use challenge::parse as parse_challenge;
pub(crate) use endpoint::Clients;
#[cfg(feature = "fuzz")]
pub(crate) use hosts::parse as parse_hosts;

use crate::auth::Auth;
use crate::error::Cause;
use crate::reference::Reference;
use crate::watch::Watch;
use endpoint::Endpoint;
use std::sync::Arc;

/// The registry of one reference, with the credentials of one pull.
#[derive(Debug)]
pub(crate) struct Session {
    clients: Arc<Clients>,
    endpoints: Vec<Endpoint>,
    repository: String,
    auth: Option<Auth>,
    /// What its documents wait for.
    watch: Arc<Watch>,
}

impl Session {
    pub(crate) fn new(
        clients: Arc<Clients>,
        reference: &Reference,
        auth: Option<Auth>,
        watch: Arc<Watch>,
    ) -> Result<Self, Cause> {
        let endpoints = clients.endpoints(reference.host())?;
        let repository = reference.repository().to_owned();
        Ok(Self { clients, endpoints, repository, auth, watch })
    }

    /// The credentials, where they may be shown.
    fn auth_for(&self, endpoint: &Endpoint) -> Option<&Auth> {
        self.auth.as_ref().filter(|_| endpoint.is_registry)
    }
}
