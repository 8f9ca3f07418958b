// SPDX-License-Identifier: Apache-2.0
//! Settings of the store, and the plain values that it returns.

use crate::limits::Limits;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a store.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The store's directory.
    pub root: PathBuf,
    /// The settings of the registry client.
    pub remote: Remote,
    /// The number of layers of an image that are pulled at the same time.
    pub concurrent_layers: usize,
    /// Names of images that the kubelet must not remove.
    pub pinned: Vec<String>,
    /// The limits on what an image may cost.
    pub limits: Limits,
    /// The image policy file.
    pub policy: Option<PathBuf>,
    /// Store the compressed layers too.
    pub keep_blobs: bool,
}

/// The settings of the registry client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Settings of single registries.
    pub registries: Vec<Registry>,
    /// A directory of `<host>/hosts.toml`, which take precedence over `registries`.
    pub config_path: Option<PathBuf>,
    /// Docker's `config.json`: credentials for pulls that bring none.
    pub docker_config: Option<PathBuf>,
    /// How long a connection may receive nothing before it counts as stalled.
    pub stall: Duration,
    /// The first pause before a request is sent again, where the registry does not ask for another one. Each further
    /// pause is twice as long, with a random part of it taken off.
    pub pause: Duration,
}

impl Default for Remote {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            config_path: None,
            docker_config: None,
            stall: Duration::from_secs(60),
            pause: Duration::from_millis(500),
        }
    }
}

/// The settings of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `host` or `host:port`, as in names of images.
    pub host: String,
    /// Base URLs of mirrors, tried in this order before the registry.
    pub mirrors: Vec<String>,
    /// Use plain HTTP.
    pub plain_http: bool,
    /// Accept any certificate.
    pub skip_verify: bool,
    /// A PEM file of additional CAs to trust.
    pub ca_file: Option<PathBuf>,
}

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the image's config, `sha256:…`.
    pub id: String,
    /// Its tags, each as `registry/repository:tag`.
    pub repo_tags: Vec<String>,
    /// Its digests, each as `registry/repository@digest`.
    pub repo_digests: Vec<String>,
    /// Approximate disk usage, unpacked, including layers that it shares with other images.
    pub size: u64,
    /// The image's config.
    pub config: ImageConfiguration,
    /// The directories of its layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Whether the kubelet must not remove it to free space.
    pub pinned: bool,
    /// Its platform. Images of older records have none.
    pub platform: Option<Platform>,
}

/// The platform of an image, and why this image was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As the index or the config spells it, such as `linux/amd64/v3`.
    pub name: String,
    /// Why it was taken, as a sentence.
    pub why: String,
}

/// Disk usage on a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// A directory on that file system.
    pub mountpoint: PathBuf,
    /// The number of used bytes.
    pub bytes: u64,
    /// The number of used inodes.
    pub inodes: u64,
}

/// The use of a writable layer, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerQuota {
    /// Bytes that it uses on disk.
    pub used_bytes: u64,
    /// The most bytes that it may use.
    pub limit_bytes: u64,
}

impl LayerQuota {
    /// Less than this counts as nothing: a file system allocates by blocks, and a write of more than what is left fails as a whole.
    const LEFT_BYTES: u64 = 64 << 10;

    /// Whether nothing of any size can be written to it any more.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.used_bytes.saturating_add(Self::LEFT_BYTES) > self.limit_bytes
    }
}

/// The capacity of the store's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskCapacity {
    /// The size of the file system in bytes.
    pub bytes: u64,
    /// The number of free inodes.
    pub inodes_free: u64,
}

/// A record that was set aside when the store was opened.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The path of the record, under its new name.
    pub path: PathBuf,
    /// Why the record cannot be used.
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

/// The result of comparing a layer with its file list.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The diff id of the layer.
    pub layer: String,
    /// The ids of the images that have this layer.
    pub images: Vec<String>,
    /// Disk usage of the layer in bytes.
    pub bytes: u64,
    /// Each path that differs, and how it differs.
    pub findings: Vec<(String, String)>,
    /// Why the layer could not be compared, if it could not.
    pub unknown: Option<String>,
}

impl Verified {
    /// Whether the whole layer is as it was stored.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.unknown.is_none()
    }
}

/// An image that was imported from an archive.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The image as it is listed.
    pub image: Arc<Image>,
    /// The names that the archive or the caller gave it.
    pub names: Vec<String>,
}

/// The result of importing an archive.
#[derive(Debug, Clone)]
pub struct Imports {
    /// The images that were imported.
    pub images: Vec<Imported>,
    /// Everything else that the archive lists.
    pub left: Vec<Left>,
}

/// Something in an archive that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its digest or name.
    pub name: String,
    /// Why it was not imported, as a sentence.
    pub why: String,
}
