// SPDX-License-Identifier: Apache-2.0
//! The ways in which a connection to a registry fails.

use crate::reference::host::is_loopback;

/// How the connection to a registry failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no such name.
    NoSuchHost,
    /// No name server of this machine answered, or it failed.
    NoNameServer,
    /// This machine has no route to the address.
    NoRoute,
    /// The connection was refused.
    Refused,
    /// The connection or the response timed out.
    Timeout,
    /// No trusted CA signed the server's certificate.
    Certificate,
    /// The server's certificate is malformed, revoked, or not for servers.
    BadCertificate,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    OtherName,
    /// The server does not speak TLS, but probably plain HTTP.
    PlainHttp,
    /// The server speaks TLS, and was requested by plain HTTP.
    SpeaksTls,
    /// The server's response to a request by plain HTTP is not HTTP.
    NotHttp,
    /// TLS failed for another reason.
    Tls,
    /// The connection broke before the response was complete.
    Broken,
    /// The connection for plain HTTP broke before any response, and the server has not answered by HTTP yet: some
    /// servers that speak TLS do so.
    NoResponse,
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
            Self::NoNameServer => "its name cannot be resolved",
            Self::NoRoute => "this node has no route to it",
            Self::Refused => "it does not accept connections",
            Self::Timeout => "no answer in time",
            Self::Certificate => "its certificate is not trusted",
            Self::BadCertificate => "its certificate is invalid",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::OtherName => "its certificate is for another name",
            Self::PlainHttp => "it does not speak TLS, but probably plain HTTP",
            Self::SpeaksTls => "it speaks HTTPS, not plain HTTP",
            Self::NotHttp => "its response is not HTTP",
            Self::Tls => "TLS failed",
            Self::Broken => "the connection broke",
            Self::NoResponse => "the connection broke before a response came",
            Self::Stalled => "the transfer stalled",
            Self::Redirect => "its redirect was not followed",
            Self::Other => "the connection failed",
        })
    }
}

impl Unreachable {
    /// Whether the same request may succeed a moment later: the connection was there, and broke.
    pub(crate) fn is_transient(self) -> bool {
        match self {
            Self::Broken | Self::NoResponse | Self::Stalled | Self::Other => true,
            Self::NoSuchHost
            | Self::NoNameServer
            | Self::NoRoute
            | Self::BadCertificate
            | Self::SpeaksTls
            | Self::NotHttp
            | Self::Refused
            | Self::Timeout
            | Self::Certificate
            | Self::Expired
            | Self::NotYetValid
            | Self::OtherName
            | Self::PlainHttp
            | Self::Tls
            | Self::Redirect => false,
        }
    }
}

/// Without settings, an address of this machine is requested by plain HTTP.
fn needs_ca_file(host: &str) -> String {
    format!(
        "set `ca_file` under `[[image.registry]]` with host = \"{host}\" to the CA that signed its certificate: without it, hull requests addresses of this machine by plain HTTP"
    )
}

/// The hint for each of them.
impl Unreachable {
    /// About a registry, or a host to which it redirects.
    pub(super) fn hint(self, host: &str) -> String {
        match self {
            Self::NoSuchHost => format!(
                "check the spelling of {host}, and this node's DNS (/etc/resolv.conf): a pull does not use the cluster's"
            ),
            Self::NoNameServer => format!(
                "check the name servers in this node's /etc/resolv.conf: none of them answered for {host}; a pull does not use the cluster's DNS"
            ),
            Self::NoRoute => {
                format!(
                    "check this node's network and routes (ip route), and the address of {host}"
                )
            }
            Self::PlainHttp => format!(
                "if plain HTTP is intended, set `plain_http = true` under `[[image.registry]]` with host = \"{host}\"; else check the port"
            ),
            Self::SpeaksTls if is_loopback(host) => {
                format!("{}; remove `plain_http = true`, if it is set there", needs_ca_file(host))
            }
            Self::SpeaksTls => format!(
                "remove `plain_http = true` under `[[image.registry]]` with host = \"{host}\", or write https:// in its hosts.toml"
            ),
            Self::NotHttp if is_loopback(host) => format!(
                "check the port of {host}; if it speaks TLS, {}, and remove `plain_http = true`, if it is set there",
                needs_ca_file(host)
            ),
            Self::NotHttp => format!(
                "check the port of {host}; if it speaks TLS, remove `plain_http = true` under `[[image.registry]]`"
            ),
            Self::Certificate => format!(
                "set `ca_file` under `[[image.registry]]` with host = \"{host}\" to the CA that signed it (one that is self-signed is its own), or install this CA on this machine"
            ),
            Self::BadCertificate => format!("have {host} get another certificate"),
            Self::Expired => {
                format!("renew the certificate of {host}, and check this machine's clock")
            }
            Self::NotYetValid => format!("check the clocks of this machine and of {host}"),
            Self::OtherName => format!(
                "name the registry as its certificate does, or have {host} get a certificate with that name"
            ),
            Self::Refused => format!(
                "nothing listens on that port, or a firewall rejects it: check that {host} runs and that the port is right"
            ),
            Self::Timeout => format!(
                "check that {host} runs and is reachable from this node: a firewall that drops packets, a wrong address"
            ),
            Self::Tls => format!(
                "check that {host} speaks TLS 1.2 or newer on that port (for plain HTTP set `plain_http = true` under `[[image.registry]]`), and whether it wants a client certificate"
            ),
            Self::Stalled => format!(
                "check {host}, a proxy in front of it, and the network; `stall_s` under `[image]` sets the time limit"
            ),
            Self::NoResponse if is_loopback(host) => format!(
                "try again; if it stays, see the log of {host}; if it speaks TLS, {}",
                needs_ca_file(host)
            ),
            Self::NoResponse => format!(
                "try again; if it stays, check the network, and the log of {host}; if it speaks TLS, remove `plain_http = true` under `[[image.registry]]`"
            ),
            Self::Broken => format!(
                "try again; if it stays, check the network, and the log of {host} or of the proxy in front of it"
            ),
            Self::Redirect => format!("correct where {host} redirects to"),
            Self::Other => format!("check the network between this node and {host}"),
        }
    }

    /// A token server has no settings of its own: its registry's hold for it, and the registry says how it is
    /// requested.
    pub(super) fn hint_of_token_server(self, host: &str, registry: &str) -> String {
        match self {
            Self::PlainHttp | Self::SpeaksTls | Self::NotHttp | Self::Tls => format!(
                "registry {registry} names {host} as its token server: have its `realm` begin with http:// or https://, as {host} is to be requested"
            ),
            Self::Certificate => format!(
                "it is the token server of {registry}: set `ca_file` under `[[image.registry]]` with host = \"{registry}\", or install its CA on this machine"
            ),
            Self::OtherName => format!(
                "have {host} get a certificate with that name, or registry {registry} name its token server as the certificate does"
            ),
            Self::NoSuchHost
            | Self::NoNameServer
            | Self::NoRoute
            | Self::BadCertificate
            | Self::Refused
            | Self::Timeout
            | Self::Expired
            | Self::NotYetValid
            | Self::Stalled
            | Self::Broken
            | Self::Redirect
            | Self::Other => self.hint(host),
            Self::NoResponse => Self::Broken.hint(host),
        }
    }
}
