// SPDX-License-Identifier: Apache-2.0
//! Fetches manifests, configs and layers.
//!
//! The rule: a returned document was checked against its digest. The stream of a layer was not, which its
//! receiver does; but it is one stream without gaps or repetition, however often the connection
//! broke.

use super::clients::Clients;
use super::endpoint::Endpoint;
use super::failure;
use super::request::Requests;
use super::stall_detector::StallDetector;
use super::transport::{self, body};
use crate::credentials::auth::Auth;
use crate::digest::Digest;
use crate::error::{Cause, Unreachable};
use crate::layer::progress::{LayerProgress, WaitReason};
use crate::manifest::{ACCEPT, CONFIG_BYTES_MAX, Descriptor, MANIFEST_BYTES_MAX};
use crate::reference::Reference;
use bytes::Bytes;
use reqwest::header::{
    ACCEPT as ACCEPT_HEADER, ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The largest number of tries without progress, and in all.
const TRIES_WITHOUT_PROGRESS: u32 = crate::limits::TRIES_WITHOUT_PROGRESS.number();
const TRIES_MAX: u32 = crate::limits::TRIES.number();
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A document and its digest.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
}

/// The registry of one reference, with the credentials of one pull.
#[derive(Debug)]
pub(crate) struct Session {
    requests: Requests,
    endpoints: Vec<Endpoint>,
    /// The progress of its manifests and config.
    watch: Arc<LayerProgress>,
}

impl Session {
    pub(crate) fn new(
        clients: Arc<Clients>,
        reference: &Reference,
        auth: Option<Auth>,
        watch: Arc<LayerProgress>,
    ) -> Result<Self, Cause> {
        let endpoints = clients.endpoints(reference.host())?;
        let repository = reference.repository().to_owned();
        let requests = Requests::new(clients, repository, auth, endpoints.len() > 1);
        Ok(Self { requests, endpoints, watch })
    }

    /// The manifest or index behind a tag or digest.
    pub(crate) async fn manifest(&self, selector: &str) -> Result<Received, Cause> {
        let what = format!("{}:{selector}", self.requests.repository()).replace(":sha", "@sha");
        let want = Digest::parse(selector);
        let mut headers = plain_headers();
        headers.insert(ACCEPT_HEADER, HeaderValue::from_static(ACCEPT));
        let path = format!("manifests/{selector}");
        self.document(&path, &what, &headers, MANIFEST_BYTES_MAX, want.as_ref()).await
    }

    /// A small blob: the config of an image, or a signed payload.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
        what: String,
        max: u64,
    ) -> Result<Received, Cause> {
        if descriptor.size > max {
            return Err(Cause::TooLarge { what, max });
        }
        let path = format!("blobs/{}", descriptor.digest);
        self.document(&path, &what, &plain_headers(), max, Some(&descriptor.digest)).await
    }

    /// The config of an image.
    pub(crate) async fn config(&self, descriptor: &Descriptor) -> Result<Received, Cause> {
        let what = format!("config {}", descriptor.digest);
        self.blob(descriptor, what, CONFIG_BYTES_MAX).await
    }

    /// Tries the endpoints in order; the registry itself is the last.
    async fn document(
        &self,
        path: &str,
        what: &str,
        headers: &HeaderMap,
        max: u64,
        want: Option<&Digest>,
    ) -> Result<Received, Cause> {
        let mut last = None;
        // Only a digest can be asked of who may not say what a tag means.
        let may = |of: &&Endpoint| if want.is_some() { of.pulls } else { of.resolves };
        let asked: Vec<&Endpoint> = self.endpoints.iter().filter(may).collect();
        for endpoint in asked {
            match self.document_of(endpoint, path, what, headers, max, want).await {
                Ok(received) => return Ok(received),
                Err(cause) => {
                    if !endpoint.is_registry {
                        tracing::warn!(mirror = %endpoint.host, error = %cause, "mirror not used");
                    }
                    // The registry's own error counts most, even if a mirror failed later.
                    if endpoint.is_registry || last.is_none() {
                        last = Some(cause);
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| self.no_endpoint(what)))
    }

    async fn document_of(
        &self,
        endpoint: &Endpoint,
        path: &str,
        what: &str,
        headers: &HeaderMap,
        max: u64,
        want: Option<&Digest>,
    ) -> Result<Received, Cause> {
        let response = self.requests.get(endpoint, path, what, headers, &self.watch).await?;
        let read = body(response, what, max, &endpoint.host);
        let bytes = match tokio::time::timeout(self.requests.stall(), read).await {
            Ok(read) => read?,
            Err(_) => return Err(self.stalled(endpoint, what)),
        };
        let digest = want.map_or_else(|| Digest::of(&bytes), |want| want.same_kind_of(&bytes));
        match want {
            Some(want) if *want != digest => Err(Cause::WrongDigest {
                what: what.to_owned(),
                want: want.to_string(),
                got: digest.to_string(),
            }),
            _ => Ok(Received { bytes, digest }),
        }
    }

    /// The number of endpoints that serve layers.
    pub(crate) fn places(&self) -> usize {
        self.endpoints.iter().filter(|of| of.pulls).count()
    }

    /// Sends the bytes of a layer to `into`, without the first `skipped` endpoints. Ends early,
    /// without an error, when the receiver was dropped: it knows why.
    pub(crate) async fn layer(
        &self,
        descriptor: &Descriptor,
        skipped: usize,
        into: mpsc::Sender<Bytes>,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        let mut stream = Stream { descriptor, into, received: 0 };
        let (mut tries, mut without_progress) = (0, 0);
        let asked: Vec<&Endpoint> = self.endpoints.iter().filter(|of| of.pulls).collect();
        let mut endpoints = asked.into_iter().skip(skipped).peekable();
        let mut endpoint = endpoints.next().ok_or_else(|| self.no_endpoint("a layer"))?;
        loop {
            let before = stream.received;
            let cause = match self.attempt(endpoint, &mut stream, watch).await {
                Ok(()) => return Ok(()),
                // More bytes than the blob has: other endpoints cannot continue from there.
                Err(cause @ Cause::WrongSize { .. }) => return Err(cause),
                Err(cause) => cause,
            };
            tries += 1;
            without_progress = if stream.received > before { 0 } else { without_progress + 1 };
            // Who has no other place to ask is more patient.
            let patience = if endpoints.peek().is_some() { 1 } else { TRIES_WITHOUT_PROGRESS };
            let is_last = tries >= TRIES_MAX || without_progress >= patience;
            if !matches!(cause, Cause::Unreachable { .. }) || is_last {
                let next = endpoints.next().ok_or_else(|| cause.clone())?;
                tracing::warn!(host = %endpoint.host, next = %next.host, error = %cause,
                    layer = %descriptor.digest, "layer failed, trying the next host");
                (endpoint, without_progress) = (next, 0);
                continue;
            }
            tracing::debug!(layer = %descriptor.digest, at = stream.received, error = %cause, "layer resumed");
            watch.waits_for(WaitReason::Retry);
            tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(without_progress)).await;
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        stream: &mut Stream<'_>,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        let digest = &stream.descriptor.digest;
        let what = format!("layer {digest}");
        let mut headers = plain_headers();
        if stream.received > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", stream.received));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let path = format!("blobs/{digest}");
        let mut response = self.requests.get(endpoint, &path, &what, &headers, watch).await?;
        let mut skip = skipped(&response, stream.received).ok_or_else(|| Cause::Answer {
            host: endpoint.host.clone(),
            status: response.status().as_u16(),
            what: what.clone(),
            detail: "another part of it than was asked for".into(),
        })?;
        let mut stall = StallDetector::new(self.requests.stall());
        loop {
            watch.waits_for(WaitReason::Bytes);
            let began = Instant::now();
            let chunk = tokio::time::timeout(stall.time_left(), response.chunk()).await;
            let chunk = chunk.map_err(|_| self.stalled(endpoint, &what))?;
            let chunk = chunk.map_err(|err| failure::unreachable(&endpoint.host, &err))?;
            let Some(mut chunk) = chunk else { break };
            stall.received(chunk.len() as u64, began.elapsed());
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            drop(chunk.split_to(usize::try_from(known).unwrap_or(chunk.len())));
            if chunk.is_empty() {
                continue;
            }
            watch.waits_for(WaitReason::Inflate);
            if !stream.pass_on(chunk).await? {
                return Ok(());
            }
            watch.received(stream.received);
        }
        if stream.received < stream.descriptor.size {
            return Err(Cause::Unreachable {
                host: endpoint.host.clone(),
                kind: Unreachable::Broken,
                detail: format!(
                    "{what} ended after {} of {} bytes",
                    stream.received, stream.descriptor.size
                ),
                registry: None,
            });
        }
        watch.waits_for(WaitReason::Inflate);
        Ok(())
    }

    fn stalled(&self, endpoint: &Endpoint, what: &str) -> Cause {
        transport::stalled(&endpoint.host, what, self.requests.stall())
    }

    fn no_endpoint(&self, what: &str) -> Cause {
        Cause::NotFound {
            host: "no registry".into(),
            what: format!("{what} of {}", self.requests.repository()),
        }
    }
}

/// The stream of a layer.
struct Stream<'a> {
    descriptor: &'a Descriptor,
    into: mpsc::Sender<Bytes>,
    received: u64,
}

impl Stream<'_> {
    /// Sends a chunk; false if the receiver was dropped.
    async fn pass_on(&mut self, chunk: Bytes) -> Result<bool, Cause> {
        let length = chunk.len() as u64;
        if self.received + length > self.descriptor.size {
            return Err(Cause::WrongSize {
                what: format!("layer {}", self.descriptor.digest),
                want: self.descriptor.size,
                got: self.received + length,
            });
        }
        let is_taken = self.into.send(chunk).await.is_ok();
        self.received += length;
        Ok(is_taken)
    }
}

/// How many bytes of the response were received before; none if the range is not the requested one.
fn skipped(response: &Response, received: u64) -> Option<u64> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        // The whole of it, because the server does not know ranges.
        return Some(received);
    }
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let start = range.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok()?;
    received.checked_sub(start)
}

/// Headers that forbid compression, which would change the digest.
fn plain_headers() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}
