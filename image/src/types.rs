// SPDX-License-Identifier: Apache-2.0
//! Settings of the store, and the plain values that it returns.

use crate::limits::Limits;
use oci_spec::image::ImageConfiguration;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
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
pub struct DiskCapacity {
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

/// What was found out about a layer.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Its diff id.
    pub layer: String,
    /// Images that have it, by id.
    pub images: Vec<String>,
    /// Bytes that it takes.
    pub bytes: u64,
    /// Paths and what is wrong with each.
    pub findings: Vec<(String, String)>,
    /// Why it could not be compared, if it could not.
    pub unknown: Option<String>,
}

impl Verified {
    /// Whether all of it is as it was stored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.unknown.is_none()
    }
}

/// An image that came out of an archive.
#[derive(Debug, Clone)]
pub struct Imported {
    /// It.
    pub image: Arc<Image>,
    /// The names that the archive, or the caller, gave it.
    pub names: Vec<String>,
}
