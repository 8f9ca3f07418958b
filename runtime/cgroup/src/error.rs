// SPDX-License-Identifier: Apache-2.0
//! Why a cgroup could not be made, limited, read or removed.

use hull_sys::text::shown;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much of a value stands in a message: more would crowd out the file and the cause.
const VALUE_BYTES_MAX: usize = 100;

/// Why a cgroup could not be made, limited, read or removed. Texts read after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table of mounts.
    #[error("read {}", path.display())]
    Mounts {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing to work with.
    #[error("find a cgroup hierarchy: none is mounted")]
    NoHierarchy,
    /// A path that climbs, or is relative.
    #[error("use `{path}` as a cgroup path: it must be absolute, without `.` and `..`")]
    BadPath {
        /// As given.
        path: String,
    },
    /// mkdir.
    #[error("make cgroup {}", path.display())]
    Make {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// rmdir.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Processes that do not go.
    #[error("empty cgroup {path}: processes still run {waited:?} after SIGKILL")]
    NotEmpty {
        /// Which.
        path: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Processes that do not stand still.
    #[error("freeze cgroup {path}: not all of its processes stand still after {waited:?}")]
    NotFrozen {
        /// Which.
        path: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A counter.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit or a process.
    #[error("write `{}` to {}", shown(value, VALUE_BYTES_MAX), path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A limit for a controller that is not there.
    #[error("set {what}: this kernel's `{controller}` cgroup controller is not there")]
    NoController {
        /// The limit.
        what: String,
        /// The controller.
        controller: &'static str,
    },
    /// One limit was refused, and others could not be put back.
    #[error("set all of the limits or none: the old values could not be put back in {files}")]
    HalfSet {
        /// Which files.
        files: String,
        /// What was refused.
        source: Box<Error>,
    },
    /// Giving it to a container's user.
    #[error("give {} to the container's user", path.display())]
    Delegate {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A `unified` key that is no file name.
    #[error(
        "set unified key `{}`: it is not the name of a cgroup v2 file",
        shown(key, VALUE_BYTES_MAX)
    )]
    BadKey {
        /// As given.
        key: String,
    },
    /// The device program.
    #[error("limit devices of cgroup {path}")]
    Devices {
        /// Which.
        path: String,
        /// Why.
        source: hull_sys::Error,
    },
}

impl Error {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoHierarchy => Some("mount cgroup v2: mount -t cgroup2 none /sys/fs/cgroup".into()),
            Self::NoController { controller, .. } => Some(format!(
                "enable the {controller} controller (kernel command line, or cgroup.subtree_control of the parents), or take the limit away"
            )),
            Self::Write { path, value, source } if is(source, libc_errno::EBUSY) && in_memory(path) => {
                Some(format!("more memory is in use than {value} bytes: choose a higher limit, or let the container free some first"))
            }
            Self::Write { path, source, .. } if is(source, libc_errno::EINVAL) => {
                Some(format!("the kernel takes no such value in {}", file_name(path)))
            }
            Self::Make { source, .. } if is(source, libc_errno::EROFS) => {
                Some("the cgroup filesystem is read-only: run hull on the host or in a privileged container".into())
            }
            Self::NotEmpty { .. } | Self::NotFrozen { .. } => {
                Some("a process hangs in the kernel, usually on storage that does not answer; see /proc/PID/stack".into())
            }
            Self::HalfSet { source, .. } => source.hint(),
            Self::BadPath { .. }
            | Self::Mounts { .. }
            | Self::Make { .. }
            | Self::Remove { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Delegate { .. }
            | Self::BadKey { .. }
            | Self::Devices { .. } => None,
        }
    }

    /// Whether the kernel has no such value, or no such file, so that no later try can end otherwise.
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
            | Self::Delegate { .. }
            | Self::Devices { .. } => false,
        }
    }

    /// The errno behind it, to be sent over a pipe; `EIO` where there is none.
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
            Self::NotEmpty { .. } | Self::NotFrozen { .. } => libc_errno::EBUSY,
        }
    }
}

/// The few errno numbers decided by here.
pub(crate) mod libc_errno {
    pub(crate) const ENOENT: i32 = 2;
    pub(crate) const E2BIG: i32 = 7;
    pub(crate) const EBUSY: i32 = 16;
    pub(crate) const ENODEV: i32 = 19;
    pub(crate) const EINVAL: i32 = 22;
    pub(crate) const EROFS: i32 = 30;
    pub(crate) const ERANGE: i32 = 34;
    pub(crate) const ENAMETOOLONG: i32 = 36;
    pub(crate) const EOPNOTSUPP: i32 = 95;
}

pub(crate) fn is(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn in_memory(path: &Path) -> bool {
    file_name(path).starts_with("memory.")
}
