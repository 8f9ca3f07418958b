// SPDX-License-Identifier: Apache-2.0
//! Options of a launch that are not part of the plan: whether the process outlives its parent, where it waits, its
//! keyring, and its hooks.

use crate::hooks::{HookKind, Hooks, Leftovers, Surroundings};
use crate::namespaces::Processes;
use crate::plan::{IdMaps, Step, StepError};
use crate::procfs::PodProcfs;
use crate::scheduling::Scheduling;
use crate::start_socket;
use hull_cgroup::FurtherLimits;
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Writes the maps of the user namespace of a process, by its number.
pub type WriteMaps = fn(i32, &IdMaps) -> Result<(), StepError>;

/// The part of a launch that its caller does in the parent, as soon as the child has its namespaces and its mounts and
/// waits: before all hooks. It gets the child's number in the caller's pid namespace.
#[derive(Clone, Copy)]
pub struct Prepare<'a>(pub &'a dyn Fn(i32) -> Result<(), StepError>);

impl std::fmt::Debug for Prepare<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Prepare")
    }
}

/// How a process is launched, beyond its plan. The default is that of a monitor: the program runs at once, and ends
/// with its parent.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaunchOptions<'a> {
    /// The process lives on when its parent ends.
    pub outlives: bool,
    /// The socket at which it waits, with everything but the exec done; see [`start_socket`].
    pub start_socket: Option<BorrowedFd<'a>>,
    /// Number of descriptors from 3 on that the program inherits.
    pub kept_fds: u32,
    /// Name of the session keyring that it joins instead of keeping its parent's; created if missing.
    pub keyring: Option<&'a str>,
    /// Processes whose namespaces the plan may join; `None` if it may name any path.
    pub processes: Option<Processes<'a>>,
    /// The procfs of the pod's shared pid namespace, for a plan that joins it.
    pub procfs: Option<&'a PodProcfs>,
    /// Hooks that run during the start.
    pub hooks: Option<&'a Hooks>,
    /// The working directory of hooks that run on the caller's side; `None` for the caller's own.
    pub hooks_directory: Option<&'a Path>,
    /// A process beside the caller runs the hooks outside of the container, so that the caller goes on meanwhile; the
    /// directory is the one of [`hook_process`](crate::hook_process). The caller reaps all its children.
    pub hooks_beside: Option<BorrowedFd<'a>>,
    /// Runs before the hooks; the process is killed if it fails.
    pub prepare: Option<Prepare<'a>>,
    /// Scheduling beyond the plan's.
    pub scheduling: Option<&'a Scheduling>,
    /// The end of a pipe at which the program's process waits, just before the exec, until its parent has scheduled it
    /// and writes one byte: for schedulers that a process does not inherit ([`Scheduling::not_inherited`]).
    pub scheduled_by_parent: Option<BorrowedFd<'a>>,
    /// Writes the maps of a new user namespace, for callers without rights over the host. Everything else is then done
    /// by the child with its rights over its own namespaces: sources are cloned there, and device nodes are the host's.
    pub write_maps: Option<WriteMaps>,
    /// Device nodes that may not be made are the host's.
    pub host_devices: bool,
    /// In the user namespace, groups cannot be set (`/proc/PID/setgroups`): the process keeps its parent's.
    pub groups_are_denied: bool,
    /// The process keeps the capabilities of its parent, bounding and ambient set included, whatever the plan says.
    pub keeps_capabilities: bool,
    /// Limits of the cgroup beyond the plan's.
    pub further_limits: Option<&'a FurtherLimits>,
    /// The file `tasks` of a group of resctrl, open for writing, into which the process goes with its first calls;
    /// see `Documentation/filesystems/resctrl.rst`.
    pub resctrl: Option<BorrowedFd<'a>>,
    /// The socket over which the listener of the seccomp filter is sent as soon as the filter is installed, with one
    /// word; see [`hull_sys::receive_fd`]. The filter must allow `sendmsg(2)`.
    pub seccomp_listener: Option<BorrowedFd<'a>>,
    /// The init program that becomes the first process, with the plan's program as its child; see
    /// [`Op::Init`](crate::plan::Op::Init). Hooks in the container run in that child.
    pub init: Option<BorrowedFd<'a>>,
    /// The places of an exec in hierarchies of cgroup v1 where that is not the target's cgroup: controller and path.
    pub hierarchies: &'a [(String, String)],
}

impl LaunchOptions<'_> {
    /// In the child: leaves the parent's session keyring.
    pub(crate) fn leave_keyring(&self) -> Result<(), StepError> {
        let Some(name) = self.keyring else { return Ok(()) };
        match hull_sys::join_session_keyring(Some(name)) {
            // A kernel without keyrings has nothing to separate.
            Err(err) if err.errno() == Errno::NOSYS => Ok(()),
            other => other.map_err(StepError::at(Step::Identity)),
        }
    }

    /// In the child, with everything but the exec done: waits at the start socket if there is one, then runs the
    /// startContainer hooks, with what they have of this process.
    pub(crate) fn wait(
        &self,
        report: &mut OwnedFd,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), StepError> {
        if let Some(socket) = self.start_socket {
            start_socket::wait(socket, report)?;
        }
        self.run_hooks_as(&[HookKind::StartContainer], "created", surroundings)
    }

    /// In the child: runs the hooks of these kinds, in its mount namespace and with the root that it has before its own.
    /// The pid in the state is the one in the child's own namespace.
    pub(crate) fn run_hooks_in_mounts(
        &self,
        kinds: &[HookKind],
        status: &str,
    ) -> Result<(), StepError> {
        let surroundings = Surroundings { leftovers: Leftovers::Killed, ..Surroundings::default() };
        self.run_hooks_as(kinds, status, &surroundings)
    }

    fn run_hooks_as(
        &self,
        kinds: &[HookKind],
        status: &str,
        surroundings: &Surroundings<'_>,
    ) -> Result<(), StepError> {
        let Some(hooks) = self.hooks.filter(|hooks| hooks.has(kinds)) else { return Ok(()) };
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        hooks.run_as(kinds, status, pid, surroundings)
    }
}
