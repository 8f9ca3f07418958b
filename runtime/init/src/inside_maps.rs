// SPDX-License-Identifier: Apache-2.0
//! Bind mounts of the container's own files with mapped ids, in a user namespace that is not ours.
//!
//! ```text
//! child, whose root has the files           parent, with rights over their file system
//!   │ clones the tree, detached                │
//!   ├──────────── its descriptor ─────────────▶│ maps its ids, in place
//!   │◀──────────── 0, or an errno ─────────────┤
//!   │ attaches it                              │
//! ```
//!
//! Ids of a mount are mapped by who has CAP_SYS_ADMIN in the user namespace that owns the file system, and only as
//! long as the mount was never attached (`mount_setattr(2)`): the child lacks the one, and the parent cannot name what
//! earlier mounts brought into the root.

use crate::bind::{Bind, map_ids};
use crate::mount::{Result, errno_context};
use crate::mount_sources::Sources;
use crate::plan::{Namespace, Plan, Source, Step, StepError};
use hull_sys::Attr;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::cell::Cell;
use std::os::fd::{AsFd as _, OwnedFd};

/// A socket until one side takes it.
type Side = Cell<Option<OwnedFd>>;

/// The part of a launch in which the parent maps ids for the child. Without such mounts it does nothing.
pub(crate) struct MapPhase {
    /// Socket of the parent, and that of the child: each side takes its own, and closes the other.
    sides: Option<(Side, Side)>,
    /// User namespaces with the maps, in the order of the operations; with true for the mounts below too.
    maps: Vec<(OwnedFd, bool)>,
}

/// The child's end of the socket, by which it has trees mapped, one after the other.
#[derive(Debug)]
pub(crate) struct Mapper(OwnedFd);

impl MapPhase {
    /// Takes the user namespaces for such mounts out of `sources`.
    pub(crate) fn new(plan: &Plan, sources: &mut Sources) -> Result<Self, StepError> {
        let mut maps = Vec::new();
        for (at, op) in plan.ops.iter().enumerate() {
            if plan.namespaces.user != Namespace::Inherit
                && let Some(bind) = Bind::of(op)
                && let (Source::Inside(_), Some((_, recursive))) = (bind.source, bind.id_maps)
                && let Some(user) = sources.remove(&at)
            {
                maps.push((user, recursive));
            }
        }
        if maps.is_empty() {
            return Ok(Self { sides: None, maps });
        }
        let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None)
            .map_err(|errno| StepError::new(Step::Pipe, errno, "socketpair()"))?;
        Ok(Self { sides: Some((Cell::new(Some(ours)), Cell::new(Some(theirs)))), maps })
    }

    /// The child's side.
    pub(crate) fn child(&self) -> Option<Mapper> {
        let (ours, theirs) = self.sides.as_ref()?;
        drop(ours.take());
        theirs.take().map(Mapper)
    }

    /// The parent's side: maps what comes, until the child needs no more or has ended. Blocks: only specs of `hull oci`
    /// have such mounts, and no plan of a pod.
    pub(crate) fn parent(&self) {
        let Some((ours, theirs)) = &self.sides else { return };
        drop(theirs.take());
        let Some(side) = ours.take() else { return };
        let mut maps = self.maps.iter();
        while let Some(tree) = next(&side) {
            let mapped = match maps.next() {
                Some((user, recursive)) => {
                    map_ids(&tree, *recursive, user.as_fd()).map_err(|failed| failed.errno)
                }
                None => Err(Errno::INVAL),
            };
            let errno = mapped.map_or_else(Errno::raw_os_error, |()| 0);
            if write(&side, &errno.to_ne_bytes()).is_err() {
                return;
            }
        }
    }
}

/// The next tree that the child sends; `None` at its end.
fn next(side: &OwnedFd) -> Option<OwnedFd> {
    let mut fds = [PollFd::new(side, PollFlags::IN)];
    while poll(&mut fds, None) == Err(Errno::INTR) {}
    hull_sys::receive_fd(side.as_fd()).ok().flatten()
}

impl Mapper {
    /// Has the ids of the detached `tree`, a copy of `path`, mapped.
    pub(crate) fn map(&self, tree: &OwnedFd, path: &str) -> Result {
        let Self(side) = self;
        hull_sys::send_fd(side.as_fd(), b"m", tree.as_fd())?;
        let mut answer = [0; size_of::<i32>()];
        let got = read(side, &mut answer).map_err(errno_context("read(mapped ids)"))?;
        match i32::from_ne_bytes(answer) {
            _ if got != answer.len() => Err(errno_context("read(mapped ids)")(Errno::PIPE)),
            0 => Ok(()),
            errno => {
                let call = format!("mount_setattr({path}, set {:#x})", Attr::IDMAP);
                Err(errno_context(call)(Errno::from_raw_os_error(errno)))
            }
        }
    }
}
