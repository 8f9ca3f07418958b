// SPDX-License-Identifier: Apache-2.0
//! Fetches manifests, configs and layers.
//!
//! The rule: a returned document was checked against its digest, or can be read if it was asked for by tag. The stream
//! of a layer was not checked, which its receiver does; but it is one stream without gaps or repetition, however often
//! the connection broke, and whether the registry serves parts or not.

use super::clients::Clients;
use super::encoding::{self, Encoding};
use super::endpoint::Endpoint;
use super::failure;
use super::failures::{Failures, rounds};
use super::layer_stream::{self, Stream};
use super::range;
use super::request::{Requests, Target};
use super::retry::{Failed, Patience};
use super::stall_detector::StallDetector;
use super::transport::{self, Body, body};
use crate::credentials::auth::Auth;
use crate::digest::Digest;
use crate::error::{Cause, Object};
use crate::layer::progress::{LayerProgress, WaitReason};
use crate::manifest::{ACCEPT, CONFIG_BYTES_MAX, Descriptor, MANIFEST_BYTES_MAX};
use crate::reference::Reference;
use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, ACCEPT_ENCODING, HeaderMap, HeaderValue, RANGE};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The largest number of tries for one layer, by all hosts together.
const TRIES_MAX: u32 = crate::limits::TRIES.number();
/// How many times the stall time tries of a layer may take that bring nothing.
const STALLS_MAX: u32 = 2;
/// The time for the end of a body whose bytes are all there.
const END_MAX: Duration = Duration::from_secs(5);

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
        let requests = Requests::new(clients, repository, auth);
        Ok(Self { requests, endpoints, watch })
    }

    /// The manifest or index behind a tag or digest. `check` refuses what is not one, so that the next host is asked.
    pub(crate) async fn manifest(
        &self,
        selector: &str,
        check: &Check<'_>,
    ) -> Result<Received, Cause> {
        let what = format!("{}:{selector}", self.requests.repository()).replace(":sha", "@sha");
        let want = Digest::parse(selector);
        let mut headers = plain_headers();
        headers.insert(ACCEPT_HEADER, HeaderValue::from_static(ACCEPT));
        let path = format!("manifests/{selector}");
        let object = if want.is_some() { Object::Manifest } else { Object::Tag };
        let target = Target { path: &path, what: &what, object };
        let (max, want) = (MANIFEST_BYTES_MAX, want.as_ref());
        self.document(&Ask { target, headers, max, want, size: 0, check }).await
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
        let target = Target { path: &path, what: &what, object: Object::Blob };
        let (headers, want, size) = (plain_headers(), Some(&descriptor.digest), descriptor.size);
        self.document(&Ask { target, headers, max, want, size, check: &|_| Ok(()) }).await
    }

    /// The config of an image.
    pub(crate) async fn config(&self, descriptor: &Descriptor) -> Result<Received, Cause> {
        let what = format!("config {}", descriptor.digest);
        self.blob(descriptor, what, CONFIG_BYTES_MAX).await
    }

    /// The endpoints for a request by digest or tag. Those that failed a moment ago come last.
    fn order(&self, by_digest: bool) -> Vec<&Endpoint> {
        // Only a digest can be asked of who may not say what a tag means.
        let may = |of: &&Endpoint| if by_digest { of.pulls } else { of.resolves };
        let mut asked: Vec<&Endpoint> = self.endpoints.iter().filter(may).collect();
        asked.sort_by_key(|of| self.requests.is_left_alone(of));
        asked
    }

    async fn document(&self, ask: &Ask<'_>) -> Result<Received, Cause> {
        let asked = self.order(ask.want.is_some());
        let mut failures = Failures::default();
        for (endpoint, patience) in rounds(&asked) {
            if !failures.allows(endpoint) {
                continue;
            }
            let began = Instant::now();
            let received = self.document_of(endpoint, patience, ask).await;
            let cause = received.as_ref().err();
            self.requests.count(endpoint, cause, began.elapsed(), asked.len() > 1);
            match received {
                Ok(received) => return Ok(received),
                Err(cause) => {
                    if !endpoint.is_registry {
                        tracing::warn!(mirror = %endpoint.host, error = %cause, "mirror not used");
                    }
                    failures.add(endpoint, cause);
                }
            }
        }
        Err(failures.into_cause().unwrap_or_else(|| self.no_endpoint(ask.target)))
    }

    async fn document_of(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        ask: &Ask<'_>,
    ) -> Result<Received, Cause> {
        let mut retry = self.requests.retry(patience, self.requests.stall());
        loop {
            let began = Instant::now();
            let mut failed = match self.document_once(endpoint, patience, ask).await {
                Ok(received) => return Ok(received),
                Err(failed) => failed,
            };
            failed.cause = failed.cause.asked_for(ask.target.what);
            self.requests.wait(&mut retry, failed, began.elapsed(), endpoint, &self.watch).await?;
        }
    }

    async fn document_once(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        ask: &Ask<'_>,
    ) -> Result<Received, Failed> {
        let (target, watch) = (ask.target, &self.watch);
        let response = self.requests.get(endpoint, patience, target, &ask.headers, watch).await?;
        let read = body(response, target.what, ask.max, &endpoint.host);
        let read = tokio::time::timeout(self.requests.stall(), read).await;
        let body = read.map_err(|_| self.stalled(endpoint, target.what))??;
        Ok(ask.checked(body, &endpoint.host)?)
    }

    /// The number of endpoints that serve layers.
    pub(crate) fn places(&self) -> usize {
        self.endpoints.iter().filter(|of| of.pulls).count()
    }

    /// Sends the bytes of a layer to `into`. Ends early, without an error, when the receiver was dropped: it knows why.
    /// Endpoints in `sources` are not asked; the one with which the stream began is added to them.
    pub(crate) async fn layer(
        &self,
        descriptor: &Descriptor,
        sources: &mut Vec<String>,
        into: mpsc::Sender<Bytes>,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        let what = format!("layer {}", descriptor.digest);
        let path = format!("blobs/{}", descriptor.digest);
        let target = Target { path: &path, what: &what, object: Object::Blob };
        let mut stream = Stream { descriptor, into, received: 0, tries: 0, target };
        let mut asked = self.order(true);
        asked.retain(|of| !sources.contains(&of.api));
        let mut failures = Failures::default();
        for (endpoint, patience) in rounds(&asked) {
            if !failures.allows(endpoint) {
                continue;
            }
            let (before, began) = (stream.received, Instant::now());
            let ended = self.layer_of(endpoint, patience, &mut stream, watch).await;
            let is_too_long = matches!(ended, Err(Cause::WrongSize { .. }));
            let has_progress = stream.received > before;
            self.requests.received(endpoint, stream.received.saturating_sub(before));
            if before == 0 && (has_progress || is_too_long) {
                sources.push(endpoint.api.clone());
            }
            let took = if has_progress { Duration::ZERO } else { began.elapsed() };
            self.requests.count(endpoint, ended.as_ref().err(), took, asked.len() > 1);
            match ended {
                Ok(()) => return Ok(()),
                // More bytes than the blob has: other endpoints cannot continue from there.
                Err(cause) if is_too_long => return Err(cause),
                Err(cause) => {
                    tracing::warn!(host = %endpoint.host, error = %cause, layer = %descriptor.digest, "layer failed");
                    failures.add(endpoint, cause);
                }
            }
        }
        Err(failures.into_cause().unwrap_or_else(|| self.no_endpoint(target)))
    }

    async fn layer_of(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        stream: &mut Stream<'_>,
        watch: &LayerProgress,
    ) -> Result<(), Cause> {
        let time_max = self.requests.stall().saturating_mul(STALLS_MAX);
        let mut retry = self.requests.retry(patience, time_max);
        // Whether the endpoint serves parts, and whether the next request is for a part.
        let (mut serves_parts, mut wants_part) = (true, true);
        loop {
            let (before, began) = (stream.received, Instant::now());
            let has_part = wants_part && serves_parts;
            let parts = has_part.then_some(&mut serves_parts);
            let mut failed = match self.attempt(endpoint, patience, stream, parts, watch).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            failed.cause = failed.cause.asked_for(stream.target.what);
            failed.has_part = stream.received > 0;
            stream.tries = stream.tries.saturating_add(1);
            if stream.received > before {
                retry.progress();
            }
            if stream.tries >= TRIES_MAX {
                return Err(failed.cause);
            }
            // An error of the moment may be about the part: the next request is for the whole.
            wants_part = failed.status.is_none() || !has_part;
            let (layer, at) = (&stream.descriptor.digest, stream.received);
            tracing::debug!(%layer, at, error = %failed.cause, "layer resumed");
            self.requests.wait(&mut retry, failed, began.elapsed(), endpoint, watch).await?;
        }
    }

    /// Requests a layer, or with `serves_parts` what is missing of it. Sets that to false if the endpoint refuses
    /// parts or sends another one, and then requests the whole. Returns the response and the number of its bytes that
    /// are known.
    async fn open(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        stream: &Stream<'_>,
        serves_parts: Option<&mut bool>,
        watch: &LayerProgress,
    ) -> Result<(Response, u64), Failed> {
        let mut headers = plain_headers();
        if let Some(serves_parts) = serves_parts.filter(|_| stream.received > 0) {
            let range = HeaderValue::from_str(&format!("bytes={}-", stream.received));
            headers.extend(range.ok().map(|range| (RANGE, range)));
            let target = stream.target;
            match self.requests.get(endpoint, patience, target, &headers, watch).await {
                Ok(response) => {
                    let known = range::known(&response, stream.received, stream.descriptor.size);
                    // A part of something compressed begins elsewhere.
                    let is_plain = encoding::of(response.headers()) == Encoding::Identity
                        || range::is_part_of(&response, stream.descriptor.size);
                    if let Some(known) = known.filter(|_| is_plain) {
                        return Ok((response, known));
                    }
                }
                Err(failed) if failed.status.is_none() || failed.cause.is_transient() => {
                    return Err(failed);
                }
                Err(_refused) => {}
            }
            *serves_parts = false;
            headers = plain_headers();
        }
        let response =
            self.requests.get(endpoint, patience, stream.target, &headers, watch).await?;
        let known = stream.check_whole(&response, endpoint)?;
        Ok((response, known))
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        stream: &mut Stream<'_>,
        serves_parts: Option<&mut bool>,
        watch: &LayerProgress,
    ) -> Result<(), Failed> {
        let (mut response, mut skip) =
            self.open(endpoint, patience, stream, serves_parts, watch).await?;
        let mut decoded = stream.decoded(&response)?;
        let mut stall = StallDetector::new(self.requests.stall());
        loop {
            watch.waits_for(WaitReason::Bytes);
            let began = Instant::now();
            let is_complete = stream.received == stream.descriptor.size;
            let limit = stall.time_left();
            let limit = if is_complete { limit.min(END_MAX) } else { limit };
            let chunk = match tokio::time::timeout(limit, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                // All bytes are there, whatever length was announced. The digest decides.
                Ok(Err(_)) | Err(_) if is_complete => break,
                Ok(Err(err)) => return Err(failure::unreachable(&endpoint.host, &err).into()),
                Err(_) => return Err(self.stalled(endpoint, stream.target.what).into()),
            };
            stall.received(chunk.len() as u64, began.elapsed());
            decoded.feed(chunk);
            stream.check_length(&decoded)?;
            while let Some(piece) = stream.next_piece(&mut decoded, endpoint)? {
                if !pass_on(stream, piece, &mut skip, watch).await? {
                    return Ok(());
                }
            }
        }
        if let Some(rest) = decoded.finish()
            && !pass_on(stream, rest, &mut skip, watch).await?
        {
            return Ok(());
        }
        if stream.received < stream.descriptor.size {
            let why =
                format!("ended after {} of {} bytes", stream.received, stream.descriptor.size);
            return Err(stream.broken(endpoint, why).into());
        }
        watch.waits_for(WaitReason::Inflate);
        Ok(())
    }

    fn stalled(&self, endpoint: &Endpoint, what: &str) -> Cause {
        transport::stalled(&endpoint.host, what, self.requests.stall())
    }

    fn no_endpoint(&self, target: Target<'_>) -> Cause {
        Cause::NotFound {
            host: "no registry".into(),
            what: format!("{} of {}", target.what, self.requests.repository()),
            object: target.object,
        }
    }
}

/// Sends a piece of a layer without the `skip` bytes that are known; false if the receiver was dropped.
async fn pass_on(
    stream: &mut Stream<'_>,
    mut piece: Bytes,
    skip: &mut u64,
    watch: &LayerProgress,
) -> Result<bool, Cause> {
    let known = (*skip).min(piece.len() as u64);
    *skip -= known;
    drop(piece.split_to(usize::try_from(known).unwrap_or(piece.len())));
    if piece.is_empty() {
        return Ok(true);
    }
    watch.waits_for(WaitReason::Inflate);
    let is_taken = stream.pass_on(piece).await?;
    if is_taken {
        watch.received(stream.received);
    }
    Ok(is_taken)
}

/// Refuses a document that is not of the kind that was asked for.
pub(crate) type Check<'a> = dyn Fn(&[u8]) -> Result<(), Cause> + Send + Sync + 'a;

/// A document that is asked for.
struct Ask<'a> {
    target: Target<'a>,
    headers: HeaderMap,
    /// The largest number of bytes that are read.
    max: u64,
    want: Option<&'a Digest>,
    /// The announced number of bytes; 0 if none was.
    size: u64,
    check: &'a Check<'a>,
}

impl Ask<'_> {
    /// The document of a body. What has the digest is the document, whatever the response says about its length and
    /// encoding.
    fn checked(&self, body: Body, host: &str) -> Result<Received, Cause> {
        let what = self.target.what;
        let is_wanted = |want: &&Digest| want.same_kind_of(&body.bytes) == **want;
        if let Some(want) = self.want.filter(is_wanted) {
            return Ok(Received { bytes: body.bytes, digest: want.clone() });
        }
        let bytes = body.complete(what, self.max)?;
        if transport::is_page(&bytes) {
            return Err(Cause::Page { host: host.to_owned(), status: 200, what: what.to_owned() });
        }
        let Some(want) = self.want else {
            (self.check)(&bytes)?;
            let digest = Digest::of(&bytes);
            return Ok(Received { bytes, digest });
        };
        let digest = want.same_kind_of(&bytes);
        if digest == *want {
            return Ok(Received { bytes, digest });
        }
        if (bytes.len() as u64) < self.size {
            let detail = format!("{what} ended after {} of {} bytes", bytes.len(), self.size);
            return Err(layer_stream::broken(host, detail));
        }
        Err(Cause::WrongDigest {
            what: what.to_owned(),
            want: want.to_string(),
            got: digest.to_string(),
        })
    }
}

/// Headers that forbid compression, which would change the digest.
fn plain_headers() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}
