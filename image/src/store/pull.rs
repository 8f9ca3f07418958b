// SPDX-License-Identifier: Apache-2.0
//! Pulling: manifest, config, layers side by side, then the record.
//!
//! The rule: a pull runs in its own task and goes on when its caller leaves; whoever asks for the
//! same with the same credentials meanwhile joins it. Others' credentials never decide what one
//! gets: the manifest is asked for with one's own, even if all layers are here.

use super::index::New;
use super::layers::Made;
use super::progress::{Progress, ProgressState, Sight};
use super::record::{self, Record};
use super::{Image, Inner, Store, files};
use crate::auth::Auth;
use crate::credentials;
use crate::digest::Digest;
use crate::document::{self, Descriptor, Document, Manifest};
use crate::error::{Cause, Error};
use crate::layer::Expected;
use crate::limits::Work;
use crate::pipe::pipe;
use crate::policy::{self, Policy, Rule};
use crate::reference::Reference;
use crate::registry::Session;
use crate::watch::{Wait, Watch};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::sync::{Arc, PoisonError};
use tokio::sync::{mpsc, watch};

/// What makes two pulls the same: name and credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    reference: Reference,
    credentials: String,
}

/// Held by work that is under way; nothing is ever sent.
type Busy = mpsc::Sender<()>;

/// A layer with its place in the image.
type Numbered = (usize, (Expected, Made));

/// An image of which everything is here, to be made durable and listed.
pub(super) struct Ready {
    pub(super) id: Digest,
    /// To the byte.
    pub(super) config: String,
    /// Lowest first.
    pub(super) made: Vec<(Expected, Made)>,
    pub(super) tags: Vec<String>,
    pub(super) digest: Option<String>,
}

/// A layer on its way here.
struct OnWay<'a> {
    descriptor: &'a Descriptor,
    expected: &'a Expected,
    watch: Arc<Watch>,
    busy: Busy,
    work: Work,
}

type Outcome = Option<Result<Arc<Image>, Error>>;

/// A pull that others may join.
#[derive(Debug, Clone)]
pub(super) struct Running {
    sight: Arc<Sight>,
    outcome: watch::Receiver<Outcome>,
}

impl Store {
    /// Pulls an image, or joins the pull of it that runs already. Dropping the future does not stop
    /// the pull.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Arc<Image>, Error> {
        self.check_writable()?;
        let key = Key { reference: reference.clone(), credentials: Auth::key(auth) };
        let mut running = self.join_or_begin(&key, auth);
        running.sight.join(progress);
        drop(running.sight);
        let outcome = running.outcome.wait_for(Option::is_some).await;
        let broken = || Error::Broken { image: reference.to_string() };
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or_else(|| Err(broken()))
    }

    fn join_or_begin(&self, key: &Key, auth: Option<&Auth>) -> Running {
        let mut pulls = self.inner.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose task is gone without an answer is no pull any more.
        if let Some(running) =
            pulls.get(key).filter(|running| running.outcome.has_changed().is_ok())
        {
            return running.clone();
        }
        let (told, outcome) = watch::channel(None);
        let sight = Arc::new(Sight::default());
        let running = Running { sight: Arc::clone(&sight), outcome };
        pulls.insert(key.clone(), running.clone());
        let (inner, key, auth) = (Arc::clone(&self.inner), key.clone(), auth.cloned());
        tokio::spawn(async move {
            let image = key.reference.to_string();
            let pulled = tokio::select! {
                pulled = inner.pull(&key.reference, auth, &sight) => pulled,
                () = sight.watch(&image) => Err(ended()),
            };
            let result = pulled.map_err(|source| Error::Pull { image, source });
            inner.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // Nobody may be waiting any more.
            told.send_replace(Some(result));
        });
        running
    }
}

/// What a name means: the manifest for this machine, and the digests on the way to it. The first is
/// that of what the name means.
struct Resolved {
    manifest: Manifest,
    digests: Vec<Digest>,
}

impl Inner {
    async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<Auth>,
        sight: &Arc<Sight>,
    ) -> Result<Arc<Image>, Cause> {
        let auth = match (auth, &self.config.remote.docker_config) {
            (None, Some(path)) => credentials::find(path, reference.host()).await?,
            (auth, _) => auth,
        };
        if let Some((policy, Rule::Reject(why))) = self.rule(reference) {
            return Err(policy.refusal(why.clone()));
        }
        let watch = Arc::clone(&sight.watch);
        let session = Session::new(Arc::clone(&self.clients), reference, auth, watch)?;
        let session = Arc::new(session);
        let Resolved { manifest, digests } = self.resolve(&session, reference).await?;
        if let Some((policy, Rule::Signed(keys))) = self.rule(reference) {
            let found = policy::signed(&session, &digests, keys).await?;
            found.map_err(|why| {
                policy.refusal(format!("{} must be signed: {why}", reference.name()))
            })?;
        }
        let received = session.config(&manifest.config).await?;
        let (text, config) = record::checked_config(&received.bytes, &self.machine)?;
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
        let made = self.layers(&session, expected, sight).await;
        let made = made.map_err(|cause| self.how_much(cause, sight))?;
        let ready = Ready {
            id: manifest.config.digest,
            config: text,
            made,
            tags: reference.tagged().into_iter().collect(),
            digest: digests.first().map(|digest| reference.digested(digest)),
        };
        let inner = Arc::clone(self);
        sight.watch.waits_for(Wait::Sync);
        let (work, _guard) = Work::guarded();
        let recorded = blocking(move || inner.record(vec![ready], &work)).await;
        let recorded = recorded.map_err(|cause| self.how_much(cause, sight))?;
        recorded.into_iter().next().ok_or_else(ended)
    }

    /// What the policy says, if there is one.
    fn rule(&self, reference: &Reference) -> Option<(&Policy, &Rule)> {
        self.policy.as_ref().map(|policy| (policy, policy.rule(reference)))
    }

    /// Whether what is missing could fit: it takes at least what it has compressed.
    fn has_room(&self, layers: &[(&Descriptor, Digest)]) -> Result<(), Cause> {
        let is_missing = |of: &&(&Descriptor, Digest)| !self.index().has(of.1.hex());
        // Sizes are what somebody else says.
        let sizes = layers.iter().filter(is_missing).map(|(of, _)| of.size);
        let need = sizes.fold(0, u64::saturating_add);
        let free = self.free();
        if need <= free {
            return Ok(());
        }
        Err(Cause::NoSpace { what: "the image".into(), need, free, path: self.config.root.clone() })
    }

    fn free(&self) -> u64 {
        // Without an answer there is no reason to refuse anything.
        let free = |of: rustix::fs::StatVfs| of.f_bavail.saturating_mul(of.f_frsize);
        rustix::fs::statvfs(&self.config.root).map_or(u64::MAX, free)
    }

    /// A disk that is full says how much would have been needed, by what has come until then.
    fn how_much(&self, cause: Cause, sight: &Sight) -> Cause {
        if !cause.is_no_space() {
            return cause;
        }
        let (received, total, inflated) = sight.bytes();
        let ratio = u128::from(inflated.max(received)) * u128::from(total);
        let need = u64::try_from(ratio / u128::from(received.max(1))).unwrap_or(u64::MAX);
        Cause::NoSpace {
            what: "the image".into(),
            need: need.max(total),
            free: self.free(),
            path: self.config.root.clone(),
        }
    }

    /// Follows indexes to the manifest for this machine.
    async fn resolve(&self, session: &Session, reference: &Reference) -> Result<Resolved, Cause> {
        let first = session.manifest(reference.selector()).await?;
        let mut digests = vec![first.digest];
        let mut document = document::parse(&first.bytes, "the manifest", &self.machine)?;
        for _ in 0..document::INDEX_DEPTH_MAX {
            match document {
                Document::Manifest(manifest) => return Ok(Resolved { manifest, digests }),
                Document::Index(chosen) => {
                    let next = session.manifest(chosen.digest.as_str()).await?;
                    digests.push(next.digest);
                    document = document::parse(&next.bytes, "the manifest", &self.machine)?;
                }
            }
        }
        Err(Cause::Document { what: "the index".into(), why: "too many indexes in indexes".into() })
    }

    async fn layers<'a>(
        self: &'a Arc<Self>,
        session: &'a Arc<Session>,
        layers: Vec<(&'a Descriptor, Digest)>,
        sight: &'a Arc<Sight>,
    ) -> Result<Vec<(Expected, Made)>, Cause> {
        let mut tasks = Vec::new();
        // Every unpacker holds the sending end: the other end hears when the last has ended.
        let (busy, mut idle): (Busy, _) = mpsc::channel(1);
        let (work, guard) = Work::guarded();
        for (number, (descriptor, diff_id)) in layers.into_iter().enumerate() {
            let watch = sight.layer(descriptor);
            sight.state(&watch, ProgressState::Waiting);
            let expected =
                Expected { blob: Some((descriptor.digest.clone(), descriptor.size)), diff_id };
            let (busy, work) = (busy.clone(), work.clone());
            tasks.push(async move {
                let on_way = OnWay { descriptor, expected: &expected, watch, busy, work };
                let made = self.layer(session, &on_way, sight).await?;
                Ok::<_, Cause>((number, (expected, made)))
            });
        }
        let running = stream::iter(tasks).buffer_unordered(self.config.concurrent_layers.max(1));
        let made: Result<Vec<Numbered>, Cause> = running.try_collect().await;
        // When one layer fails the others stop receiving, but their unpackers still clear up after
        // themselves. A pull that has failed has nothing on the disk.
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
        on_way: &OnWay<'_>,
        sight: &Sight,
    ) -> Result<Made, Cause> {
        let _turn = self.unpacking.wait(on_way.expected.diff_id.hex()).await;
        if let Some(layer) = self.present(&on_way.expected.diff_id) {
            sight.state(&on_way.watch, ProgressState::Present);
            return Ok(Made::Placed(layer));
        }
        sight.state(&on_way.watch, ProgressState::Receiving);
        let mut skipped = 0;
        loop {
            match self.fetch(session, on_way, skipped).await {
                // What one has broken another may have whole.
                Err(cause) if cause.is_damage() && skipped + 1 < session.places() => {
                    skipped += 1;
                    let layer = &on_way.descriptor.digest;
                    tracing::warn!(%layer, error = %cause, "damaged layer is asked of the next host");
                }
                made => {
                    let made = made?;
                    sight.state(&on_way.watch, ProgressState::Unpacked);
                    return Ok(made);
                }
            }
        }
    }

    async fn fetch(
        self: &Arc<Self>,
        session: &Session,
        on_way: &OnWay<'_>,
        skipped: usize,
    ) -> Result<Made, Cause> {
        let OnWay { descriptor, expected, watch, busy, work } = on_way;
        let (into, bytes) = pipe();
        let (inner, of, busy) = (Arc::clone(self), (*expected).clone(), busy.clone());
        let (seen, work) = (Arc::clone(watch), work.clone());
        // In this order: what was made and is wanted no more goes before this counts as ended.
        let unpacking =
            tokio::task::spawn_blocking(move || (inner.make_layer(bytes, &of, &seen, &work), busy));
        let fetched = session.layer(descriptor, skipped, into, watch).await;
        // A stream that broke off is seen there as an end; why it ended is known here.
        let unpacked = unpacking.await.map_or_else(|_| Err(ended()), |(made, _busy)| made);
        fetched?;
        unpacked
    }

    /// Makes layers durable and lists their images. Blocks.
    pub(super) fn record(
        self: &Arc<Self>,
        ready: Vec<Ready>,
        work: &Work,
    ) -> Result<Vec<Arc<Image>>, Cause> {
        let what = match ready.as_slice() {
            [only] => format!("image {}", only.id),
            many => format!("{} images", many.len()),
        };
        let keep = |source| Cause::Keep { what: what.clone(), source };
        let (mut new, mut held) = (Vec::new(), Vec::new());
        for Ready { id, config, made, tags, digest } in ready {
            let layers = self.settle(made, work)?;
            let records = layers.iter().map(|of| of.layer().clone()).collect();
            new.push(New { record: Record::new(&id, config, records), tags, digest });
            held.extend(layers);
        }
        let directory = self.path("layers");
        files::open_dir(&directory)
            .and_then(|layers| files::sync_all(&layers, &directory))
            .map_err(keep)?;
        let (images, unneeded) = {
            let mut index = self.index();
            (index.add(new).map_err(keep)?, index.collect())
        };
        drop(held);
        // The images are there. What cannot be removed now is swept when the store is opened.
        let removed = unneeded
            .and_then(|all| all.iter().try_for_each(|directory| files::remove_tree(directory)));
        if let Err(err) = removed {
            tracing::warn!(error = %err, "layers that no image needs left behind");
        }
        Ok(images)
    }
}

fn ended() -> Cause {
    Cause::Document {
        what: "a layer".into(),
        why: "the thread that unpacked it ended without an answer".into(),
    }
}

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, Cause> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|_| Err(ended()))
}
