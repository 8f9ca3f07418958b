// SPDX-License-Identifier: Apache-2.0
//! Pulling: manifest, config, layers side by side, then the record.
//!
//! The rule: a pull runs in its own task and goes on when its caller leaves; whoever asks for the
//! same with the same credentials meanwhile joins it. Others' credentials never decide what one
//! gets: the manifest is asked for with one's own, even if all layers are here.

use super::layers::Made;
use super::record::{self, Record};
use super::{Image, Inner, Store, files};
use crate::auth::Auth;
use crate::digest::Digest;
use crate::document::{self, Descriptor, Document, Manifest};
use crate::error::{Cause, Error};
use crate::layer::Expected;
use crate::pipe::pipe;
use crate::reference::Reference;
use crate::registry::Session;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// A step of progress is told after so many bytes.
const PROGRESS_BYTES: u64 = 512 << 10;

/// How far a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The layer's.
    pub digest: String,
    /// Bytes that came, compressed.
    pub received: u64,
    /// Bytes there are, compressed.
    pub total: u64,
    /// What happens with it.
    pub state: ProgressState,
}

/// What happens with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressState {
    /// Others are first.
    Waiting,
    /// It comes, and is unpacked as it comes.
    Receiving,
    /// It is there.
    Unpacked,
    /// It was there before.
    Present,
}

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

type Outcome = Option<Result<Arc<Image>, Error>>;

/// A pull that others may join.
#[derive(Debug, Clone)]
pub(super) struct Running {
    listeners: Arc<Listeners>,
    outcome: watch::Receiver<Outcome>,
}

/// Who wants to know how far a pull is.
#[derive(Debug, Default)]
struct Listeners {
    senders: Mutex<Vec<mpsc::Sender<Progress>>>,
}

impl Listeners {
    fn join(&self, sender: Option<mpsc::Sender<Progress>>) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).extend(sender);
    }

    /// A listener that is too slow misses steps; it never slows the pull.
    fn tell(&self, layer: &Descriptor, received: u64, state: ProgressState) {
        let step =
            Progress { digest: layer.digest.to_string(), received, total: layer.size, state };
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| {
            !matches!(sender.try_send(step.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }
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
        let key = Key { reference: reference.clone(), credentials: Auth::key(auth) };
        let mut running = self.join_or_begin(&key, auth);
        running.listeners.join(progress);
        drop(running.listeners);
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
        let listeners = Arc::new(Listeners::default());
        let running = Running { listeners: Arc::clone(&listeners), outcome };
        pulls.insert(key.clone(), running.clone());
        let (inner, key, auth) = (Arc::clone(&self.inner), key.clone(), auth.cloned());
        tokio::spawn(async move {
            let pulled = inner.pull(&key.reference, auth, &listeners).await;
            let result =
                pulled.map_err(|source| Error::Pull { image: key.reference.to_string(), source });
            inner.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            // Nobody may be waiting any more.
            told.send_replace(Some(result));
        });
        running
    }
}

impl Inner {
    async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<Auth>,
        listeners: &Arc<Listeners>,
    ) -> Result<Arc<Image>, Cause> {
        let session = Arc::new(Session::new(Arc::clone(&self.clients), reference, auth)?);
        let (manifest, digest) = self.resolve(&session, reference).await?;
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
        let expected = manifest.layers.iter().zip(config.diff_ids);
        let made = self.layers(&session, expected, listeners).await?;
        let record = (manifest.config.digest, text);
        let names = (reference.tagged(), Some(reference.digested(&digest)));
        let inner = Arc::clone(self);
        blocking(move || {
            inner.record(record, made, &names.0.into_iter().collect::<Vec<_>>(), names.1)
        })
        .await
    }

    /// Follows indexes to the manifest for this machine. The digest is that of what the name means.
    async fn resolve(
        &self,
        session: &Session,
        reference: &Reference,
    ) -> Result<(Manifest, Digest), Cause> {
        let first = session.manifest(reference.selector()).await?;
        let mut document = document::parse(&first.bytes, "the manifest", &self.machine)?;
        for _ in 0..document::INDEX_DEPTH_MAX {
            match document {
                Document::Manifest(manifest) => return Ok((manifest, first.digest)),
                Document::Index(chosen) => {
                    let next = session.manifest(chosen.digest.as_str()).await?;
                    document = document::parse(&next.bytes, "the manifest", &self.machine)?;
                }
            }
        }
        Err(Cause::Document { what: "the index".into(), why: "too many indexes in indexes".into() })
    }

    async fn layers<'a>(
        self: &'a Arc<Self>,
        session: &'a Arc<Session>,
        layers: impl Iterator<Item = (&'a Descriptor, Digest)>,
        listeners: &'a Arc<Listeners>,
    ) -> Result<Vec<(Expected, Made)>, Cause> {
        let mut tasks = Vec::new();
        // Every unpacker holds the sending end: the other end hears when the last has ended.
        let (busy, mut idle): (Busy, _) = mpsc::channel(1);
        for (number, (descriptor, diff_id)) in layers.enumerate() {
            listeners.tell(descriptor, 0, ProgressState::Waiting);
            let expected =
                Expected { blob: Some((descriptor.digest.clone(), descriptor.size)), diff_id };
            let busy = busy.clone();
            tasks.push(async move {
                let made = self.layer(session, descriptor, &expected, listeners, busy).await?;
                Ok::<_, Cause>((number, (expected, made)))
            });
        }
        let running = stream::iter(tasks).buffer_unordered(self.config.concurrent_layers.max(1));
        let made: Result<Vec<Numbered>, Cause> = running.try_collect().await;
        // When one layer fails the others stop receiving, but their unpackers still clear up after
        // themselves. A pull that has failed has nothing on the disk.
        drop(busy);
        let _all_ended = idle.recv().await;
        let mut made = made?;
        made.sort_by_key(|(number, _)| *number);
        Ok(made.into_iter().map(|(_, made)| made).collect())
    }

    async fn layer(
        self: &Arc<Self>,
        session: &Session,
        descriptor: &Descriptor,
        expected: &Expected,
        listeners: &Arc<Listeners>,
        busy: Busy,
    ) -> Result<Made, Cause> {
        let _turn = self.unpacking.wait(expected.diff_id.hex()).await;
        if let Some(layer) = self.present(&expected.diff_id) {
            listeners.tell(descriptor, descriptor.size, ProgressState::Present);
            return Ok(Made::Placed(layer));
        }
        listeners.tell(descriptor, 0, ProgressState::Receiving);
        let (into, bytes) = pipe();
        let (inner, of) = (Arc::clone(self), expected.clone());
        // In this order: what was made and is wanted no more goes before this counts as ended.
        let unpacking = tokio::task::spawn_blocking(move || (inner.make_layer(bytes, &of), busy));
        let mut told = 0;
        let fetched = session
            .layer(descriptor, into, |received| {
                if received - told >= PROGRESS_BYTES {
                    told = received;
                    listeners.tell(descriptor, received, ProgressState::Receiving);
                }
            })
            .await;
        // A stream that broke off is seen there as an end; why it ended is known here.
        let unpacked = unpacking.await.map_or_else(|_| Err(ended()), |(made, _busy)| made);
        fetched?;
        let made = unpacked?;
        listeners.tell(descriptor, descriptor.size, ProgressState::Unpacked);
        Ok(made)
    }

    /// Makes layers durable and lists the image. Blocks.
    pub(super) fn record(
        self: &Arc<Self>,
        (id, config): (Digest, String),
        made: Vec<(Expected, Made)>,
        tags: &[String],
        digest: Option<String>,
    ) -> Result<Arc<Image>, Cause> {
        let keep = |source| Cause::Keep { what: format!("image {id}"), source };
        let held = self.settle(made)?;
        let directory = files::open_dir(&self.path("layers")).map_err(keep)?;
        rustix::fs::syncfs(&directory)
            .map_err(hull_sys::Error::of(|| "syncfs(layers)"))
            .map_err(keep)?;
        let layers = held.iter().map(|of| of.layer().clone()).collect();
        let record = Record::new(&id, config, layers);
        let (image, unneeded) = {
            let mut index = self.index();
            (index.add(record, tags, digest).map_err(keep)?, index.collect())
        };
        drop(held);
        // The image is there. What cannot be removed now is swept when the store is opened.
        let removed = unneeded
            .and_then(|all| all.iter().try_for_each(|directory| files::remove_tree(directory)));
        if let Err(err) = removed {
            tracing::warn!(error = %err, "layers that no image needs left behind");
        }
        Ok(image)
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
