// SPDX-License-Identifier: Apache-2.0
//! The errors of the image store, each with a hint for the operator.
//!
//! [`Error`] names the operation, [`Cause`] says why content could not be pulled or imported. Both are
//! cheap to clone, because every caller that joined a pull receives its error.
//!
//! The rule: text from registries, archives and callers is escaped and cut where it becomes part of a
//! message: every field goes through [`shown`].

mod cause;
mod hint;
mod kind;
pub(crate) mod text;
mod unreachable;

pub use cause::{ArchiveFault, Cause, Object};
pub use kind::ErrorKind;
pub(crate) use text::{NAME_MAX, REASON_MAX, shown};
pub use unreachable::Unreachable;

use hint::disk_hint;
use hull_sys as sys;
use std::path::PathBuf;

/// An operation that failed. The text reads after "cannot".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The text is not an image name.
    #[error("understand the image name `{}`: {why}", shown(text, NAME_MAX))]
    Reference {
        /// The text that was given.
        text: String,
        /// The reason, as part of a sentence.
        why: &'static str,
    },
    /// The credentials cannot be decoded.
    #[error("understand the credentials: {why}")]
    Credentials {
        /// The reason, as part of a sentence.
        why: &'static str,
    },
    /// The store's directories could not be opened or created.
    #[error("open the image store in {}", path.display())]
    Open {
        /// The path of the file or directory.
        path: PathBuf,
        /// The underlying error.
        source: sys::Error,
    },
    /// The store's file system cannot be written to.
    #[error("write to the image store in {}", path.display())]
    ReadOnly {
        /// The path of the file or directory.
        path: PathBuf,
        /// The underlying error.
        source: sys::Error,
    },
    /// A pull failed.
    #[error("pull {}", shown(image, NAME_MAX))]
    Pull {
        /// The image, as the caller named it.
        image: String,
        /// The underlying error.
        source: Cause,
    },
    /// An import failed.
    #[error("import the archive")]
    Import {
        /// The underlying error.
        source: Cause,
    },
    /// An image could not be tagged.
    #[error("give image {} the name {}", shown(image, NAME_MAX), shown(name, NAME_MAX))]
    Tag {
        /// The image, as the caller named it.
        image: String,
        /// The new name.
        name: String,
        /// The underlying error.
        source: Cause,
    },
    /// Another image has the tag already.
    #[error(
        "give image {} the name {}: another image has it",
        shown(image, NAME_MAX),
        shown(name, NAME_MAX)
    )]
    NameTaken {
        /// The image, as the caller named it.
        image: String,
        /// The new name.
        name: String,
    },
    /// The image is used by a container.
    #[error("remove image {}: a container uses it", shown(image, NAME_MAX))]
    InUse {
        /// The image, as the caller named it.
        image: String,
    },
    /// The image policy file is invalid.
    #[error("understand the policy {}: {}", path.display(), shown(why, REASON_MAX))]
    Policy {
        /// The path of the file or directory.
        path: PathBuf,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// A layer differs from what was stored.
    #[error(
        "use image {}: its layer {} is broken: {}",
        shown(image, NAME_MAX),
        shown(layer, NAME_MAX),
        shown(why, REASON_MAX)
    )]
    BrokenLayer {
        /// The image, as the caller named it.
        image: String,
        /// The digest of the layer.
        layer: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The image is not in the store.
    #[error("find image {}: it is not in the store", shown(image, NAME_MAX))]
    NoImage {
        /// The image, as the caller named it.
        image: String,
    },
    /// An image could not be exported.
    #[error("export {}: {}", shown(image, NAME_MAX), shown(why, REASON_MAX))]
    Export {
        /// The image, as the caller named it.
        image: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The archive of a layer cannot be rebuilt from its files.
    #[error(
        "export {}: its layer {} replaces entries of its own, so its archive cannot be rebuilt from its files",
        shown(image, NAME_MAX),
        shown(layer, NAME_MAX)
    )]
    NoArchive {
        /// The image, as the caller named it.
        image: String,
        /// The digest of the layer.
        layer: String,
    },
    /// The image was imported, so there is no registry to pull it from.
    #[error(
        "pull image {} again: it was imported, not pulled from a registry",
        shown(image, NAME_MAX)
    )]
    NoSource {
        /// The image, as the caller named it.
        image: String,
    },
    /// Layers could not be verified.
    #[error("compare layers with their file lists")]
    Verify {
        /// The underlying error.
        source: Cause,
    },
    /// The record or layers of an image could not be removed.
    #[error("remove image {}", shown(image, NAME_MAX))]
    Remove {
        /// The image, as the caller named it.
        image: String,
        /// The underlying error.
        source: sys::Error,
    },
    /// The limit of a writable layer that is gone could not be removed.
    #[error("remove the limit of project {project}")]
    Quota {
        /// The number of the project.
        project: u32,
        /// The underlying error.
        source: sys::Error,
    },
    /// An operation on a container's writable layer failed.
    #[error("{doing} the writable layer of container {}", shown(container, NAME_MAX))]
    Rootfs {
        /// The operation: `make`, `measure`, `read` or `remove`.
        doing: &'static str,
        /// The id of the container.
        container: String,
        /// The underlying error.
        source: sys::Error,
    },
    /// The changes in a container's writable layer could not be archived.
    #[error(
        "archive the writable layer of container {}: {}",
        shown(container, NAME_MAX),
        shown(why, REASON_MAX)
    )]
    Changes {
        /// The id of the container.
        container: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The layers of an image could not be mounted as one view.
    #[error("mount {layers} layers of an image")]
    View {
        /// The number of layers.
        layers: usize,
        /// The underlying error.
        source: sys::Error,
    },
    /// A file of an image could not be read.
    #[error("read {} of an image", shown(path, NAME_MAX))]
    Read {
        /// The path of the file or directory.
        path: String,
        /// The underlying error.
        source: sys::Error,
    },
    /// The task of a pull ended without a result, which is a bug.
    #[error("pull {}: its task ended without a result", shown(image, NAME_MAX))]
    Broken {
        /// The image, as the caller named it.
        image: String,
    },
}

impl Error {
    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reference { .. } | Self::Credentials { .. } => ErrorKind::BadReference,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::NameTaken { .. } => ErrorKind::Taken,
            Self::Pull { source, .. }
            | Self::Import { source }
            | Self::Tag { source, .. }
            | Self::Verify { source } => source.kind(),
            Self::NoImage { .. } => ErrorKind::NotFound,
            Self::Policy { .. } | Self::Export { .. } | Self::NoArchive { .. } => ErrorKind::Other,
            Self::BrokenLayer { .. } | Self::NoSource { .. } => ErrorKind::Corrupt,
            Self::Open { .. }
            | Self::ReadOnly { .. }
            | Self::Remove { .. }
            | Self::Quota { .. }
            | Self::Rootfs { .. }
            | Self::Changes { .. }
            | Self::View { .. }
            | Self::Read { .. }
            | Self::Broken { .. } => ErrorKind::Other,
        }
    }

    /// Advice for the operator, where there is any.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference { .. } => Some("a name is [registry/]repository[:tag][@digest]".into()),
            Self::InUse { .. } => {
                Some("remove its containers first; `hull rmi TAG` takes away one of several names".into())
            }
            Self::Import { source } => source.hint_of_import(),
            Self::Pull { source, .. } | Self::Tag { source, .. } | Self::Verify { source } => {
                source.hint()
            }
            Self::NameTaken { .. } => Some("remove that name first, or use `--force`".into()),
            Self::BrokenLayer { image, .. } => {
                Some(format!("pull it again, or `hull images verify --repair {image}`"))
            }
            Self::NoSource { .. } => Some("import its archive again".into()),
            Self::NoArchive { .. } => Some(
                "set `keep_blobs = true` under `[image]`, remove the image and pull it again"
                    .into(),
            ),
            Self::View { source, .. } if source.errno() == rustix::io::Errno::NAMETOOLONG => {
                Some("so many layers need Linux 6.5 or newer".into())
            }
            Self::ReadOnly { .. } => Some(
                "make its filesystem writable again (`mount -o remount,rw`); after an I/O error `dmesg` says why it is not".into(),
            ),
            Self::Open { source, .. }
            | Self::Remove { source, .. }
            | Self::Quota { source, .. }
            | Self::Rootfs { source, .. } => disk_hint(source),
            Self::Policy { path, .. } => {
                Some(format!("correct {}, or unset `policy` under `[image]`", path.display()))
            }
            Self::Export { .. } => Some(
                "`hull images verify` compares layers with what was stored, and repairs them with `--repair`".into(),
            ),
            Self::NoImage { .. } => Some("list the images with `hull images`".into()),
            Self::Credentials { .. }
            | Self::Changes { .. }
            | Self::View { .. }
            | Self::Read { .. }
            | Self::Broken { .. } => None,
        }
    }
}
