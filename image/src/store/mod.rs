// SPDX-License-Identifier: Apache-2.0
//! The image store: what was promised to be there, on disk and in memory.
//!
//! ```text
//! <root>/images/<id hex>.json   an image: its names, config, layers   (*.bad: set aside)
//! <root>/layers/<diff id hex>/  a layer, unpacked, as overlayfs stacks it
//! <root>/inventories/<layer>    what it holds: see [`inventory`](crate::inventory)
//! <root>/containers/<id>/       upper and work of a container
//! <root>/blobs/<digest hex>     it as it travels, if those are kept
//! <root>/boot                   the boot in which all layers were looked through
//! <root>/tmp/                   what is half made or half removed; emptied at open
//! <root>/empty/                 the layer of images that have none
//! <root>/below/                 empty too, the lowest layer of image volumes
//! ```
//!
//! The rule: a record is there after all of its layers, and goes before the first of them. So a
//! layer that no record names is left over and is swept at open; unless a record could not be read,
//! for it may be its.
//!
//! Not here: which image a container uses. The caller knows.

mod export;
mod import;
mod index;
mod integrity;
mod layers;
mod progress;
mod pull;
mod record;
mod rootfs;
mod spool;

pub use import::Imported;
pub use integrity::Verified;
pub use progress::{Progress, ProgressState};
pub use rootfs::{Measure, Rootfs};
pub use spool::Spool;

use crate::error::{Cause, Error};
use crate::files;
use crate::limits::Limits;
use crate::platform::Machine;
use crate::policy::Policy;
use crate::reference::Reference;
use crate::registry::Clients;
use hull_sys as sys;
use index::Index;
use oci_spec::image::ImageConfiguration;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Settings of the store.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where everything is kept.
    pub root: PathBuf,
    /// How registries are talked to.
    pub remote: Remote,
    /// How many layers of an image are pulled at a time.
    pub concurrent_layers: usize,
    /// Names of images that the kubelet shall not remove.
    pub pinned: Vec<String>,
    /// How large a layer may be.
    pub limits: Limits,
    /// The file that says which images may come here.
    pub policy: Option<PathBuf>,
    /// Keep layers as they travel, too.
    pub keep_blobs: bool,
}

/// How registries are talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// What is special about some registries.
    pub registries: Vec<Registry>,
    /// A directory of `<host>/hosts.toml`, which go before `registries`.
    pub config_path: Option<PathBuf>,
    /// Docker's `config.json`: credentials for pulls that bring none.
    pub docker_config: Option<PathBuf>,
    /// How long nothing may come before a connection counts as stalled.
    pub stall: Duration,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            config_path: None,
            docker_config: None,
            stall: Duration::from_secs(60),
        }
    }
}

/// Settings of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `host` or `host:port`, as in names of images.
    pub host: String,
    /// Base addresses of mirrors, asked first, in this order.
    pub mirrors: Vec<String>,
    /// Talk plain HTTP.
    pub plain_http: bool,
    /// Trust any certificate.
    pub skip_verify: bool,
    /// Trust these CAs too. PEM.
    pub ca_file: Option<PathBuf>,
}

/// An image that is here.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…` of its config.
    pub id: String,
    /// `registry/repository:tag`, each.
    pub repo_tags: Vec<String>,
    /// `registry/repository@digest`, each.
    pub repo_digests: Vec<String>,
    /// About how much it takes on disk, unpacked; layers that it shares included.
    pub size: u64,
    /// Its config.
    pub config: ImageConfiguration,
    /// Directories of its layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Not to be removed to make space.
    pub pinned: bool,
}

/// What is taken on a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// A directory on it.
    pub mountpoint: PathBuf,
    /// Bytes taken.
    pub bytes: u64,
    /// Files, directories and so on.
    pub inodes: u64,
}

/// The filesystem that the store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its size.
    pub bytes: u64,
    /// Files, directories and so on that it can still hold.
    pub inodes_free: u64,
}

/// Something that was set aside when the store was opened.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The record, under the name that it has now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, why } = self;
        write!(
            f,
            "{}: {why}; pull the image again and remove the file, unneeded layers are kept until then",
            path.display()
        )
    }
}

/// The images of a node. Cheap to clone; all clones are one store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    machine: Machine,
    clients: Arc<Clients>,
    index: Mutex<Index>,
    pulls: Mutex<HashMap<pull::Key, pull::Running>>,
    /// One at a time unpacks a layer, whichever images it is of.
    unpacking: layers::Turns,
    doubts: Mutex<integrity::Doubts>,
    policy: Option<Policy>,
    /// Bytes and inodes that containers have written, as measured last.
    written: Mutex<HashMap<String, (u64, u64)>>,
}

impl Store {
    /// Opens the store in `config.root`, makes it if it is not there, and sweeps what a crash left.
    /// One that cannot be written to is opened as it is: what is in it can be used, see
    /// [`check_writable`](Self::check_writable).
    pub fn open(config: Config) -> Result<(Self, Vec<Problem>), Error> {
        let failed = |source| Error::Open { path: config.root.clone(), source };
        let made = make_directories(&config.root);
        let writable = match made.and_then(|()| writable(&config.root)) {
            Ok(()) => true,
            Err(err) if is_refused(&err) => false,
            Err(err) => return Err(failed(err)),
        };
        if writable {
            sweep(&config.root.join("tmp")).map_err(failed)?;
        }
        let policy = config.policy.as_deref().map(Policy::read).transpose()?;
        let pinned = config.pinned.iter().filter_map(|name| Reference::parse(name).ok());
        let mut index = Index::new(&config.root, pinned.map(|of| of.to_string()).collect());
        let problems = index.load(writable).map_err(failed)?;
        let unseen = Inner::unseen(&config.root, index.layer_names());
        let clients = Arc::new(Clients::new(config.remote.clone()));
        let inner = Inner {
            config,
            machine: Machine::this(),
            clients,
            index: Mutex::new(index),
            pulls: Mutex::default(),
            unpacking: layers::Turns::default(),
            doubts: Mutex::new(integrity::Doubts { unseen, ..Default::default() }),
            policy,
            written: Mutex::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, problems))
    }

    /// Whether images and containers can be brought in: the filesystem may be read-only, from the start
    /// or since an I/O error. `access(2)`.
    pub fn check_writable(&self) -> Result<(), Error> {
        let root = &self.inner.config.root;
        writable(root).map_err(|source| Error::ReadOnly { path: root.clone(), source })
    }

    /// All images.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.index().images()
    }

    /// The image with this name or id, or with the only id that begins so.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Image>> {
        self.inner.index().find(name)
    }

    /// Gives an image another name. With `force` the name is taken from another image that has it. The policy
    /// decides on the name as on one that comes from an archive.
    pub fn tag(&self, image: &str, name: &str, force: bool) -> Result<Arc<Image>, Error> {
        let new = Reference::parse(name)?;
        self.check_writable()?;
        let no_tag = || Error::Reference {
            text: name.to_owned(),
            why: "what is given has a tag, no digest",
        };
        let tag = new.tagged().ok_or_else(no_tag)?;
        let failed = |source| Error::Tag { image: image.to_owned(), name: tag.clone(), source };
        if let Some(policy) = &self.inner.policy {
            policy.check_import(&[new]).map_err(failed)?;
        }
        let missing = || Error::NoImage { image: image.to_owned() };
        let mut index = self.inner.index();
        let (record, _) = index.record(image).ok_or_else(missing)?;
        let is_others = |of: Arc<Image>| of.id != record.id;
        if !force && index.find(&tag).is_some_and(is_others) {
            return Err(Error::NameTaken { image: image.to_owned(), name: tag });
        }
        let keep = |source| failed(Cause::Keep { what: format!("image {image}"), source });
        index.tag(record, tag.clone()).map_err(keep)?.ok_or_else(missing)
    }

    /// Removes a name, or all of an image's when `name` is its id or its last tag. Then layers go that
    /// no image needs. An image with containers (`used`, asked with its id) keeps its last name.
    /// Removing what is not there is a success.
    pub fn remove(&self, name: &str, used: &dyn Fn(&str) -> bool) -> Result<(), Error> {
        self.check_writable()?;
        let removal = self.inner.index().remove(name, used)?;
        let failed = |source| Error::Remove { image: name.to_owned(), source };
        for directory in removal {
            files::remove_tree(&directory).map_err(failed)?;
        }
        Ok(())
    }

    /// What layers and images take. Counted as they come and go, not measured now.
    pub fn usage(&self) -> Result<FsUsage, Error> {
        let (bytes, inodes) = self.inner.index().usage();
        Ok(FsUsage { mountpoint: self.inner.config.root.clone(), bytes, inodes })
    }

    /// How large the filesystem of the store is. `statvfs(3)`.
    pub fn room(&self) -> Result<Room, Error> {
        let path = &self.inner.config.root;
        let found = rustix::fs::statvfs(path)
            .map_err(sys::Error::of(|| format!("statvfs({})", path.display())))
            .map_err(|source| Error::Open { path: path.clone(), source })?;
        let bytes = found.f_blocks.saturating_mul(found.f_frsize);
        Ok(Room { bytes, inodes_free: found.f_favail })
    }
}

impl Inner {
    fn index(&self) -> MutexGuard<'_, Index> {
        // The index is changed in one go, after what may fail: a panic leaves it whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubts(&self) -> MutexGuard<'_, integrity::Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.root.join(name)
    }
}

fn make_directories(root: &Path) -> sys::Result<()> {
    if let Some(parent) = root.parent() {
        std::fs::create_dir_all(parent)
            .map_err(sys::Error::of_io(|| format!("mkdir({})", parent.display())))?;
    }
    files::make_dir(root, 0o700)?;
    for name in ["images", "layers", "inventories", "blobs", "containers", "tmp"] {
        files::make_dir(&root.join(name), 0o700)?;
    }
    files::make_dir(&root.join("below"), 0o755)?;
    rootfs::make_places(&root.join(rootfs::PLACES))?;
    files::make_dir(&root.join("empty"), 0o755)
}

/// Whether something can be made in the store at `root`.
fn writable(root: &Path) -> sys::Result<()> {
    let path = root.join("tmp");
    let how = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(&path, how)
        .map_err(sys::Error::of(|| format!("access({}, W_OK)", path.display())))
}

/// Whether a directory is there but not to be written to.
fn is_refused(error: &sys::Error) -> bool {
    use rustix::io::Errno;
    matches!(error.errno(), Errno::ROFS | Errno::ACCESS | Errno::PERM)
}

/// The names in a directory of the store; none in one that could not be made.
fn names_if_there(path: &Path) -> sys::Result<Vec<String>> {
    match files::names(path) {
        Err(err) if err.is_not_found() => Ok(Vec::new()),
        other => other,
    }
}

fn sweep(directory: &Path) -> sys::Result<()> {
    for name in files::names(directory)? {
        files::remove_tree(&directory.join(name))?;
    }
    Ok(())
}
