// SPDX-License-Identifier: Apache-2.0
//! A cgroup's path, and its directory in every hierarchy. The operations are in files of their own.

use crate::cgroupfs::{CgroupFs, Version};
use crate::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// A cgroup: one path in every hierarchy of a host. Constructing it does not touch the host.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(crate) host: CgroupFs,
    /// The path without its leading slash.
    pub(crate) path: String,
}

impl Cgroup {
    /// The cgroup at `path`, absolute from each hierarchy's root.
    pub fn at(host: &CgroupFs, path: &str) -> Result<Self, Error> {
        let inner = path.strip_prefix('/').map(|rest| rest.trim_end_matches('/'));
        let parts_good = |rest: &&str| {
            !rest.is_empty()
                && rest
                    .split('/')
                    .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
        };
        match inner.filter(parts_good) {
            Some(rest) => Ok(Self { host: host.clone(), path: rest.to_owned() }),
            None => Err(Error::BadPath { path: path.chars().take(200).collect() }),
        }
    }

    /// The parent cgroup; `None` directly below the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (above, _) = self.path.rsplit_once('/')?;
        Some(Self { host: self.host.clone(), path: above.to_owned() })
    }

    pub(crate) fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.host.roots().map(|root| root.join(&self.path))
    }

    pub(crate) fn version(&self) -> Version {
        self.host.version()
    }

    /// The path, absolute from the root of the hierarchy.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("/{}", self.path)
    }

    /// The cgroup's directory in the v2 tree.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        self.host.unified().map(|root| root.join(&self.path))
    }

    /// The cgroup's directory in the hierarchy of a v1 controller.
    pub(crate) fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.host.hierarchy(controller).map(|root| root.join(&self.path))
    }

    /// Opens the cgroup's directory in the v2 tree, to clone a process into; `None` on a host without one.
    pub fn dir_fd(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(path) = self.unified() else { return Ok(None) };
        let opened = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
            .open(&path);
        opened.map(|dir| Some(dir.into())).map_err(|source| Error::Read { path, source })
    }
}
