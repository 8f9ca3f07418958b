// SPDX-License-Identifier: Apache-2.0
//! One address where a registry, or a mirror of it, is requested.

use reqwest::header::HeaderMap;
use std::time::Duration;

/// A place to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `https://host[:port][/path]/v2`, no slash at the end.
    pub(super) api: String,
    /// For messages.
    pub(super) host: String,
    /// The registry that was named, or what stands in its place, not a mirror.
    pub(super) is_registry: bool,
    /// What a mirror is told whom it stands for.
    pub(super) stands_for: Option<String>,
    /// May be asked what a tag means; may be asked for content.
    pub(super) resolves: bool,
    pub(super) pulls: bool,
    /// For this host and no other.
    pub(super) headers: HeaderMap,
    /// How long an answer's head may take, from the connection on; and a small answer's body.
    pub(super) stall: Duration,
    pub(super) http: reqwest::Client,
    /// For redirects to other origins: trusts the same, shows no client certificate.
    pub(super) http_elsewhere: reqwest::Client,
}
