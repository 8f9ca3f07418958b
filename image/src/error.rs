// SPDX-License-Identifier: Apache-2.0
//! Why something of the image store failed, and how to mend it.
//!
//! [`Error`] says what was asked of the store, [`Cause`] why content could not be brought in. Both are
//! cheap to clone, because every caller that joined a pull gets its failure.

use crate::unpack;
use hull_sys as sys;
use std::path::PathBuf;
use std::sync::Arc;

/// What could not be done. Reads after "cannot".
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error("understand the image name `{text}`: {why}")]
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
    /// A pull failed.
    #[error("pull {image}")]
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
    /// The image has containers.
    #[error("remove image {image}: a container uses it")]
    InUse {
        /// As it was named.
        image: String,
    },
    /// Records or layers could not be removed.
    #[error("remove image {image}")]
    Remove {
        /// As it was named.
        image: String,
        /// Why.
        source: sys::Error,
    },
    /// A container's writable layer.
    #[error("{doing} the writable layer of container {container}")]
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
    #[error("read {path} of an image")]
    Read {
        /// In the image.
        path: String,
        /// Why.
        source: sys::Error,
    },
    /// A bug.
    #[error("go on: the task of the pull of {image} ended without an answer")]
    Broken {
        /// What was pulled.
        image: String,
    },
}

/// Why content could not be brought in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// The registry does not have it.
    #[error("{host} does not have {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry does not give it to these credentials.
    #[error("{host} denies access to {what}{}", remark(.said))]
    Denied {
        /// Who.
        host: String,
        /// What was asked for.
        what: String,
        /// In its words.
        said: String,
        /// Whether credentials were given.
        with_credentials: bool,
    },
    /// The registry could not be talked to.
    #[error("{host}: {kind}{}", remark(.said))]
    Unreachable {
        /// The registry.
        host: String,
        /// In our words.
        kind: Unreachable,
        /// In those of the network.
        said: String,
    },
    /// The registry gave an answer that we cannot use.
    #[error("{host} answered HTTP {status} when asked for {what}{}", remark(.said))]
    Answer {
        /// The registry.
        host: String,
        /// The code.
        status: u16,
        /// What was asked for.
        what: String,
        /// In its words.
        said: String,
    },
    /// Not what its digest says.
    #[error("{what} is corrupt: it should have digest {want} but has {got}")]
    WrongDigest {
        /// Manifest, config, layer.
        what: String,
        /// As announced.
        want: String,
        /// As received.
        got: String,
    },
    /// Not as long as announced.
    #[error("{what} is corrupt: it should have {want} bytes but has {got}")]
    WrongSize {
        /// Manifest, config, layer.
        what: String,
        /// As announced.
        want: u64,
        /// As received.
        got: u64,
    },
    /// The layer is another than the image's config says.
    #[error("layer {layer} unpacks to {got}, but the image's config says {want}")]
    WrongDiffId {
        /// Its blob.
        layer: String,
        /// By the config.
        want: String,
        /// In truth.
        got: String,
    },
    /// Larger than we take.
    #[error("{what} is larger than the {max} bytes that are allowed")]
    TooLarge {
        /// Manifest, config, answer.
        what: String,
        /// The limit.
        max: u64,
    },
    /// Something else than an image.
    #[error("it is not a container image but {media_type}")]
    NotAnImage {
        /// What it is.
        media_type: String,
    },
    /// There is no image for this machine.
    #[error("there is no image for {want}, only for {there}")]
    Platform {
        /// This machine.
        want: String,
        /// What there is.
        there: String,
    },
    /// A document that cannot be read.
    #[error("{what} cannot be read: {why}")]
    Document {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer that cannot be unpacked.
    #[error("unpack layer {layer}")]
    Layer {
        /// Its digest.
        layer: String,
        /// Why.
        source: unpack::Error,
    },
    /// Our own disk.
    #[error("keep {what}")]
    Keep {
        /// What.
        what: String,
        /// Why.
        source: sys::Error,
    },
    /// The archive is none, or lacks something.
    #[error("it is not an image archive: {why}")]
    Archive {
        /// What is wrong with it.
        why: String,
    },
    /// A settings file.
    #[error("read the registry's CA certificates {}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
}

/// How a registry could not be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// DNS does not know it.
    NoSuchHost,
    /// Nobody listens there.
    Refused,
    /// It did not answer in time.
    Timeout,
    /// Its certificate is not trusted.
    Certificate,
    /// It talks plain HTTP.
    PlainHttp,
    /// TLS failed otherwise.
    Tls,
    /// The connection broke, more often than we try again.
    Broken,
    /// Anything else.
    Other,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoSuchHost => "no such host",
            Self::Refused => "nobody accepts connections",
            Self::Timeout => "no answer in time",
            Self::Certificate => "its certificate is not trusted",
            Self::PlainHttp => "it talks plain HTTP, not HTTPS",
            Self::Tls => "TLS failed",
            Self::Broken => "the connection broke too often",
            Self::Other => "it cannot be talked to",
        })
    }
}

/// Whose fault something is, coarsely, for codes of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The name or the credentials make no sense.
    BadReference,
    /// There is no such image, or none for this machine.
    NotFound,
    /// The registry does not give it.
    Denied,
    /// The registry cannot be talked to now.
    Unreachable,
    /// A container uses it.
    InUse,
    /// What came is not what was announced, or hostile.
    Corrupt,
    /// This machine.
    Other,
}

impl Error {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Reference { .. } | Self::Credentials { .. } => Fault::BadReference,
            Self::InUse { .. } => Fault::InUse,
            Self::Pull { source, .. } | Self::Import { source } => source.fault(),
            Self::Open { .. }
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
            Self::Pull { source, .. } | Self::Import { source } => source.hint(),
            Self::View { source, .. } if source.errno() == rustix::io::Errno::NAMETOOLONG => {
                Some("so many layers need Linux 6.5 or newer".into())
            }
            Self::Open { source, .. }
            | Self::Remove { source, .. }
            | Self::Rootfs { source, .. } => disk_hint(source),
            Self::Credentials { .. }
            | Self::View { .. }
            | Self::Read { .. }
            | Self::Broken { .. } => None,
        }
    }
}

impl Cause {
    fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } | Self::Platform { .. } => Fault::NotFound,
            Self::Denied { .. } => Fault::Denied,
            Self::Unreachable { .. } | Self::Answer { .. } => Fault::Unreachable,
            Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::WrongDiffId { .. }
            | Self::TooLarge { .. }
            | Self::NotAnImage { .. }
            | Self::Archive { .. }
            | Self::Document { .. } => Fault::Corrupt,
            Self::Layer { source, .. } if source.is_archives_fault() => Fault::Corrupt,
            Self::Layer { .. } | Self::Keep { .. } | Self::CaFile { .. } => Fault::Other,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("check repository and tag; a private repository may hide itself".into())
            }
            Self::Denied { with_credentials: false, .. } => {
                Some("it wants credentials: give the pod imagePullSecrets".into())
            }
            Self::Denied { .. } => {
                Some("check username, password and their rights to the repository".into())
            }
            Self::Unreachable { kind, host, .. } => kind.hint(host),
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::WrongDiffId { .. } => Some(
                "nothing of it was kept; push the image again if a second pull fails alike".into(),
            ),
            Self::Platform { .. } => {
                Some("push an image for this machine's platform under that name".into())
            }
            Self::Layer { source, .. } => source.system().and_then(disk_hint),
            Self::Keep { source, .. } => disk_hint(source),
            Self::Archive { .. } => {
                Some("give an OCI layout in a tar archive, or what `docker save` writes".into())
            }
            Self::Document { .. }
            | Self::Answer { .. }
            | Self::TooLarge { .. }
            | Self::NotAnImage { .. }
            | Self::CaFile { .. } => None,
        }
    }
}

impl Unreachable {
    fn hint(self, host: &str) -> Option<String> {
        match self {
            Self::NoSuchHost => Some(format!("check the name {host} and this machine's DNS")),
            Self::PlainHttp => Some(format!(
                "if that is meant, set `plain_http = true` under `[[image.registry]]` with host = \"{host}\""
            )),
            Self::Certificate => Some(format!(
                "set `ca_file` under `[[image.registry]]` with host = \"{host}\", or install its CA on this machine"
            )),
            Self::Refused | Self::Timeout => {
                Some(format!("check that {host} runs and no firewall is between"))
            }
            Self::Tls => Some(format!(
                "set `plain_http` under `[[image.registry]]` with host = \"{host}\" to what it talks"
            )),
            Self::Broken | Self::Other => None,
        }
    }
}

fn disk_hint(error: &sys::Error) -> Option<String> {
    use rustix::io::Errno;
    match error.errno() {
        Errno::NOSPC | Errno::DQUOT => {
            Some("free space: `hull images` and `hull rmi`, or a larger disk".into())
        }
        Errno::PERM | Errno::ACCESS => {
            Some("run hull as root with CAP_SYS_ADMIN, CAP_CHOWN and CAP_MKNOD".into())
        }
        Errno::ROFS => Some("the data directory is on a read-only filesystem".into()),
        _ => None,
    }
}

fn remark(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Puts an I/O error that several may see.
pub(crate) type SharedIo = Arc<std::io::Error>;
