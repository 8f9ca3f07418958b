// SPDX-License-Identifier: Apache-2.0
//! One base URL at which a registry, or a mirror of it, is requested.

use reqwest::header::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A base URL with the client and headers for it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `https://host[:port][/path]/v2`, no slash at the end.
    pub(super) api: String,
    /// The host, for messages.
    pub(super) host: String,
    /// Whether it is the registry itself, or the server configured for it, and not a mirror.
    pub(super) is_registry: bool,
    /// The registry that a mirror is asked for, sent as `ns`.
    pub(super) stands_for: Option<String>,
    /// Whether it may resolve tags.
    pub(super) resolves: bool,
    /// Whether it may serve content by digest.
    pub(super) pulls: bool,
    /// Headers that are sent to this host only.
    pub(super) headers: HeaderMap,
    /// The time limit for the head of a response, connecting included, and for the body of a small one.
    pub(super) stall: Duration,
    pub(super) http: reqwest::Client,
    /// The client for redirects to other origins: the same CAs, no client certificate.
    pub(super) http_elsewhere: reqwest::Client,
    /// Whether it has answered a request of this pull, in the scheme of `api`.
    pub(super) has_answered: Arc<AtomicBool>,
}

impl Endpoint {
    /// Notes that it has answered: a later failure is not about its scheme.
    pub(super) fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Whether it has answered before.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }
}
