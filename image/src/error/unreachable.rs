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
