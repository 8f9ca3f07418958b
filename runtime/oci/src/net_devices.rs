// SPDX-License-Identifier: Apache-2.0
//! `linux.netDevices` of the runtime spec: devices of the host that move into a container's network namespace when it
//! has one, before all hooks.

use crate::args::Global;
use crate::error::{Error, Result};
use crate::rootless;
use hull_init::StepError;
use hull_init::plan::{Namespace, NamespaceKind, Plan, Step};
use hull_netlink::devices::{self, Device};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::AsFd as _;

/// Refuses what cannot be done, before anything of the container is made.
pub(crate) fn check(global: &Global, id: &str, plan: &Plan, wanted: &[Device]) -> Result<()> {
    let refused = |why, hint| Err(Error::NoNetDevices { id: id.to_owned(), why, hint });
    if wanted.is_empty() {
        return Ok(());
    }
    if plan.namespaces.net == Namespace::Inherit {
        let hint =
            "add `{\"type\": \"network\"}` to `linux.namespaces`, or remove `linux.netDevices`";
        return refused("it has the host's network namespace, where they are already", hint);
    }
    if rootless::is_rootless(global) {
        return refused(
            "only root may move the host's devices",
            "run as root, or remove `linux.netDevices`",
        );
    }
    devices::check(wanted).map_err(|source| Error::NetDevices { id: id.to_owned(), source })
}

/// Moves them into the network namespace of a child of this process that waits.
pub(crate) fn give(id: &str, child: i32, plan: &Plan, wanted: &[Device]) -> Result<()> {
    // Not reaped yet, so the number is the child's.
    let path = format!("/proc/{child}/ns/net");
    let netns = rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::of(|| format!("open({path})")))?;
    let is_new = plan.namespaces.net == Namespace::New;
    let moved = devices::move_into(netns.as_fd(), is_new, wanted);
    moved.map_err(|source| Error::NetDevices { id: id.to_owned(), source })
}

/// Ends the launch; the error itself is the one of [`give`].
pub(crate) fn not_given() -> StepError {
    let call = "linux.netDevices".to_owned();
    StepError { step: Step::Join(NamespaceKind::Net), errno: Errno::CANCELED.raw_os_error(), call }
}
