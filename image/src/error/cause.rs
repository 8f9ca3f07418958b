// SPDX-License-Identifier: Apache-2.0
//! Why content could not be pulled or imported, and the hint for each cause.
//!
//! The rule: no token, password or query of an address gets in here.

use super::kind::ErrorKind;
use super::text::{NAME_MAX, REASON_MAX, shown};
use crate::unpack;
use hull_sys as sys;
use std::path::PathBuf;

/// The reason why content could not be pulled or imported.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// The registry does not have the object.
    #[error("{} does not have {}", shown(host, NAME_MAX), shown(what, NAME_MAX))]
    NotFound {
        /// The host and port of the registry.
        host: String,
        /// The object: a manifest, config, layer or blob.
        what: String,
    },
    /// The registry refuses access with these credentials.
    #[error("{} denies access to {}{}", shown(host, NAME_MAX), shown(what, NAME_MAX), remark(.detail))]
    Denied {
        /// The host and port of the registry.
        host: String,
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The text of the response or of the transport error, escaped and cut.
        detail: String,
        /// Whether the request had credentials.
        with_credentials: bool,
    },
    /// The registry could not be reached.
    #[error("{}: {kind}{}", shown(host, NAME_MAX), remark(.detail))]
    Unreachable {
        /// The host and port of the registry.
        host: String,
        /// How the connection failed.
        kind: Unreachable,
        /// The text of the response or of the transport error, escaped and cut.
        detail: String,
        /// The registry that names the host as its token server; `None` for the registry itself.
        registry: Option<String>,
    },
    /// The registry sent an unexpected response.
    #[error("{} answered HTTP {status} when asked for {}{}", shown(host, NAME_MAX), shown(what, NAME_MAX), remark(.detail))]
    Answer {
        /// The host and port of the registry.
        host: String,
        /// The HTTP status code.
        status: u16,
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The text of the response or of the transport error, escaped and cut.
        detail: String,
    },
    /// The content does not match its digest.
    #[error(
        "{} is corrupt: it should have digest {} but has {}",
        shown(what, NAME_MAX),
        shown(want, NAME_MAX),
        shown(got, NAME_MAX)
    )]
    WrongDigest {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The value that was announced.
        want: String,
        /// The value that was received.
        got: String,
    },
    /// The content does not have the announced size.
    #[error("{} is corrupt: it should have {want} bytes but has {got}", shown(what, NAME_MAX))]
    WrongSize {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The value that was announced.
        want: u64,
        /// The value that was received.
        got: u64,
    },
    /// The layer does not match the diff id in the image's config.
    #[error(
        "layer {} unpacks to {}, but the image's config says {}",
        shown(layer, NAME_MAX),
        shown(got, NAME_MAX),
        shown(want, NAME_MAX)
    )]
    WrongDiffId {
        /// The digest of the layer.
        layer: String,
        /// The value that was announced.
        want: String,
        /// The value that was received.
        got: String,
    },
    /// The object exceeds a limit.
    #[error("{} is larger than the {max} bytes that are allowed", shown(what, NAME_MAX))]
    TooLarge {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The largest value that is allowed.
        max: u64,
    },
    /// The archive of images exceeds a limit.
    #[error("the archive has more than the {max} {what} that are allowed")]
    ArchiveTooLarge {
        /// The object: a manifest, config, layer or blob.
        what: &'static str,
        /// The largest value that is allowed.
        max: u64,
    },
    /// The artifact is not a container image.
    #[error("it is not a container image but {}", shown(media_type, NAME_MAX))]
    NotAnImage {
        /// The media type of the object.
        media_type: String,
    },
    /// The index has no image for this platform.
    #[error(
        "there is no image for {}, only for {}",
        shown(want, NAME_MAX),
        shown(there, REASON_MAX)
    )]
    Platform {
        /// The value that was announced.
        want: String,
        /// The platforms that the index lists.
        there: String,
    },
    /// A document is invalid.
    #[error("{} cannot be read: {}", shown(what, NAME_MAX), shown(why, REASON_MAX))]
    Document {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// A layer could not be unpacked.
    #[error("unpack layer {}", shown(layer, NAME_MAX))]
    Layer {
        /// The digest of the layer.
        layer: String,
        /// The underlying error.
        source: unpack::Error,
    },
    /// The content could not be written to the disk.
    #[error("store {}", shown(what, NAME_MAX))]
    Keep {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The underlying error.
        source: sys::Error,
    },
    /// The file is not an archive of images, or incomplete.
    #[error("it is not an image archive: {}", shown(why, REASON_MAX))]
    Archive {
        /// The reason, as part of a sentence.
        why: String,
    },
    /// A certificate file could not be read.
    #[error("read the certificates {}", path.display())]
    CaFile {
        /// The path of the file or directory.
        path: PathBuf,
        /// The underlying error.
        source: sys::Error,
    },
    /// The settings of a registry are invalid.
    #[error("understand {}: {}", path.display(), shown(why, REASON_MAX))]
    HostsFile {
        /// The path of the file or directory.
        path: PathBuf,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The node's own credentials for a registry could not be obtained.
    #[error(
        "get credentials for {} from {}: {}",
        shown(host, NAME_MAX),
        shown(from, NAME_MAX),
        shown(why, REASON_MAX)
    )]
    Credentials {
        /// The host and port of the registry.
        host: String,
        /// The file or credential helper.
        from: String,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// The image policy refuses the image.
    #[error("the policy does not allow it: {}", shown(why, REASON_MAX))]
    Policy {
        /// The reason, as part of a sentence.
        why: String,
        /// The policy file.
        file: PathBuf,
    },
    /// The disk does not have enough space.
    #[error("store {}: it takes {need} bytes or more, and {free} are free on {}", shown(what, NAME_MAX), path.display())]
    NoSpace {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The least number of bytes that it takes.
        need: u64,
        /// The number of free bytes.
        free: u64,
        /// The path of the file or directory.
        path: PathBuf,
    },
}

/// How the connection to a registry failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// The name does not resolve.
    NoSuchHost,
    /// The connection was refused.
    Refused,
    /// The connection or the response timed out.
    Timeout,
    /// The server's certificate is not trusted.
    Certificate,
    /// The server speaks plain HTTP, not TLS.
    PlainHttp,
    /// TLS failed for another reason.
    Tls,
    /// The connection broke more often than it is retried.
    Broken,
    /// The server sent next to nothing for too long.
    Stalled,
    /// A redirect was not followed.
    Redirect,
    /// Any other failure.
    Other,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoSuchHost => "no such host",
            Self::Refused => "it does not accept connections",
            Self::Timeout => "no answer in time",
            Self::Certificate => "its certificate is not trusted",
            Self::PlainHttp => "it speaks plain HTTP, not HTTPS",
            Self::Tls => "TLS failed",
            Self::Broken => "the connection broke too often",
            Self::Stalled => "the transfer stalled",
            Self::Redirect => "its redirect was not followed",
            Self::Other => "the connection failed",
        })
    }
}

impl Cause {
    /// Whether the content does not match its digest: another mirror may have an intact copy.
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

    /// The same, about the token server that registry `of` names.
    pub(crate) fn of_token_server(mut self, of: &str) -> Self {
        if let Self::Unreachable { registry, .. } = &mut self {
            *registry = Some(of.to_owned());
        }
        self
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Platform { .. } => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Unreachable { .. } | Self::Answer { .. } => ErrorKind::Unreachable,
            Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::WrongDiffId { .. }
            | Self::TooLarge { .. }
            | Self::ArchiveTooLarge { .. }
            | Self::NotAnImage { .. }
            | Self::Archive { .. }
            | Self::Document { .. } => ErrorKind::Corrupt,
            Self::Layer { source, .. } if source.is_archives_fault() => ErrorKind::Corrupt,
            Self::Policy { .. } => ErrorKind::Policy,
            Self::Layer { .. }
            | Self::Keep { .. }
            | Self::CaFile { .. }
            | Self::HostsFile { .. }
            | Self::Credentials { .. }
            | Self::NoSpace { .. } => ErrorKind::Other,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("check repository and tag; a private repository may hide itself".into())
            }
            Self::Denied { with_credentials: false, .. } => {
                Some("it requires credentials: give the pod imagePullSecrets".into())
            }
            Self::Denied { .. } => {
                Some("check username, password and their rights to the repository".into())
            }
            Self::Unreachable { kind, host, registry: None, .. } => kind.hint(host),
            Self::Unreachable { kind, host, registry: Some(registry), .. } => {
                kind.hint_of_token_server(host, registry)
            }
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::WrongDiffId { .. } => Some(
                "nothing of it was stored; push the image again if a second pull fails in the same way".into(),
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
                "if you trust the archive, raise `archive_bytes_max` under `[image]`".into(),
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
                "if that is intended, set `plain_http = true` under `[[image.registry]]` with host = \"{host}\""
            )),
            Self::Certificate => Some(format!(
                "set `ca_file` under `[[image.registry]]` with host = \"{host}\", or install its CA on this machine"
            )),
            Self::Refused | Self::Timeout => {
                Some(format!("check that {host} runs and that no firewall blocks it"))
            }
            Self::Tls => Some(format!(
                "set `plain_http` under `[[image.registry]]` with host = \"{host}\" to match the server"
            )),
            Self::Stalled => {
                Some("check the network; `stall_s` under `[image]` sets the time limit".into())
            }
            Self::Broken | Self::Redirect | Self::Other => None,
        }
    }

    /// A token server has no settings of its own: its registry's hold for it, and the registry says how it is
    /// asked.
    fn hint_of_token_server(self, host: &str, registry: &str) -> Option<String> {
        match self {
            Self::PlainHttp | Self::Tls => Some(format!(
                "registry {registry} names {host} as its token server: have its `realm` say how that is asked, by http:// or https://"
            )),
            Self::Certificate => Some(format!(
                "it is the token server of {registry}: set `ca_file` under `[[image.registry]]` with host = \"{registry}\", or install its CA on this machine"
            )),
            Self::NoSuchHost
            | Self::Refused
            | Self::Timeout
            | Self::Stalled
            | Self::Broken
            | Self::Redirect
            | Self::Other => self.hint(host),
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

fn remark(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {}", shown(detail, REASON_MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_with_a_token_server_is_a_setting_of_its_registry() {
        let cause = |kind| Cause::Unreachable {
            host: "auth.example".into(),
            kind,
            detail: String::new(),
            registry: None,
        };
        for kind in [Unreachable::Certificate, Unreachable::PlainHttp, Unreachable::Tls] {
            let hint = cause(kind).hint().unwrap();
            assert!(hint.contains("host = \"auth.example\""), "{hint}");
            let hint = cause(kind).of_token_server("registry.example").hint().unwrap();
            assert!(hint.contains("registry.example"), "{hint}");
            assert!(!hint.contains("host = \"auth.example\""), "{hint}");
        }
        let away = cause(Unreachable::Refused).of_token_server("registry.example");
        assert!(away.hint().unwrap().contains("auth.example"));
    }
}
