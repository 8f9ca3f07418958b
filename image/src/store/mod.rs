// SPDX-License-Identifier: Apache-2.0
//! The image store: a facade over its parts, each of which owns one piece of state.
//!
//! ```text
//! <root>/images/<id hex>.json   an image: its names, config, layers   (*.bad: set aside)
//! <root>/layers/<diff id hex>/  a layer, unpacked, as overlayfs stacks it
//! <root>/inventories/<layer>    the file list of a layer: see [`file_list`](crate::file_list)
//! <root>/containers/<id>/       upper and work of a container
//! <root>/blobs/<digest hex>     a compressed layer, if `keep_blobs` is set
//! <root>/boot                   the id of the boot in which all layers were scanned
//! <root>/tmp/                   incomplete or half removed files; emptied at open
//! <root>/empty/                 the layer of images without layers
//! <root>/below/                 empty, the lowest layer of image volumes
//! <root>/places/                mount points of every container, the lowest layer of root file systems
//! ```
//!
//! The rule: a record is written after all of its layers, and removed before the first of them. So a
//! layer that no record names is a leftover, and is removed at open; unless a record could not be
//! read, since the layer may belong to it.
//!
//! Not here: which image a container uses. The caller keeps that.

mod blocking;
mod boot;
mod changes;
mod commit;
mod export;
mod import;
mod index;
mod integrity;
mod layers;
mod layout;
mod progress;
mod pull;
mod quotas;
mod rootfs;
mod scratch;
mod settings;
mod spool;

pub use progress::{Progress, ProgressState};
pub use quotas::check_quotas;
pub use rootfs::{Measure, Rootfs};
pub use settings::NewSettings;
pub use spool::Spool;

use crate::credentials::auth::Auth;
use crate::error::{Cause, Error};
use crate::limits::Work;
use crate::manifest::platform::Machine;
use crate::reference::Reference;
use crate::registry::PullFigures;
use crate::types::{Config, DiskCapacity, FsUsage, Image, Imports, LayerQuota, Problem, Verified};
use blocking::blocking;
use hull_sys as sys;
use import::Importer;
use index::{Index, IndexWriter, SharedIndex};
use integrity::Integrity;
use layers::{LayerLocks, Layers};
use layout::{Layout, is_refused};
use pull::Puller;
use rootfs::WritableLayers;
use settings::{LiveSettings, Settings};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The images of a node. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {
    parts: Arc<Parts>,
}

/// The parts of a store, each with one owner of its state.
#[derive(Debug)]
struct Parts {
    layout: Layout,
    index: SharedIndex,
    integrity: Arc<Integrity>,
    layers: Arc<Layers>,
    puller: Arc<Puller>,
    importer: Arc<Importer>,
    writable_layers: WritableLayers,
    settings: LiveSettings,
}

impl Store {
    /// Opens the store in `config.root`: creates it if it is missing, and removes what a crash left.
    /// A store that cannot be written to is opened for reading; see
    /// [`check_writable`](Self::check_writable).
    pub fn open(config: Config) -> Result<(Self, Vec<Problem>), Error> {
        let failed = |source| Error::Open { path: config.root.clone(), source };
        let layout = Layout::new(config.root.clone());
        let created = layout.create().and_then(|()| rootfs::create_mount_points(&layout));
        let writable = match created.and_then(|()| layout.probe_writable()) {
            Ok(()) => true,
            Err(err) if is_refused(&err) => false,
            Err(err) => return Err(failed(err)),
        };
        if writable {
            layout.sweep().map_err(failed)?;
            quotas::sweep(&layout);
        }
        let settings = LiveSettings::new(Settings::of(&config, None)?);
        let mut index = Index::new(layout.clone(), settings::pinned(&config));
        let problems = index.load(writable).map_err(failed)?;
        let parts = Parts::new(layout, SharedIndex::new(index), settings);
        Ok((Self { parts: Arc::new(parts) }, problems))
    }

    /// Reads what changed settings name, such as the policy. Changes nothing. Blocks.
    pub fn read_settings(&self, config: &Config) -> Result<NewSettings, Error> {
        NewSettings::read(config, &self.parts.settings.current())
    }

    /// Takes over changed settings, except the directory. They concern the pulls and imports that begin from now on;
    /// which images are pinned changes at once.
    pub fn configure(&self, new: NewSettings) {
        let NewSettings { settings, pinned, .. } = new;
        self.parts.settings.replace(settings);
        self.parts.index.lock().set_pinned(pinned);
    }

    /// Whether images and containers can be added: the file system may be read-only, from the start
    /// or since an I/O error. `access(2)`.
    pub fn check_writable(&self) -> Result<(), Error> {
        self.parts.layout.check_writable()
    }

    /// Returns all listed images, sorted by id.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.parts.index.lock().images()
    }

    /// The image with this name or id, or the only image whose id has this prefix.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.parts.index.lock().find(name)
    }

    /// Adds a tag to an image. Blocks. With `force` the tag is taken from another image that has it. The policy
    /// decides about the name as it does about names in an archive.
    pub fn tag(&self, image: &str, name: &str, force: bool) -> Result<Arc<Image>, Error> {
        let new = Reference::parse(name)?;
        self.check_writable()?;
        let no_tag = || Error::Reference {
            text: name.to_owned(),
            why: "the new name must have a tag and no digest",
        };
        let tag = new.tagged().ok_or_else(no_tag)?;
        let failed = |source| Error::Tag { image: image.to_owned(), name: tag.clone(), source };
        if let Some(policy) = &self.parts.settings.current().policy {
            policy.check_import(&[new]).map_err(failed)?;
        }
        let missing = || Error::NoImage { image: image.to_owned() };
        let mut writer = IndexWriter::begin(&self.parts.index);
        let (record, _) = self.parts.index.lock().record(image).ok_or_else(missing)?;
        let is_others = |of: Arc<Image>| of.id != record.id;
        if !force && self.find(&tag).is_some_and(is_others) {
            return Err(Error::NameTaken { image: image.to_owned(), name: tag });
        }
        let keep = |source| failed(Cause::Keep { what: format!("image {image}"), source });
        writer.tag(record, tag.clone()).map_err(keep)?.ok_or_else(missing)
    }

    /// Removes the image that has this name or id, with all its names, and then the layers that no other image needs.
    /// An image with containers (`used`, called with its id) stays. Removing an image that is not there is a success.
    pub fn remove(&self, name: &str, used: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        self.removed(name, |writer| {
            let Some((record, _)) = self.parts.index.lock().record(name) else {
                return Ok(Vec::new());
            };
            match writer.remove(&record.id, used) {
                // By the name that was given.
                Err(Error::InUse { .. }) => Err(Error::InUse { image: name.to_owned() }),
                removed => removed,
            }
        })
    }

    /// Removes one name of an image, and the image itself if that is its last tag or if `name` is its id. An image with
    /// containers keeps its last name.
    pub fn untag(&self, name: &str, used: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        self.removed(name, |writer| writer.remove(name, used))
    }

    fn removed(
        &self,
        name: &str,
        remove: impl FnOnce(&mut IndexWriter<'_>) -> Result<Vec<PathBuf>, Error>,
    ) -> Result<(), Error> {
        self.check_writable()?;
        let removal = remove(&mut IndexWriter::begin(&self.parts.index))?;
        let failed = |source| Error::Remove { image: name.to_owned(), source };
        for directory in removal {
            hull_sys::remove_tree(&directory).map_err(failed)?;
        }
        Ok(())
    }

    /// Disk usage of all layers, counted as they come and go, without walking them.
    pub fn usage(&self) -> Result<FsUsage, Error> {
        let (bytes, inodes) = self.parts.index.lock().usage();
        Ok(FsUsage { mountpoint: self.parts.layout.root().to_owned(), bytes, inodes })
    }

    /// The size of the store's file system. `statvfs(3)`.
    pub fn capacity(&self) -> Result<DiskCapacity, Error> {
        let path = self.parts.layout.root();
        let found = rustix::fs::statvfs(path)
            .map_err(sys::Error::of(|| format!("statvfs({})", path.display())))
            .map_err(|source| Error::Open { path: path.to_owned(), source })?;
        let bytes = found.f_blocks.saturating_mul(found.f_frsize);
        Ok(DiskCapacity { bytes, inodes_free: found.f_favail })
    }

    /// Pulls an image, or joins a running pull of the same name with the same credentials. Dropping the
    /// future does not stop the pull.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Arc<Image>, Error> {
        self.check_writable()?;
        self.parts.puller.join(reference, auth, progress).await
    }

    /// The figures of pulls since the store was opened.
    #[must_use]
    pub fn pull_figures(&self) -> PullFigures {
        self.parts.puller.figures()
    }

    /// An unnamed file beside the layers, to receive an archive that is to be imported.
    pub fn spool(&self) -> Result<Spool, Error> {
        self.check_writable()?;
        let layout = &self.parts.layout;
        let file = layout
            .unnamed_file()
            .map_err(|source| Error::Open { path: layout.root().to_owned(), source })?;
        Ok(Spool::new(file, self.parts.settings.current().limits.archive_bytes))
    }

    /// The error of an archive that could not be written to its [`Spool`].
    #[must_use]
    pub fn spool_failed(&self, error: std::io::Error) -> Error {
        let root = self.parts.layout.root().display();
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            let max = self.parts.settings.current().limits.archive_bytes;
            return Error::Import { source: Cause::ArchiveTooLarge { what: "bytes", max } };
        }
        let what = format!("the archive in {root} while it arrives");
        Error::Import { source: Cause::Keep { what, source: sys::Error::of_io(|| "write")(error) } }
    }

    /// Imports all images of an archive that are for this machine. `name` is given to an image that
    /// has none in the archive, and replaces the names of the only one.
    ///
    /// The archive is read from its start, whatever its position.
    pub async fn import(
        &self,
        archive: impl Into<File>,
        name: Option<&str>,
    ) -> Result<Imports, Error> {
        let name = name.map(Reference::parse).transpose()?;
        self.check_writable()?;
        let archive = archive.into();
        let importer = Arc::clone(&self.parts.importer);
        // Dropping this future stops the import, until its images are being listed.
        let (work, _guard) = Work::guarded();
        blocking(move || importer.import(archive, name.as_ref(), &work))
            .await
            .map_err(|source| Error::Import { source })
    }

    /// Writes the images with these names, or ids, as an archive. Blocks.
    pub fn export(&self, names: &[String], out: impl Write) -> Result<(), Error> {
        export::export(&self.parts.layers, names, out)
    }

    /// Checks that the files of an image's layers are there, once after each boot. Blocks: two
    /// microseconds per file.
    pub fn check_layers(&self, image: &Image) -> Result<(), Error> {
        self.parts.integrity.check(image)
    }

    /// Whether no layer of an image is known to be broken.
    #[must_use]
    pub fn is_whole(&self, image: &Image) -> bool {
        self.parts.integrity.is_whole(image)
    }

    /// Checks all layers that were not checked since the machine was started. Blocks.
    pub fn scan_layers(&self) {
        self.parts.integrity.scan_unverified();
    }

    /// Reads every layer of an image, or of all images, and compares it with its file list. A layer that
    /// differs counts as broken from then on. Dropping the future stops it.
    pub async fn verify(&self, name: Option<&str>) -> Result<Vec<Verified>, Error> {
        let layers = self.parts.index.lock().layers_of(name);
        let layers = layers.ok_or_else(|| Error::NoImage { image: name.unwrap_or("").into() })?;
        let mut all = Vec::new();
        let (work, _guard) = Work::guarded();
        for (layer, images) in layers {
            let (integrity, work) = (Arc::clone(&self.parts.integrity), work.clone());
            let verified = blocking(move || Ok(integrity.verified(&layer, images, &work)));
            all.push(verified.await.map_err(|source| Error::Verify { source })?);
        }
        Ok(all)
    }

    /// Pulls the broken layers of an image again, from where it came.
    pub async fn repair(&self, name: &str, auth: Option<&Auth>) -> Result<(), Error> {
        let image = self.find(name).ok_or_else(|| Error::NoImage { image: name.to_owned() })?;
        let mut last = Err(Error::NoSource { image: integrity::shown(&image) });
        for from in image.repo_digests.iter().chain(&image.repo_tags) {
            if self.is_whole(&image) {
                return Ok(());
            }
            let Ok(reference) = Reference::parse(from) else { continue };
            last = self.pull(&reference, auth, None).await.map(drop);
        }
        if self.is_whole(&image) { Ok(()) } else { last }
    }

    /// Creates the writable layer of a container. May be repeated. `owner` maps the user and group of
    /// the root directory in the image to those that it has on the host.
    pub fn create_rootfs(
        &self,
        container: &str,
        image: &Image,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
    ) -> Result<Rootfs, Error> {
        self.create_limited_rootfs(container, image, owner, None)
    }

    /// The same, with a writable layer that can use no more than so many bytes on disk, if that is not `None`. See
    /// [`check_quotas`](Self::check_quotas).
    pub fn create_limited_rootfs(
        &self,
        container: &str,
        image: &Image,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
        size_max: Option<u64>,
    ) -> Result<Rootfs, Error> {
        self.check_layers(image)?;
        self.check_writable()?;
        self.parts.writable_layers.create(container, image, owner, size_max)
    }

    /// Checks that writable layers can have a limit.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn check_quotas(&self) -> Result<(), String> {
        self.parts.writable_layers.quotas().check()
    }

    /// The use of a writable layer, and its limit; `None` if it has none.
    #[must_use]
    pub fn rootfs_quota(&self, container: &str) -> Option<LayerQuota> {
        self.parts.writable_layers.quota(container)
    }

    /// The limits of writable layers that are gone, by the number of their project.
    #[must_use]
    pub fn leaked_quotas(&self) -> Vec<u32> {
        self.parts.writable_layers.quotas().leaked()
    }

    /// Removes such a limit.
    pub fn free_quota(&self, project: u32) -> Result<(), Error> {
        let freed = self.parts.writable_layers.quotas().free(project);
        freed.map_err(|source| Error::Quota { project, source })
    }

    /// The paths of a container's root file system, whether it was created or not.
    #[must_use]
    pub fn rootfs(&self, container: &str, image: &Image) -> Rootfs {
        self.parts.writable_layers.paths(container, image)
    }

    /// The lower layers to mount an image as a volume, without a writable layer: two at least.
    #[must_use]
    pub fn volume_layers(&self, image: &Image) -> Vec<PathBuf> {
        self.parts.writable_layers.volume_layers(image)
    }

    /// Writes what a container has changed in its root file system as an archive, and returns the absolute paths that it
    /// has removed. `owner` maps the user and group of a file on the host to those in the container. Blocks.
    pub fn rootfs_changes(
        &self,
        container: &str,
        image: &Image,
        owner: &dyn Fn(u32, u32) -> (u32, u32),
        out: &mut dyn Write,
    ) -> Result<Vec<String>, Error> {
        self.parts.writable_layers.changes(container, image, owner, out)
    }

    /// Removes the writable layer of a container. Removing one that is not there is a success.
    pub fn remove_rootfs(&self, container: &str) -> Result<(), Error> {
        self.parts.writable_layers.remove(container)
    }

    /// Walks a writable layer and returns its disk usage.
    pub fn rootfs_usage(&self, container: &str) -> Result<FsUsage, Error> {
        self.parts.writable_layers.usage(container)
    }

    /// The same, until `measure` is stopped, which is an error. Its memory grows with the depth of the
    /// tree, not with its width.
    pub fn rootfs_measured(&self, container: &str, measure: &Measure) -> Result<FsUsage, Error> {
        self.parts.writable_layers.measure(container, measure)
    }

    /// Disk usage of all writable layers, each as it was measured last.
    #[must_use]
    pub fn rootfs_usage_known(&self) -> FsUsage {
        self.parts.writable_layers.known_usage()
    }

    /// The containers that have a writable layer.
    #[must_use]
    pub fn rootfs_ids(&self) -> Vec<String> {
        self.parts.writable_layers.ids()
    }
}

impl Parts {
    fn new(layout: Layout, index: SharedIndex, settings: LiveSettings) -> Self {
        let integrity = Arc::new(Integrity::new(layout.clone(), index.clone()));
        let layers = Arc::new(Layers {
            layout: layout.clone(),
            index: index.clone(),
            integrity: Arc::clone(&integrity),
            settings: settings.clone(),
            locks: LayerLocks::default(),
        });
        let puller = Arc::new(Puller {
            layers: Arc::clone(&layers),
            machine: Machine::this(),
            settings: settings.clone(),
            running: Mutex::default(),
        });
        let importer = Arc::new(Importer {
            layers: Arc::clone(&layers),
            machine: Machine::this(),
            settings: settings.clone(),
        });
        let writable_layers = WritableLayers::new(layout.clone());
        Self { layout, index, integrity, layers, puller, importer, writable_layers, settings }
    }
}
