// SPDX-License-Identifier: Apache-2.0
//! Limits on the cost of NRI plugins, the source of their table in docs/security.md.

use hull_sys::budget::{Budget, Unit};

const DISCONNECTED: &str =
    "it is disconnected; pods run without it, unless it requires its answers";

/// Time limit of one call, in milliseconds.
pub const REQUEST_TIMEOUT_MS: Budget = Budget::setting(
    "nri",
    "request_timeout_ms",
    "time of an NRI plugin for the answer to a call",
    (2000, Unit::Milliseconds),
    DISCONNECTED,
);
/// Time limit of the registration, and again of the synchronization, in milliseconds.
pub const REGISTRATION_TIMEOUT_MS: Budget = Budget::setting(
    "nri",
    "registration_timeout_ms",
    "time of an NRI plugin to register, and again to be synchronized",
    (5000, Unit::Milliseconds),
    "it is disconnected; no pod waits for it",
);
/// Most connections of plugins, registered or not.
pub(crate) const PLUGINS: Budget = Budget::fixed(
    "plugins_max",
    "NRI plugins at a time",
    (64, Unit::Number),
    "the connection is closed",
);
/// Most bytes of a message: the limit of ttrpc itself.
pub(crate) const MESSAGE_BYTES: Budget = Budget::fixed(
    "message_bytes_max",
    "bytes of a message of an NRI plugin",
    (4 << 20, Unit::Bytes),
    DISCONNECTED,
);
/// Most messages that a plugin has not read.
pub(crate) const UNREAD: Budget = Budget::fixed(
    "unread_max",
    "messages that an NRI plugin has not read",
    (8, Unit::Number),
    "further ones wait, within their time",
);
/// Most requests by one plugin at a time.
pub(crate) const SERVED: Budget = Budget::fixed(
    "served_max",
    "requests of an NRI plugin at a time",
    (16, Unit::Number),
    "RESOURCE_EXHAUSTED",
);

/// The table for docs/security.md.
#[must_use]
pub fn table() -> String {
    hull_sys::budget::table(&[
        &REQUEST_TIMEOUT_MS,
        &REGISTRATION_TIMEOUT_MS,
        &PLUGINS,
        &MESSAGE_BYTES,
        &UNREAD,
        &SERVED,
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;

    #[test]
    fn the_table_of_the_docs_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/security.md");
        let docs = std::fs::read_to_string(path).unwrap();
        assert!(docs.contains(&table()), "put this under \"Plugins\" in {path}:\n{}", table());
    }
}
