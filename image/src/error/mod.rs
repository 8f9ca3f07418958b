// SPDX-License-Identifier: Apache-2.0
//! Why something of the image store failed, and how to mend it.
//!
//! [`Error`] says what was asked of the store, [`Cause`] why content could not be brought in. Both are
//! cheap to clone, because every caller that joined a pull gets its failure.
//!
//! The rule: what a registry, an archive or a caller has said is made fit for a terminal and a log
//! where it becomes a message: every field is [`shown`], on one line and not all of it.

mod cause;
mod kind;
pub(crate) mod text;

pub use cause::{Cause, Unreachable};
pub use kind::Fault;
pub(crate) use text::{NAME_MAX, REASON_MAX, shown};

use cause::disk_hint;
use hull_sys as sys;
use std::path::PathBuf;

/// What could not be done. Reads after "cannot".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("understand the image name `{}`: {why}", shown(text, NAME_MAX))]
    Reference {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The credentials are none.
    #[error("understand the credentials: {why}")]
    Credentials {
        /// What is wrong with them.
        why: &'static str,
    },
    /// The store's own directories.
    #[error("open the image store in {}", path.display())]
    Open {
        /// The store.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
    /// The store's filesystem takes nothing.
    #[error("write to the image store in {}", path.display())]
    ReadOnly {
        /// The store.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
    /// A pull failed.
    #[error("pull {}", shown(image, NAME_MAX))]
    Pull {
        /// What was pulled.
        image: String,
        /// Why.
        source: Cause,
    },
    /// An import failed.
    #[error("import the archive")]
    Import {
        /// Why.
        source: Cause,
    },
    /// An image could not be given another name.
    #[error("give image {} the name {}", shown(image, NAME_MAX), shown(name, NAME_MAX))]
    Tag {
        /// As it was named.
        image: String,
        /// The name.
        name: String,
        /// Why.
        source: Cause,
    },
    /// Another image has the name.
    #[error(
        "give image {} the name {}: another image has it",
        shown(image, NAME_MAX),
        shown(name, NAME_MAX)
    )]
    NameTaken {
        /// As it was named.
        image: String,
        /// The name.
        name: String,
    },
    /// The image has containers.
    #[error("remove image {}: a container uses it", shown(image, NAME_MAX))]
    InUse {
        /// As it was named.
        image: String,
    },
    /// The policy of images.
    #[error("understand the policy {}: {}", path.display(), shown(why, REASON_MAX))]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A layer is not what was stored.
    #[error(
        "use image {}: its layer {} is broken: {}",
        shown(image, NAME_MAX),
        shown(layer, NAME_MAX),
        shown(why, REASON_MAX)
    )]
    BrokenLayer {
        /// As it is named.
        image: String,
        /// Which.
        layer: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such image.
    #[error("find image {}: it is not here", shown(image, NAME_MAX))]
    NoImage {
        /// As it was named.
        image: String,
    },
    /// An image could not be written as an archive.
    #[error("export {}: {}", shown(image, NAME_MAX), shown(why, REASON_MAX))]
    Export {
        /// As it was named.
        image: String,
        /// Why.
        why: String,
    },
    /// A layer of an image is not what its archive says from start to end.
    #[error(
        "export {}: its layer {} replaces entries of its own, so its archive cannot be made of its files",
        shown(image, NAME_MAX),
        shown(layer, NAME_MAX)
    )]
    NoArchive {
        /// As it was named.
        image: String,
        /// Its diff id.
        layer: String,
    },
    /// Nobody knows where it came from.
    #[error("fetch image {} again: it was imported, and is of no registry", shown(image, NAME_MAX))]
    NoSource {
        /// As it is named.
        image: String,
    },
    /// Layers could not be compared.
    #[error("compare layers with what was stored")]
    Verify {
        /// Why.
        source: Cause,
    },
    /// Records or layers could not be removed.
    #[error("remove image {}", shown(image, NAME_MAX))]
    Remove {
        /// As it was named.
        image: String,
        /// Why.
        source: sys::Error,
    },
    /// A container's writable layer.
    #[error("{doing} the writable layer of container {}", shown(container, NAME_MAX))]
    Rootfs {
        /// `make`, `measure`, `remove`.
        doing: &'static str,
        /// Whose.
        container: String,
        /// Why.
        source: sys::Error,
    },
    /// The layers could not be looked at together.
    #[error("look into {layers} layers of an image")]
    View {
        /// How many.
        layers: usize,
        /// Why.
        source: sys::Error,
    },
    /// A file of an image could not be read.
    #[error("read {} of an image", shown(path, NAME_MAX))]
    Read {
        /// In the image.
        path: String,
        /// Why.
        source: sys::Error,
    },
    /// A bug.
    #[error("go on: the task of the pull of {} ended without an answer", shown(image, NAME_MAX))]
    Broken {
        /// What was pulled.
        image: String,
    },
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Reference { .. } | Self::Credentials { .. } => Fault::BadReference,
            Self::InUse { .. } => Fault::InUse,
            Self::NameTaken { .. } => Fault::Taken,
            Self::Pull { source, .. }
            | Self::Import { source }
            | Self::Tag { source, .. }
            | Self::Verify { source } => source.fault(),
            Self::NoImage { .. } => Fault::NotFound,
            Self::Policy { .. } | Self::Export { .. } | Self::NoArchive { .. } => Fault::Other,
            Self::BrokenLayer { .. } | Self::NoSource { .. } => Fault::Corrupt,
            Self::Open { .. }
            | Self::ReadOnly { .. }
            | Self::Remove { .. }
            | Self::Rootfs { .. }
            | Self::View { .. }
            | Self::Read { .. }
            | Self::Broken { .. } => Fault::Other,
        }
    }

    /// What the operator can do about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Reference { .. } => Some("a name is [registry/]repository[:tag][@digest]".into()),
            Self::InUse { .. } => {
                Some("remove its containers first, or remove only a tag of it".into())
            }
            Self::Pull { source, .. }
            | Self::Import { source }
            | Self::Tag { source, .. }
            | Self::Verify { source } => source.hint(),
            Self::NameTaken { .. } => Some("remove that name first, or force it".into()),
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
            | Self::Rootfs { source, .. } => disk_hint(source),
            Self::Policy { path, .. } => {
                Some(format!("correct {}, or unset `policy` under `[image]`", path.display()))
            }
            Self::Credentials { .. }
            | Self::NoImage { .. }
            | Self::Export { .. }
            | Self::View { .. }
            | Self::Read { .. }
            | Self::Broken { .. } => None,
        }
    }
}
