// SPDX-License-Identifier: Apache-2.0
//! Why content could not be pulled or imported.
//!
//! The rule: no token, password or query of an address gets in here.

use super::kind::ErrorKind;
use super::text::{NAME_MAX, REASON_MAX, shown};
use super::unreachable::Unreachable;
use crate::unpack;
use hull_sys as sys;
use std::path::PathBuf;
use std::time::Duration;

/// The reason why content could not be pulled or imported.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Cause {
    /// The registry does not have the object.
    #[error("{} does not have {} (404 not found)", shown(host, NAME_MAX), shown(what, NAME_MAX))]
    NotFound {
        /// The host and port of the registry.
        host: String,
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The kind of the object.
        object: Object,
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
    #[error("{}{}: {kind}{}", shown(host, NAME_MAX), role(.registry), remark(.detail))]
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
    #[error("{}{}{} answered HTTP {status} when asked for {}{}", shown(host, NAME_MAX), role(.registry), redirects(.redirected_by, host), shown(what, NAME_MAX), remark(.detail))]
    Answer {
        /// The host and port of the registry.
        host: String,
        /// The HTTP status code.
        status: u16,
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The text of the response or of the transport error, escaped and cut.
        detail: String,
        /// The registry that names the host as its token server; `None` for the registry itself.
        registry: Option<String>,
        /// The registry that redirects to the host, or to another address of its own; `None` for what was asked.
        redirected_by: Option<String>,
    },
    /// The response is a page for people, which no registry sends: of a proxy, a firewall or a login.
    #[error(
        "{} answered HTTP {status} with an HTML page when asked for {}",
        shown(host, NAME_MAX),
        shown(what, NAME_MAX)
    )]
    Page {
        /// The host and port of the registry.
        host: String,
        /// The HTTP status code.
        status: u16,
        /// The object: a manifest, config, layer or blob.
        what: String,
    },
    /// Neither the registry nor a mirror of it served the object.
    #[error("{upstream}{}", mirrors_remark(.mirrors))]
    Mirrors {
        /// The failure of the registry itself.
        upstream: Box<Cause>,
        /// The failures of its mirrors, in the order in which they were tried.
        mirrors: Vec<(String, Cause)>,
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
    #[error(
        "{} is corrupt: it should have {want} bytes but has {}",
        shown(what, NAME_MAX),
        size(*got, *want)
    )]
    WrongSize {
        /// The object: a manifest, config, layer or blob.
        what: String,
        /// The value that was announced.
        want: u64,
        /// The value that was received; `None` if more came than was announced, and the rest was not read.
        got: Option<u64>,
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
    #[error("there is no image for {}{}", shown(want, NAME_MAX), others(.there))]
    Platform {
        /// The platform of this machine.
        want: String,
        /// The platforms that the index lists; empty if it lists no image at all.
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
    /// The file is not an archive of images, or not a good one.
    #[error("{fault}: {}", shown(why, REASON_MAX))]
    Archive {
        /// The fault, for its sentence and its hint.
        fault: ArchiveFault,
        /// The reason, as part of a sentence.
        why: String,
    },
    /// A certificate file could not be read.
    #[error("read the certificates {}", path.display())]
    CaFile {
        /// The path of the file or directory.
        path: PathBuf,
        /// The underlying error.
        source: std::sync::Arc<std::io::Error>,
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
    /// The file system has space, but no inode for another file.
    #[error(
        "store {}: no space left for another file: the file system has no free inodes",
        shown(what, NAME_MAX)
    )]
    NoInodes {
        /// The object: a manifest, config, layer or blob.
        what: String,
    },
    /// The disk does not have enough space.
    #[error("store {}: no space left: it takes {need} bytes or more, and {free} are free on {}", shown(what, NAME_MAX), path.display())]
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

/// The fault of an archive of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveFault {
    /// It is not a tar archive.
    #[error("it is not an image archive")]
    NoTar,
    /// It is a tar archive of something else.
    #[error("it is not an image archive")]
    NoImages,
    /// It ends too early, or cannot be read on.
    #[error("the archive is damaged or cut short")]
    Damaged,
    /// It lacks a part that its documents name.
    #[error("the archive is incomplete")]
    Incomplete,
    /// Its documents or entries contradict its format.
    #[error("the archive is malformed")]
    Malformed,
}

/// The kind of an object that a registry was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// A manifest or index, by tag.
    Tag,
    /// A manifest or index, by digest.
    Manifest,
    /// A config, layer or another blob that a manifest names.
    Blob,
}

/// Whether the same request may have another response a moment later, by the HTTP status.
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=504 | 520..=524)
}

impl Cause {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Answer { status, .. } | Self::Page { status, .. } => is_transient_status(*status),
            Self::Unreachable { kind, .. } => kind.is_transient(),
            Self::Mirrors { upstream, .. } => upstream.is_transient(),
            Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::WrongDiffId { .. }
            | Self::TooLarge { .. }
            | Self::ArchiveTooLarge { .. }
            | Self::NotAnImage { .. }
            | Self::Platform { .. }
            | Self::Document { .. }
            | Self::Layer { .. }
            | Self::Keep { .. }
            | Self::Archive { .. }
            | Self::CaFile { .. }
            | Self::HostsFile { .. }
            | Self::Credentials { .. }
            | Self::Policy { .. }
            | Self::NoInodes { .. }
            | Self::NoSpace { .. } => false,
        }
    }

    /// Whether the host may only be restarting: it answered a moment ago, and now it cannot be reached.
    pub(crate) fn may_be_restarting(&self) -> bool {
        let kind = if let Self::Unreachable { kind, .. } = self { Some(*kind) } else { None };
        matches!(
            kind,
            Some(
                Unreachable::Refused
                    | Unreachable::Timeout
                    | Unreachable::NoSuchHost
                    | Unreachable::NoNameServer
                    | Unreachable::NoRoute
            )
        )
    }

    /// Whether the document is not of the kind that was asked for.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Document { .. } | Self::NotAnImage { .. })
    }

    /// Whether the registry does not have the object.
    pub(crate) fn is_missing(&self) -> bool {
        if let Self::Mirrors { upstream, .. } = self {
            return upstream.is_missing();
        }
        matches!(self, Self::NotFound { .. })
    }

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
        if let Self::Unreachable { registry, .. } | Self::Answer { registry, .. } = &mut self {
            *registry = Some(of.to_owned());
        }
        self
    }

    /// The same, about a host to which `registry` redirects.
    pub(crate) fn redirected_by(mut self, registry: &str) -> Self {
        if let Self::Unreachable { detail, .. } | Self::Answer { detail, .. } = &mut self {
            let separator = if detail.is_empty() { "" } else { "; " };
            *detail = format!("{detail}{separator}{registry} redirects to it");
        }
        self
    }

    /// The same, of a server that has answered before: it speaks this scheme.
    pub(crate) fn after_answer(mut self) -> Self {
        if let Self::Unreachable { kind, .. } = &mut self
            && matches!(kind, Unreachable::NoResponse | Unreachable::NotHttp)
        {
            *kind = Unreachable::Broken;
        }
        self
    }

    /// The same with the object that was asked for, where the connection broke and the text does not name it.
    pub(crate) fn asked_for(mut self, what: &str) -> Self {
        if let Self::Unreachable { kind, detail, registry: None, .. } = &mut self
            && kind.is_transient()
            && !detail.contains(what)
        {
            *detail = format!("{detail} (asked for {what})");
        }
        self
    }

    /// The same with the time that the server asks to wait.
    pub(crate) fn asks_to_wait(mut self, time: Duration) -> Self {
        if let Self::Answer { detail, .. } = &mut self {
            let separator = if detail.is_empty() { "" } else { "; " };
            *detail = format!("it asks to wait {} s{separator}{detail}", time.as_secs());
        }
        self
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::Platform { .. } => ErrorKind::NotFound,
            Self::Denied { .. } | Self::Answer { status: 403, .. } => ErrorKind::Denied,
            Self::Unreachable { .. } | Self::Page { .. } => ErrorKind::Unreachable,
            Self::Answer { status, .. } if is_transient_status(*status) => ErrorKind::Unreachable,
            Self::Mirrors { upstream, .. } => upstream.kind(),
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
            Self::Answer { .. }
            | Self::Layer { .. }
            | Self::Keep { .. }
            | Self::CaFile { .. }
            | Self::HostsFile { .. }
            | Self::Credentials { .. }
            | Self::NoInodes { .. }
            | Self::NoSpace { .. } => ErrorKind::Other,
        }
    }
}

fn remark(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {}", shown(detail, REASON_MAX)) }
}

/// The size of content, of which the rest was not read if it is unknown.
fn size(got: Option<u64>, want: u64) -> String {
    got.map_or_else(|| format!("more than {want}"), |got| got.to_string())
}

/// The role of a host that is not the registry itself.
fn role(registry: &Option<String>) -> String {
    registry.as_ref().map_or_else(String::new, |registry| {
        format!(" (the token server of {})", shown(registry, NAME_MAX))
    })
}

/// The registry that redirects to a host, or to another of its own addresses.
fn redirects(registry: &Option<String>, host: &str) -> String {
    registry.as_ref().map_or_else(String::new, |registry| match registry == host {
        true => " (after a redirect of its own)".into(),
        false => format!(" (to which {} redirects)", shown(registry, NAME_MAX)),
    })
}

/// The platforms of the images that there are, or that there is none.
fn others(there: &str) -> String {
    if there.is_empty() {
        return ": the index lists no image (attestations and artifacts of images are none)".into();
    }
    format!(", only for {}", shown(there, REASON_MAX))
}

fn mirrors_remark(mirrors: &[(String, Cause)]) -> String {
    let of = |(host, cause): &(String, Cause)| {
        format!("mirror {}: {}", shown(host, NAME_MAX), shown(cause.to_string(), REASON_MAX))
    };
    format!(" ({})", mirrors.iter().map(of).collect::<Vec<_>>().join("; "))
}
