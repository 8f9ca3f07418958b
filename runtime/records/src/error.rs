// SPDX-License-Identifier: Apache-2.0
//! Why a record could not be written, read or removed, and hints for the operator.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on a record, a folder of records, or the directory of other files of Hull's own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file has its old content.
    #[error("write record {}", path.display())]
    Write { path: PathBuf, source: hull_sys::Error },
    #[error("read record {}", path.display())]
    Read { path: PathBuf, source: Unusable },
    #[error("remove record {}", path.display())]
    Remove { path: PathBuf, source: hull_sys::Error },
    #[error("create directory {}", path.display())]
    CreateDir { path: PathBuf, source: io::Error },
    #[error("list directory {}", path.display())]
    List { path: PathBuf, source: io::Error },
    #[error("encode record {} as JSON", path.display())]
    Encode { path: PathBuf, source: serde_json::Error },
}

impl Error {
    /// Whether the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Write { source, .. } | Self::Remove { source, .. } => source.is_not_found(),
            Self::Read { source, .. } => source.is_not_found(),
            Self::CreateDir { source, .. } | Self::List { source, .. } => {
                source.kind() == io::ErrorKind::NotFound
            }
            Self::Encode { .. } => false,
        }
    }

    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { path, source } => Some(write_hint(path, Some(source.errno()))),
            Self::CreateDir { path, source } => {
                Some(write_hint(path, Errno::from_io_error(source)))
            }
            Self::Read { source, .. } => source.hint(),
            Self::Remove { path, .. } | Self::List { path, .. } => Some(format!(
                "check permissions of {}, and whether its file system is read-only",
                path.display()
            )),
            Self::Encode { .. } => None,
        }
    }
}

/// Whether the file system of the file, or of its directory, has no inode left.
fn lacks_inodes(path: &Path) -> bool {
    let directory = path.parent().unwrap_or(path);
    std::fs::File::open(directory).is_ok_and(|directory| hull_sys::lacks_inodes(&directory))
}

fn write_hint(path: &Path, errno: Option<Errno>) -> String {
    match errno {
        Some(Errno::NOSPC) if lacks_inodes(path) => {
            format!(
                "free some inodes on the file system of {}: it has too many files (df -i)",
                path.display()
            )
        }
        Some(Errno::NOSPC) => format!("free some space on the file system of {}", path.display()),
        Some(Errno::IO | Errno::STALE) => {
            format!("see dmesg: the file system of {} failed", path.display())
        }
        Some(Errno::DQUOT) => {
            format!("raise the quota of the file system of {}, or free some space", path.display())
        }
        Some(Errno::ROFS) => format!(
            "make the file system of {} writable (`mount -o remount,rw`; see dmesg for why it is read-only), or choose another directory: `state_dir` or `data_dir` of the daemon, `--root` of `hull oci`",
            path.display()
        ),
        _ => format!(
            "let hull write below {}, or choose another directory: `state_dir` or `data_dir` of the daemon, `--root` of `hull oci`",
            path.parent().unwrap_or(path).display()
        ),
    }
}

/// Why a record cannot be used. Each message is a clause about the record, with the cause in it: a list of records
/// that were set aside shows nothing else. So the cause is not the `source`, which would be printed a second time.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("it cannot be read: {cause}")]
    Read { cause: io::Error },
    #[error("it is not such a record: {cause}")]
    Syntax { cause: serde_json::Error },
    #[error("it has version {found}, and this hull reads versions up to {newest}")]
    Version { found: u32, newest: u32 },
    #[error("{why}")]
    Content { why: String },
}

impl Unusable {
    /// Whether the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { cause } if cause.kind() == io::ErrorKind::NotFound)
    }

    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Version { .. } => Some("start the newer hull again".into()),
            Self::Read { .. } | Self::Syntax { .. } | Self::Content { .. } => None,
        }
    }
}
