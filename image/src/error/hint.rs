// SPDX-License-Identifier: Apache-2.0
//! The hint for each cause: which change fixes it, and where.
//!
//! The rule: a hint is true for every error that carries it. Where several things could be at fault there is no hint,
//! or it says what to look at.

use super::cause::{ArchiveFault, Cause, Object};
use super::kind::ErrorKind;
use crate::unpack;
use hull_sys as sys;

impl Cause {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { object, .. } => Some(not_found_hint(*object).into()),
            Self::Answer { host, status: 403, redirected_by: Some(registry), .. }
                if host == registry =>
            {
                Some(format!(
                    "{host} redirects to addresses of its storage, which are often valid for a short time: check the clocks of this node and of {host}, and the rights of {host} at its storage; if the repository is private, give the pod imagePullSecrets with a right to it"
                ))
            }
            Self::Answer { host, status: 403, redirected_by: Some(registry), .. } => Some(format!(
                "{registry} gives out addresses of {host}, its storage, that are valid for a short time: check the clocks of this node and of {registry}, the rights of {registry} at its storage, and whether a proxy or firewall in front of {host} refuses"
            )),
            Self::Answer { host, status, registry, .. } => {
                Some(answer_hint(host, *status, registry.as_deref(), self.is_transient()))
            }
            Self::Page { host, .. } => Some(format!(
                "something else than a registry answers for {host}, like a proxy, a firewall or a login page: check the address, and HTTPS_PROXY and NO_PROXY of this daemon"
            )),
            Self::Mirrors { upstream, mirrors } => mirrors_hint(upstream, mirrors),
            Self::Denied { with_credentials, .. } => Some(denied_hint(*with_credentials).into()),
            Self::Unreachable { kind, host, registry: None, .. } => Some(kind.hint(host)),
            Self::Unreachable { kind, host, registry: Some(registry), .. } => {
                Some(kind.hint_of_token_server(host, registry))
            }
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::WrongDiffId { .. } => Some(
                "nothing of it was stored; push the image again if a second pull fails in the same way".into(),
            ),
            Self::Platform { .. } => {
                Some("build and push the image for this machine's platform, or place the pod on another node (nodeSelector kubernetes.io/arch)".into())
            }
            Self::Layer { source, .. } => {
                source.hint().or_else(|| source.system().and_then(disk_hint))
            }
            Self::Keep { source, .. } => disk_hint(source),
            Self::Archive { fault, .. } => Some(archive_hint(*fault).into()),
            Self::ArchiveTooLarge { what: "bytes", .. } => Some(
                "if you trust the archive, raise `archive_bytes_max` under `[image]`".into(),
            ),
            Self::HostsFile { path, .. } => {
                Some(format!("correct {}; it is read again at the next pull", path.display()))
            }
            Self::Policy { file, .. } => Some(format!("see {}", file.display())),
            Self::NoInodes { .. } => Some(
                "remove images with many files (`hull images`, `hull rmi`), or make a file system with more inodes; `df -i` shows them for hull's data directory".into(),
            ),
            Self::NoSpace { .. } => {
                Some("free space: `hull images` and `hull rmi`, or a larger disk".into())
            }
            Self::NotAnImage { .. } => Some(
                "name a container image; charts, signatures and other artifacts are not run".into(),
            ),
            Self::CaFile { path, .. } => Some(format!(
                "let hull read {}, or correct the setting that names it (`ca_file` under `[[image.registry]]`, or `hosts.toml`)",
                path.display()
            )),
            Self::Credentials { from, .. } => Some(format!("correct {from}")),
            Self::Document { what, .. } if what.starts_with('/') => Some(format!("correct {what}")),
            Self::Document { what, .. } if is_of_image(what) => Some(
                "push the image again, with another tool if this one writes such documents; if it is right at the registry, see whether a proxy changes responses".into(),
            ),
            Self::Document { .. } | Self::TooLarge { .. } | Self::ArchiveTooLarge { .. } => None,
        }
    }
}

impl Cause {
    /// The hint for an import, where nothing is pulled or pushed.
    pub(super) fn hint_of_import(&self) -> Option<String> {
        const AGAIN: &str = "nothing of it was stored: copy the archive again, and if the error stays, save the image again";
        let is_altered = matches!(
            self,
            Self::WrongDigest { .. } | Self::WrongSize { .. } | Self::WrongDiffId { .. }
        );
        if is_altered {
            return Some(AGAIN.into());
        }
        if let Self::Platform { want, .. } = self {
            return Some(format!(
                "save the image for this machine's platform: `docker pull --platform {want} IMAGE`, then `docker save IMAGE`"
            ));
        }
        if let Self::NotAnImage { .. } = self {
            let hint = "give an archive of a container image; charts, signatures and other artifacts are not run";
            return Some(hint.into());
        }
        if let Self::Document { .. } | Self::TooLarge { .. } = self {
            return Some(archive_hint(ArchiveFault::Malformed).into());
        }
        if let Self::Layer { source: unpack::Error::Compression { format }, .. } = self {
            return Some(format!(
                "layers may be plain, or compressed with gzip or zstd: save the image again without {format}"
            ));
        }
        if let Self::Layer { source, .. } = self
            && source.is_archives_fault()
            && !matches!(source, unpack::Error::Limit { .. })
        {
            return Some(format!("{AGAIN}; if it is the same then, build it again"));
        }
        if let Self::ArchiveTooLarge { what, .. } = self
            && *what != "bytes"
        {
            return Some("save its images one by one, each in an archive of its own".into());
        }
        self.hint()
    }
}

/// For an archive that is not one of images, or not a good one.
fn archive_hint(fault: ArchiveFault) -> &'static str {
    match fault {
        ArchiveFault::NoTar => {
            "give a tar archive, plain or compressed with gzip, zstd, xz or bzip2, as `docker save`, `podman save` and `hull export` write it"
        }
        ArchiveFault::NoImages => {
            "give an archive that `docker save`, `podman save` or `hull export` wrote, or an image layout whose files are at its top (`tar -C DIRECTORY -c .`); one of a container's files, as `docker export` writes it, becomes an image by a build (`FROM scratch`, `ADD FILE /`)"
        }
        ArchiveFault::Damaged => {
            "copy it again, and compare its checksum with that of the original; or save the image again"
        }
        ArchiveFault::Incomplete => "save the image again, with all of its layers",
        ArchiveFault::Malformed => {
            "save the image again, with another program if this one writes such archives (`docker save`, `podman save`, `skopeo copy`)"
        }
    }
}

/// For a registry that refuses a client, with or without credentials.
fn denied_hint(with_credentials: bool) -> &'static str {
    if with_credentials {
        "check username, password and their rights to the repository; a pod has them from its imagePullSecrets, a pull by hand from `hull login`"
    } else {
        "it requires credentials: give the pod imagePullSecrets; for a pull by hand use `hull login`, or `hull pull -u`"
    }
}

/// For what a registry does not have.
fn not_found_hint(object: Object) -> &'static str {
    match object {
        Object::Tag => {
            "check repository and tag; a private repository may hide itself: give the pod imagePullSecrets (by hand: `hull login`)"
        }
        Object::Manifest => {
            "check repository and digest: the registry may have deleted what no tag names; a private repository may hide itself"
        }
        Object::Blob => {
            "the image is incomplete there, its manifest names this: push the image again"
        }
    }
}

/// For a response of a registry, or of the token server that `registry` names.
fn answer_hint(host: &str, status: u16, registry: Option<&str>, is_transient: bool) -> String {
    match (status, registry) {
        (429, _) => "the registry limits requests: try again later, give the pod imagePullSecrets for a higher limit, or set a mirror".into(),
        (403, _) => format!(
            "if the repository is private, give the pod imagePullSecrets with a right to it; else see whether a proxy or firewall in front of {host} refuses"
        ),
        (401, None) => format!(
            "correct the authentication settings of {host}, with the `realm` that it names as its token server"
        ),
        _ if is_transient => format!(
            "the fault is not this node's: try again later; if it stays, see the log of {host}, or of the proxy in front of it"
        ),
        (_, Some(registry)) => format!(
            "registry {registry} names {host} as its token server: check the `realm` in the registry's settings"
        ),
        (_, None) => format!("check that {host} is a registry with the API below /v2/, and see its log"),
    }
}

/// A registry that cannot be reached may be meant to be out of reach: then the mirror is what to look at.
fn mirrors_hint(upstream: &Cause, mirrors: &[(String, Cause)]) -> Option<String> {
    let of_mirror = || {
        mirrors
            .iter()
            .find_map(|(host, cause)| Some(format!("for mirror {host}: {}", cause.hint()?)))
    };
    let own = upstream.hint();
    if upstream.kind() == ErrorKind::Unreachable {
        of_mirror().or(own)
    } else {
        own.or_else(of_mirror)
    }
}

/// Whether a document is a part of the image, and not a setting or a response.
fn is_of_image(what: &str) -> bool {
    ["the manifest", "manifest ", "the index", "the config", "config ", "the image"]
        .iter()
        .any(|start| what.starts_with(start))
}

pub(super) fn disk_hint(error: &sys::Error) -> Option<String> {
    use rustix::io::Errno;
    match error.errno() {
        Errno::NOSPC => Some(
            "free space or inodes (`df -h`, `df -i`): `hull images` and `hull rmi`, or a larger disk".into(),
        ),
        Errno::DQUOT => Some("raise the quota of hull's data directory, or remove images: `hull images` and `hull rmi`".into()),
        Errno::IO | Errno::STALE => {
            Some("see dmesg: the file system of hull's data directory failed".into())
        }
        Errno::PERM | Errno::ACCESS => {
            Some("run hull as root with CAP_SYS_ADMIN, CAP_CHOWN and CAP_MKNOD".into())
        }
        Errno::ROFS => Some("the data directory is on a read-only filesystem".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Unreachable;

    #[test]
    fn what_helps_with_a_token_server_is_a_setting_of_its_registry() {
        let cause = |kind| Cause::Unreachable {
            host: "auth.example".into(),
            kind,
            detail: String::new(),
            registry: None,
        };
        for kind in [Unreachable::Certificate, Unreachable::PlainHttp, Unreachable::SpeaksTls] {
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
