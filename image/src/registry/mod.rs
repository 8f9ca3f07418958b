// SPDX-License-Identifier: Apache-2.0
//! Talks to registries: the pull half of the OCI distribution protocol.
//!
//! ```text
//! endpoint   where a registry is really asked: mirrors, plain HTTP, TLS settings
//! exchange   one request: challenges, waiting as told, errors in words
//! challenge  what a registry wants    token  how it is got and kept
//! fetch      manifests whole, layers as a stream that survives broken connections
//! ```
//!
//! The rule: what was got with some credentials is never used for others, and no token, password or
//! query of an address gets into an error.

mod challenge;
mod endpoint;
mod exchange;
mod fetch;
mod token;

pub(crate) use endpoint::Clients;

use crate::auth::Auth;
use crate::error::Cause;
use crate::reference::Reference;
use endpoint::Endpoint;
use std::sync::Arc;

/// The registry of one reference, with the credentials of one pull.
#[derive(Debug)]
pub(crate) struct Session {
    clients: Arc<Clients>,
    endpoints: Vec<Endpoint>,
    repository: String,
    auth: Option<Auth>,
}

impl Session {
    pub(crate) fn new(
        clients: Arc<Clients>,
        reference: &Reference,
        auth: Option<Auth>,
    ) -> Result<Self, Cause> {
        let endpoints = clients.endpoints(reference.host())?;
        Ok(Self { clients, endpoints, repository: reference.repository().to_owned(), auth })
    }

    /// The credentials, where they may be shown.
    fn auth_for(&self, endpoint: &Endpoint) -> Option<&Auth> {
        self.auth.as_ref().filter(|_| endpoint.is_registry)
    }
}
