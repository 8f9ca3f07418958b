// SPDX-License-Identifier: Apache-2.0
//! The root of one side of a copy.

use super::owners::Owners;
use hull_proto::admin;
use hull_sys::open_in_root;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use tonic::Streaming;

/// The root in which the paths of a side are resolved, and its owners.
#[derive(Debug)]
pub(super) struct Root {
    /// `None` for the host, whose paths are the caller's own.
    pub(super) container: Option<OwnedFd>,
    pub(super) owners: Owners,
}

/// Keeps a container that does not run from being started: the daemon releases it with this stream, and the stream ends
/// with the daemon.
#[derive(Debug)]
pub(super) struct Hold(pub(super) Streaming<admin::HoldResponse>);

impl Hold {
    /// Whether the stream has ended.
    pub(super) async fn has_ended(&mut self) -> bool {
        tokio::select! {
            biased;
            // The daemon sends nothing more while the container is held.
            _ended = self.0.message() => true,
            () = std::future::ready(()) => false,
        }
    }
}

impl Root {
    /// Opens a path; as the last component, a link is itself unless `follow` is set.
    pub(super) fn open(&self, path: &Path, flags: OFlags, follow: bool) -> io::Result<OwnedFd> {
        let flags = if follow { flags } else { flags | OFlags::NOFOLLOW };
        match &self.container {
            None => Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?),
            Some(root) => {
                let opened = open_in_root(root.as_fd(), path, flags, ResolveFlags::empty());
                opened.map_err(io::Error::other)
            }
        }
    }
}
