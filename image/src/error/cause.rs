// SPDX-License-Identifier: Apache-2.0
//! Why content could not be brought in, and how to mend it.
//!
//! The rule: no token, password or query of an address gets in here.

use super::kind::Fault;
use super::text::{NAME_MAX, REASON_MAX, shown};
use crate::unpack;
use hull_sys as sys;
use std::path::PathBuf;

/// Why content could not be brought in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// The registry does not have it.
    #[error("{} does not have {}", shown(host, NAME_MAX), shown(what, NAME_MAX))]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// The registry does not give it to these credentials.
    #[error("{} denies access to {}{}", shown(host, NAME_MAX), shown(what, NAME_MAX), remark(.said))]
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
    #[error("{}: {kind}{}", shown(host, NAME_MAX), remark(.said))]
    Unreachable {
        /// The registry.
        host: String,
        /// In our words.
        kind: Unreachable,
        /// In those of the network.
        said: String,
    },
    /// The registry gave an answer that we cannot use.
    #[error("{} answered HTTP {status} when asked for {}{}", shown(host, NAME_MAX), shown(what, NAME_MAX), remark(.said))]
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
    #[error(
        "{} is corrupt: it should have digest {} but has {}",
        shown(what, NAME_MAX),
        shown(want, NAME_MAX),
        shown(got, NAME_MAX)
    )]
    WrongDigest {
        /// Manifest, config, layer.
        what: String,
        /// As announced.
        want: String,
        /// As received.
        got: String,
    },
    /// Not as long as announced.
    #[error("{} is corrupt: it should have {want} bytes but has {got}", shown(what, NAME_MAX))]
    WrongSize {
        /// Manifest, config, layer.
        what: String,
        /// As announced.
        want: u64,
        /// As received.
        got: u64,
    },
    /// The layer is another than the image's config says.
    #[error(
        "layer {} unpacks to {}, but the image's config says {}",
        shown(layer, NAME_MAX),
        shown(got, NAME_MAX),
        shown(want, NAME_MAX)
    )]
    WrongDiffId {
        /// Its blob.
        layer: String,
        /// By the config.
        want: String,
        /// In truth.
        got: String,
    },
    /// Larger than we take.
    #[error("{} is larger than the {max} bytes that are allowed", shown(what, NAME_MAX))]
    TooLarge {
        /// Manifest, config, answer.
        what: String,
        /// The limit.
        max: u64,
    },
    /// An archive that inflates to more than we take, or holds more.
    #[error("the archive has more than the {max} {what} that are allowed")]
    ArchiveTooLarge {
        /// `bytes`, `entries`, …
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Something else than an image.
    #[error("it is not a container image but {}", shown(media_type, NAME_MAX))]
    NotAnImage {
        /// What it is.
        media_type: String,
    },
    /// There is no image for this machine.
    #[error(
        "there is no image for {}, only for {}",
        shown(want, NAME_MAX),
        shown(there, REASON_MAX)
    )]
    Platform {
        /// This machine.
        want: String,
        /// What there is.
        there: String,
    },
    /// A document that cannot be read.
    #[error("{} cannot be read: {}", shown(what, NAME_MAX), shown(why, REASON_MAX))]
    Document {
        /// Which.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer that cannot be unpacked.
    #[error("unpack layer {}", shown(layer, NAME_MAX))]
    Layer {
        /// Its digest.
        layer: String,
        /// Why.
        source: unpack::Error,
    },
    /// Our own disk.
    #[error("keep {}", shown(what, NAME_MAX))]
    Keep {
        /// What.
        what: String,
        /// Why.
        source: sys::Error,
    },
    /// The archive is none, or lacks something.
    #[error("it is not an image archive: {}", shown(why, REASON_MAX))]
    Archive {
        /// What is wrong with it.
        why: String,
    },
    /// A file of certificates.
    #[error("read the certificates {}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
    /// Settings of a registry.
    #[error("understand {}: {}", path.display(), shown(why, REASON_MAX))]
    HostsFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Credentials on this machine.
    #[error(
        "get credentials for {} from {}: {}",
        shown(host, NAME_MAX),
        shown(from, NAME_MAX),
        shown(why, REASON_MAX)
    )]
    Credentials {
        /// The registry.
        host: String,
        /// The file or the helper.
        from: String,
        /// What went wrong, without what is secret.
        why: String,
    },
    /// The policy does not allow it.
    #[error("the policy does not allow it: {}", shown(why, REASON_MAX))]
    Policy {
        /// In words.
        why: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// The disk is too small for it.
    #[error("keep {}: it takes {need} bytes or more, and {free} are free on {}", shown(what, NAME_MAX), path.display())]
    NoSpace {
        /// What.
        what: String,
        /// At least so much.
        need: u64,
        /// What there is.
        free: u64,
        /// Where.
        path: PathBuf,
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
    /// Nothing came for too long.
    Stalled,
    /// It sends us where we do not go.
    Redirect,
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
            Self::Stalled => "it stalls",
            Self::Redirect => "it redirects",
            Self::Other => "it cannot be talked to",
        })
    }
}

impl Cause {
    /// Whether what came is not what its digest says: another place may have it whole.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::WrongDigest { .. } | Self::WrongSize { .. })
    }

    /// Whether the disk was full.
    pub(crate) fn is_no_space(&self) -> bool {
        use rustix::io::Errno;
        let kept = if let Self::Keep { source, .. } = self { Some(source) } else { None };
        let layer = if let Self::Layer { source, .. } = self { source.system() } else { None };
        kept.or(layer).is_some_and(|of| matches!(of.errno(), Errno::NOSPC | Errno::DQUOT))
    }

    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } | Self::Platform { .. } => Fault::NotFound,
            Self::Denied { .. } => Fault::Denied,
            Self::Unreachable { .. } | Self::Answer { .. } => Fault::Unreachable,
            Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::WrongDiffId { .. }
            | Self::TooLarge { .. }
            | Self::ArchiveTooLarge { .. }
            | Self::NotAnImage { .. }
            | Self::Archive { .. }
            | Self::Document { .. } => Fault::Corrupt,
            Self::Layer { source, .. } if source.is_archives_fault() => Fault::Corrupt,
            Self::Policy { .. } => Fault::Policy,
            Self::Layer { .. }
            | Self::Keep { .. }
            | Self::CaFile { .. }
            | Self::HostsFile { .. }
            | Self::Credentials { .. }
            | Self::NoSpace { .. } => Fault::Other,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
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
            Self::Layer { source, .. } => {
                source.hint().or_else(|| source.system().and_then(disk_hint))
            }
            Self::Keep { source, .. } => disk_hint(source),
            Self::Archive { .. } => {
                Some("give an OCI layout in a tar archive, or what `docker save` writes".into())
            }
            Self::ArchiveTooLarge { what: "bytes", .. } => Some(
                "if the archive is to be trusted, raise `archive_bytes_max` under `[image]`".into(),
            ),
            Self::HostsFile { path, .. } => {
                Some(format!("correct {}; it is read again at the next pull", path.display()))
            }
            Self::Policy { file, .. } => Some(format!("see {}", file.display())),
            Self::NoSpace { .. } => {
                Some("free space: `hull images` and `hull rmi`, or a larger disk".into())
            }
            Self::Credentials { .. }
            | Self::Document { .. }
            | Self::Answer { .. }
            | Self::TooLarge { .. }
            | Self::ArchiveTooLarge { .. }
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
            Self::Stalled => Some(
                "check the network between; `stall_s` under `[image]` is how long is waited".into(),
            ),
            Self::Broken | Self::Redirect | Self::Other => None,
        }
    }
}

pub(super) fn disk_hint(error: &sys::Error) -> Option<String> {
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
    if said.is_empty() { String::new() } else { format!(": {}", shown(said, REASON_MAX)) }
}
