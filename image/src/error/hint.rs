// SPDX-License-Identifier: Apache-2.0
//! The hint for each cause: which change fixes it, and where.
//!
//! The rule: a hint is true for every error that carries it. Where several things could be at fault there is no hint,
//! or it says what to look at.

use super::cause::{Cause, Object};
use super::kind::ErrorKind;
use super::unreachable::Unreachable;
use hull_sys as sys;

impl Cause {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { object: Object::Tag, .. } => {
                Some("check repository and tag; a private repository may hide itself".into())
            }
            Self::NotFound { object: Object::Manifest, .. } => Some(
                "check repository and digest: the registry may have deleted what no tag names; a private repository may hide itself".into(),
            ),
            Self::NotFound { object: Object::Blob, .. } => Some(
                "the image is incomplete there, its manifest names this: push the image again".into(),
            ),
            Self::Answer { status: 429, .. } => Some(
                "the registry limits requests: wait, give the pod imagePullSecrets for a higher limit, or set a mirror".into(),
            ),
            Self::Answer { registry: Some(registry), host, .. } if !self.is_transient() => Some(format!(
                "registry {registry} names {host} as its token server: check the `realm` in the registry's settings"
            )),
            Self::Answer { host, .. } if self.is_transient() => {
                Some(format!("see the log of {host}, or of the proxy in front of it"))
            }
            Self::Page { host, .. } => Some(format!(
                "something else than a registry answers for {host}, like a proxy, a firewall or a login page: check the address, and HTTPS_PROXY and NO_PROXY of this daemon"
            )),
            Self::Mirrors { upstream, mirrors } => mirrors_hint(upstream, mirrors),
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
            Self::Expired => {
                Some(format!("renew the certificate of {host}, and check this machine's clock"))
            }
            Self::NotYetValid => Some(format!("check the clocks of this machine and of {host}")),
            Self::OtherName => Some(format!(
                "name the registry as its certificate does, or have {host} get a certificate with that name"
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
            | Self::Expired
            | Self::NotYetValid
            | Self::OtherName
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
