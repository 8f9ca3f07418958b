// SPDX-License-Identifier: Apache-2.0
//! The errors of cgroup operations, with hints for the operator.

pub(crate) use crate::errno::{is, libc_errno};
use crate::hint;
use hull_sys::text::shown;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How much of a value is part of a message: more would crowd out the file and the cause.
const VALUE_BYTES_MAX: usize = 100;

/// Stands for a controller where a limit needs the unified hierarchy.
pub(crate) const CGROUP_V2: &str = "cgroup v2";

/// A failed cgroup operation. Each message reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading the mount table failed.
    #[error("read {}", path.display())]
    Mounts { path: PathBuf, source: io::Error },
    /// No cgroup filesystem is mounted.
    #[error("find a cgroup hierarchy: none is mounted")]
    NoHierarchy,
    /// The cgroup path is relative, or contains `.` or `..`.
    #[error("use `{path}` as a cgroup path: it must be absolute, without `.` and `..`")]
    BadPath {
        /// The rejected text.
        path: String,
    },
    /// Creating a cgroup failed.
    #[error("create cgroup {}", path.display())]
    Make {
        /// The cgroup's directory.
        path: PathBuf,
        source: io::Error,
    },
    /// Removing a cgroup failed.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// The cgroup's directory.
        path: PathBuf,
        source: io::Error,
    },
    /// Processes survive SIGKILL.
    #[error("empty cgroup {path}: processes still run {waited:?} after SIGKILL")]
    NotEmpty {
        /// The cgroup's path.
        path: String,
        /// The time waited.
        waited: Duration,
    },
    /// Processes do not freeze.
    #[error("freeze cgroup {path}: not all of its processes are frozen after {waited:?}")]
    NotFrozen {
        /// The cgroup's path.
        path: String,
        /// The time waited.
        waited: Duration,
    },
    /// Reading a file failed.
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Writing a limit or a pid failed.
    #[error("write `{}` to {}", shown(value, VALUE_BYTES_MAX), path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    /// The controller for a limit is not available.
    #[error("set {what}: {}", lacks(controller))]
    NoController { what: String, controller: &'static str },
    /// One limit was rejected, and others could not be restored.
    #[error("update the limits as a whole: the old values could not be restored in {files}")]
    HalfSet {
        /// The files with new values.
        files: String,
        /// The limit that was rejected.
        source: Box<Error>,
    },
    /// A limit of memory is below what is in use.
    #[error("limit {what} to {limit} bytes: {used} bytes are in use")]
    MemoryInUse {
        /// The limited resource: memory, alone or with swap.
        what: &'static str,
        /// The limit, in bytes.
        limit: u64,
        /// The usage, in bytes.
        used: u64,
    },
    /// Delegating a cgroup to a container's user failed.
    #[error("delegate {} to the container's user", path.display())]
    Delegate { path: PathBuf, source: io::Error },
    /// A `unified` key that is not a file name.
    #[error(
        "set unified key `{}`: it is not the name of a cgroup v2 file",
        shown(key, VALUE_BYTES_MAX)
    )]
    BadKey {
        /// The rejected text.
        key: String,
    },
    /// Attaching the device program failed.
    #[error("limit devices of cgroup {path}")]
    Devices {
        /// The cgroup's path.
        path: String,
        source: hull_sys::Error,
    },
}

impl Error {
    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoHierarchy => Some("mount cgroup v2: mount -t cgroup2 none /sys/fs/cgroup".into()),
            Self::NoController { controller, .. } => Some(no_controller(controller)),
            Self::Write { path, value, source } => hint::of_write(path, value, source),
            Self::Make { path, source } => hint::of_make(path, source),
            Self::NotEmpty { .. } | Self::NotFrozen { .. } => {
                Some("a process hangs in the kernel, usually on storage that does not respond; see /proc/PID/stack".into())
            }
            Self::HalfSet { source, .. } => source.hint(),
            Self::MemoryInUse { used, .. } => Some(format!(
                "choose a limit of at least {used} bytes, or let the container free memory first; without `memory.checkBeforeUpdate` the limit is set, and on cgroup v2 the kernel kills processes until it holds"
            )),
            Self::BadPath { .. }
            | Self::Mounts { .. }
            | Self::Remove { .. }
            | Self::Read { .. }
            | Self::Delegate { .. }
            | Self::BadKey { .. }
            | Self::Devices { .. } => None,
        }
    }

    /// Whether the kernel lacks the value or the file, so that a later try fails as well.
    #[must_use]
    pub fn is_refused_value(&self) -> bool {
        const REFUSED: [i32; 5] = [
            libc_errno::EINVAL,
            libc_errno::ERANGE,
            libc_errno::E2BIG,
            libc_errno::ENOENT,
            libc_errno::ENAMETOOLONG,
        ];
        match self {
            Self::Write { source, .. } => REFUSED.iter().any(|errno| is(source, *errno)),
            Self::BadKey { .. } => true,
            Self::Mounts { .. }
            | Self::NoHierarchy
            | Self::BadPath { .. }
            | Self::Make { .. }
            | Self::Remove { .. }
            | Self::NotEmpty { .. }
            | Self::NotFrozen { .. }
            | Self::Read { .. }
            | Self::NoController { .. }
            | Self::HalfSet { .. }
            | Self::MemoryInUse { .. }
            | Self::Delegate { .. }
            | Self::Devices { .. } => false,
        }
    }

    /// The errno to send over a pipe; `EIO` if there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Mounts { source, .. }
            | Self::Make { source, .. }
            | Self::Remove { source, .. }
            | Self::Read { source, .. }
            | Self::Delegate { source, .. }
            | Self::Write { source, .. } => source.raw_os_error().unwrap_or(5),
            Self::HalfSet { source, .. } => source.errno(),
            Self::Devices { source, .. } => source.errno().raw_os_error(),
            Self::NoController { .. } | Self::NoHierarchy => libc_errno::ENODEV,
            Self::BadPath { .. } | Self::BadKey { .. } => libc_errno::EINVAL,
            // As the kernel does on v1.
            Self::NotEmpty { .. } | Self::NotFrozen { .. } | Self::MemoryInUse { .. } => {
                libc_errno::EBUSY
            }
        }
    }
}

fn lacks(controller: &str) -> String {
    match controller {
        CGROUP_V2 => "this node has no cgroup v2".to_owned(),
        controller => format!("the `{controller}` cgroup controller is not available"),
    }
}

fn no_controller(controller: &str) -> String {
    match controller {
        CGROUP_V2 => "remove `unified` from the limits, or boot the node with cgroup v2 (systemd.unified_cgroup_hierarchy=1)".into(),
        "hugetlb" => "remove the limit, or choose a page size that the kernel has (ls /sys/kernel/mm/hugepages) with the hugetlb controller enabled".into(),
        "io" | "blkio" => format!(
            "remove the limit, or enable the {controller} controller with an I/O scheduler or cost model that has weights (BFQ, iocost)"
        ),
        controller => format!(
            "enable the {controller} controller (kernel command line, or cgroup.subtree_control of the parents), or remove the limit"
        ),
    }
}
