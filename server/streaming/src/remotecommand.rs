// SPDX-License-Identifier: Apache-2.0
//! What the two sides of exec and attach agree on: which streams there are, and which version of
//! remotecommand says how they are used. Pure.

/// Which standard streams the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What the client types.
    pub stdin: bool,
    /// What the process says.
    pub stdout: bool,
    /// What it complains of; with a terminal that is stdout too.
    pub stderr: bool,
    /// A terminal instead of pipes.
    pub tty: bool,
}

/// Of remotecommand: 1 to 4 in SPDY, 1, 4 and 5 in WebSocket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version(u8);

impl Version {
    /// Those in SPDY, the newest first; the last is for clients that name none.
    pub const NAMES: [&str; 4] =
        ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    /// The one of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(match name {
            "v4.channel.k8s.io" => 4,
            "v3.channel.k8s.io" => 3,
            "v2.channel.k8s.io" => 2,
            _ => 1,
        })
    }

    /// The one of this number.
    #[must_use]
    pub fn numbered(version: u8) -> Self {
        Self(version)
    }

    /// A client with a terminal opens a stream for its sizes.
    #[must_use]
    pub fn has_sizes(self) -> bool {
        self.0 >= 3
    }

    /// How a process ended is told by a document, not by words.
    #[must_use]
    pub fn has_status(self) -> bool {
        self.0 >= 4
    }
}
