// SPDX-License-Identifier: Apache-2.0
//! The agreement of both sides of exec and attach: the standard streams, and the version of the remotecommand
//! protocol. Pure.

/// The standard streams that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedStreams {
    /// Input of the process.
    pub stdin: bool,
    /// Output of the process.
    pub stdout: bool,
    /// Error output of the process; with a terminal it is part of stdout.
    pub stderr: bool,
    /// Whether the process gets a terminal instead of pipes.
    pub tty: bool,
}

/// A version of remotecommand: 1 to 4 over SPDY; 1, 4 and 5 over WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version(u8);

impl Version {
    /// The protocol names over SPDY, newest first. The last one is for clients that send no name.
    pub const NAMES: [&str; 4] =
        ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    /// The version with this protocol name; 1 for an unknown name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(match name {
            "v4.channel.k8s.io" => 4,
            "v3.channel.k8s.io" => 3,
            "v2.channel.k8s.io" => 2,
            _ => 1,
        })
    }

    /// The version with this number.
    #[must_use]
    pub fn from_number(version: u8) -> Self {
        Self(version)
    }

    /// Whether a client with a terminal opens a stream for its sizes.
    #[must_use]
    pub fn has_resize(self) -> bool {
        self.0 >= 3
    }

    /// Whether the exit is reported as a JSON status instead of text.
    #[must_use]
    pub fn has_status(self) -> bool {
        self.0 >= 4
    }
}
