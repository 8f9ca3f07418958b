// SPDX-License-Identifier: Apache-2.0
//! The ways in which a connection to a registry fails.

/// How the connection to a registry failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// The name does not resolve.
    NoSuchHost,
    /// The connection was refused.
    Refused,
    /// The connection or the response timed out.
    Timeout,
    /// No trusted CA signed the server's certificate.
    Certificate,
    /// The server's certificate has expired.
    Expired,
    /// The server's certificate is not valid yet.
    NotYetValid,
    /// The server's certificate is for other names.
    OtherName,
    /// The server speaks plain HTTP, not TLS.
    PlainHttp,
    /// TLS failed for another reason.
    Tls,
    /// The connection broke before the response was complete.
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
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::OtherName => "its certificate is for another name",
            Self::PlainHttp => "it speaks plain HTTP, not HTTPS",
            Self::Tls => "TLS failed",
            Self::Broken => "the connection broke",
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
            Self::Broken | Self::Stalled | Self::Other => true,
            Self::NoSuchHost
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
