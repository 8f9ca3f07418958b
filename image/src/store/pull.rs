// SPDX-License-Identifier: Apache-2.0
//! Pulls an image: manifest, config, layers in parallel, then the record.
//!
//! The rule: a pull runs in its own task and continues when its caller leaves; a request for the same
//! name with the same credentials joins it. Credentials of other callers never decide what a caller
//! gets: the manifest is requested with its own credentials, even if all layers are stored.

use super::blocking::{blocking, ended};
use super::commit::{CompleteImage, commit};
use super::layers::{Layers, NewLayer};
use super::progress::{Progress, ProgressState, ProgressTracker};
use super::settings::LiveSettings;
use crate::credentials::{self, auth::Auth};
use crate::digest::Digest;
use crate::error::{Cause, Error};
use crate::layer::Expected;
use crate::layer::progress::{LayerProgress, WaitReason};
use crate::layer::tee_reader::pipe;
use crate::limits::Work;
use crate::manifest::platform::Machine;
use crate::manifest::{self, Descriptor, Found, Search, Step, Way};
use crate::policy::{self, Rule};
use crate::reference::Reference;
use crate::registry::{PullFigures, PullStage, Session};
use crate::types::Image;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

/// Identifies a pull: name and credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    reference: Reference,
    credentials: String,
}

/// Held by every running unpacker; nothing is ever sent.
type Busy = mpsc::Sender<()>;

/// A layer with its position in the image.
type Indexed = (usize, (Expected, NewLayer));

/// A layer that is being pulled.
struct InFlight<'a> {
    descriptor: &'a Descriptor,
    expected: &'a Expected,
    watch: Arc<LayerProgress>,
    busy: Busy,
    work: Work,
}

type Outcome = Option<Result<Arc<Image>, Error>>;

/// A running pull that others may join.
#[derive(Debug, Clone)]
pub(super) struct Running {
    progress: Arc<ProgressTracker>,
    outcome: watch::Receiver<Outcome>,
}

/// Pulls images, each of them once at a time.
#[derive(Debug)]
pub(super) struct Puller {
    pub(super) layers: Arc<Layers>,
    pub(super) machine: Machine,
    pub(super) settings: LiveSettings,
    pub(super) running: Mutex<HashMap<Key, Running>>,
}

impl Puller {
    /// Pulls an image, or joins the pull of it that runs already. Dropping the future does not stop
    /// the pull.
    pub(super) async fn join(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<&Auth>,
        listener: Option<mpsc::Sender<Progress>>,
    ) -> Result<Arc<Image>, Error> {
        let key = Key { reference: reference.clone(), credentials: Auth::key(auth) };
        let mut running = self.join_or_start(&key, auth);
        running.progress.join(listener);
        drop(running.progress);
        let outcome = running.outcome.wait_for(Option::is_some).await;
        let broken = || Error::Broken { image: reference.to_string() };
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err(broken()))
    }

    /// The figures of pulls so far.
    pub(super) fn figures(&self) -> PullFigures {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.settings.current().clients.figures(running as u64)
    }

    fn join_or_start(self: &Arc<Self>, key: &Key, auth: Option<&Auth>) -> Running {
        let mut pulls = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // A pull whose task ended without a result cannot be joined.
        if let Some(running) =
            pulls.get(key).filter(|running| running.outcome.has_changed().is_ok())
        {
            return running.clone();
        }
        let (sender, outcome) = watch::channel(None);
        let progress = Arc::new(ProgressTracker::default());
        let running = Running { progress: Arc::clone(&progress), outcome };
        pulls.insert(key.clone(), running.clone());
        let (puller, key, auth) = (Arc::clone(self), key.clone(), auth.cloned());
        let image = key.reference.to_string();
        // The pull of all who have joined it, and not of the first of them.
        let span = tracing::error_span!(parent: None, "pull", image);
        let work = async move {
            let pulled = tokio::select! {
                pulled = puller.pull(&key.reference, auth, &progress) => pulled,
                () = progress.watch(&image) => Err(ended()),
            };
            let result = pulled.map_err(|source| Error::Pull { image, source });
            puller.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // All callers may have left.
            sender.send_replace(Some(result));
        };
        tokio::spawn(work.instrument(span));
        running
    }
}

impl Puller {
    async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<Auth>,
        progress: &Arc<ProgressTracker>,
    ) -> Result<Arc<Image>, Cause> {
        let settings = self.settings.current();
        let auth = match (auth, &settings.docker_config) {
            (None, Some(path)) => credentials::find(path, reference.host()).await?,
            (auth, _) => auth,
        };
        if let Some((policy, Rule::Reject(why))) = settings.rule(reference) {
            return Err(policy.refusal(why.clone()));
        }
        let watch = Arc::clone(&progress.watch);
        let session = Session::new(Arc::clone(&settings.clients), reference, auth, watch)?;
        let session = Arc::new(session);
        let counters = &settings.clients.counters;
        let began = Instant::now();
        let found = self.resolve(&session, reference).await;
        counters.stage(PullStage::Resolve, began.elapsed());
        let Found { manifest, text, config, digests, platform } = found?;
        if let Some((policy, Rule::Signed(keys))) = settings.rule(reference) {
            let found = policy::signed(&session, &digests, keys).await?;
            found.map_err(|why| {
                policy.refusal(format!("{} must be signed: {why}", reference.name()))
            })?;
        }
        if config.diff_ids.len() != manifest.layers.len() {
            return Err(Cause::Document {
                what: "the image".into(),
                why: format!(
                    "its manifest has {} layers, its config {}",
                    manifest.layers.len(),
                    config.diff_ids.len()
                ),
            });
        }
        let expected: Vec<_> = manifest.layers.iter().zip(config.diff_ids).collect();
        self.has_room(&expected)?;
        let began = Instant::now();
        let made = self.layers((&session, settings.concurrent_layers), expected, progress).await;
        counters.stage(PullStage::Layers, began.elapsed());
        let made = made.map_err(|cause| self.how_much(cause, progress))?;
        let ready = CompleteImage {
            id: manifest.config.digest,
            config: text,
            made,
            tags: reference.tagged().into_iter().collect(),
            digest: digests.first().map(|digest| reference.digested(digest)),
            platform,
        };
        let layers = Arc::clone(&self.layers);
        progress.watch.waits_for(WaitReason::Sync);
        let (work, _guard) = Work::guarded();
        let began = Instant::now();
        let recorded = blocking(move || commit(&layers, vec![ready], &work)).await;
        counters.stage(PullStage::Record, began.elapsed());
        let recorded = recorded.map_err(|cause| self.how_much(cause, progress))?;
        recorded.into_iter().next().ok_or_else(ended)
    }

    /// Checks that the missing layers can fit: each takes at least its compressed size.
    fn has_room(&self, layers: &[(&Descriptor, Digest)]) -> Result<(), Cause> {
        let is_missing = |of: &&(&Descriptor, Digest)| !self.layers.index.lock().has(of.1.hex());
        // The sizes come from the manifest.
        let sizes = layers.iter().filter(is_missing).map(|(of, _)| of.size);
        let need = sizes.fold(0, u64::saturating_add);
        let free = self.layers.layout.free_bytes();
        if need <= free {
            return Ok(());
        }
        Err(Cause::NoSpace {
            what: "the image".into(),
            need,
            free,
            path: self.layers.layout.root().to_owned(),
        })
    }

    /// Adds to a disk-full error how much the image needs, estimated from what was received.
    fn how_much(&self, cause: Cause, progress: &ProgressTracker) -> Cause {
        if !cause.is_no_space() {
            return cause;
        }
        let (received, total, inflated) = progress.bytes();
        let ratio = u128::from(inflated.max(received)) * u128::from(total);
        let need = u64::try_from(ratio / u128::from(received.max(1))).unwrap_or(u64::MAX);
        Cause::NoSpace {
            what: "the image".into(),
            need: need.max(total),
            free: self.layers.layout.free_bytes(),
            path: self.layers.layout.root().to_owned(),
        }
    }

    /// Follows indexes to the image for this machine.
    async fn resolve(&self, session: &Session, reference: &Reference) -> Result<Found, Cause> {
        // A page or an artifact is the fault of the host that sent it; an image for other machines is not.
        let check = |bytes: &[u8]| match manifest::parse(bytes, "the manifest", &self.machine) {
            Err(cause) if cause.is_unreadable() => Err(cause),
            Ok(_) | Err(_) => Ok(()),
        };
        let first = session.manifest(reference.selector(), &check).await?;
        let mut search = Search::new(&self.machine);
        search.document(&first.bytes, first.digest, Way::default())?;
        loop {
            match search.next()? {
                Step::Document(of, way) => {
                    let next = session.manifest(of.digest.as_str(), &|_| Ok(())).await?;
                    search.document(&next.bytes, next.digest, way)?;
                }
                Step::Config(manifest, way) => {
                    let received = session.config(&manifest.config).await?;
                    if let Some(found) = search.config(&received.bytes, manifest, way)? {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// Makes the layers of an image, so many of them at a time.
    async fn layers<'a>(
        self: &'a Arc<Self>,
        (session, concurrent): (&'a Arc<Session>, usize),
        layers: Vec<(&'a Descriptor, Digest)>,
        progress: &'a Arc<ProgressTracker>,
    ) -> Result<Vec<(Expected, NewLayer)>, Cause> {
        let mut tasks = Vec::new();
        // Every unpacker holds the sending end, so the receiving end returns when the last has ended.
        let (busy, mut idle): (Busy, _) = mpsc::channel(1);
        let (work, guard) = Work::guarded();
        for (number, (descriptor, diff_id)) in layers.into_iter().enumerate() {
            let watch = progress.layer(descriptor);
            progress.state(&watch, ProgressState::Waiting);
            let expected =
                Expected { blob: Some((descriptor.digest.clone(), descriptor.size)), diff_id };
            let (busy, work) = (busy.clone(), work.clone());
            tasks.push(async move {
                let in_flight = InFlight { descriptor, expected: &expected, watch, busy, work };
                let made = self.layer(session, &in_flight, progress).await?;
                Ok::<_, Cause>((number, (expected, made)))
            });
        }
        let running = stream::iter(tasks).buffer_unordered(concurrent.max(1));
        let made: Result<Vec<Indexed>, Cause> = running.try_collect().await;
        // When one layer fails the others stop receiving, but their unpackers still remove their files.
        // A failed pull leaves nothing on the disk.
        drop(busy);
        let guard = made.is_ok().then_some(guard);
        let _all_ended = idle.recv().await;
        drop(guard);
        let mut made = made?;
        made.sort_by_key(|(number, _)| *number);
        Ok(made.into_iter().map(|(_, made)| made).collect())
    }

    async fn layer(
        self: &Arc<Self>,
        session: &Session,
        in_flight: &InFlight<'_>,
        progress: &ProgressTracker,
    ) -> Result<NewLayer, Cause> {
        let _turn = self.layers.locks.lock(in_flight.expected.diff_id.hex()).await;
        if let Some(layer) = self.layers.present(&in_flight.expected.diff_id) {
            progress.state(&in_flight.watch, ProgressState::Present);
            return Ok(NewLayer::Stored(layer));
        }
        progress.state(&in_flight.watch, ProgressState::Receiving);
        let mut sources = Vec::new();
        loop {
            let tried = sources.len();
            match self.fetch(session, in_flight, &mut sources).await {
                // Another mirror may have an intact copy.
                Err(cause)
                    if cause.is_damage()
                        && sources.len() > tried
                        && sources.len() < session.places() =>
                {
                    let layer = &in_flight.descriptor.digest;
                    tracing::warn!(%layer, error = %cause, "layer is damaged, trying the next host");
                }
                made => {
                    let made = made?;
                    progress.state(&in_flight.watch, ProgressState::Unpacked);
                    return Ok(made);
                }
            }
        }
    }

    async fn fetch(
        self: &Arc<Self>,
        session: &Session,
        in_flight: &InFlight<'_>,
        sources: &mut Vec<String>,
    ) -> Result<NewLayer, Cause> {
        let InFlight { descriptor, expected, watch, busy, work } = in_flight;
        let (into, bytes) = pipe();
        let (layers, of, busy) = (Arc::clone(&self.layers), (*expected).clone(), busy.clone());
        let (seen, work) = (Arc::clone(watch), work.clone());
        // The tuple is dropped in this order: the scratch directory is removed before `busy`.
        let unpacking = tokio::task::spawn_blocking(move || {
            (layers.make_layer(bytes, &of, &seen, &work), busy)
        });
        let fetched = session.layer(descriptor, sources, into, watch).await;
        // The unpacker sees a broken stream as its end; the reason is known here.
        let unpacked = unpacking.await.map_or_else(|_| Err(ended()), |(made, _busy)| made);
        fetched?;
        unpacked
    }
}
