// SPDX-License-Identifier: Apache-2.0
//! Limits on the cost of NRI plugins. docs/security.md shows the table that is made of it.

use hull_sys::budget::{Budget, Unit};

const LET_GO: &str = "its connection is closed; pods go on without it, unless they require it";

/// One call of a plugin.
pub const REQUEST_TIMEOUT_MS: Budget = Budget::setting(
    "nri",
    "request_timeout_ms",
    "time of an NRI plugin for the answer to a call",
    (2000, Unit::Milliseconds),
    LET_GO,
);
/// Both to register and to take in what there is.
pub const REGISTRATION_TIMEOUT_MS: Budget = Budget::setting(
    "nri",
    "registration_timeout_ms",
    "time of an NRI plugin to register, and again to take in what runs",
    (5000, Unit::Milliseconds),
    "its connection is closed; no pod waits for it",
);
/// Connections, registered or not.
pub(crate) const PLUGINS: Budget = Budget::fixed(
    "plugins_max",
    "NRI plugins at a time",
    (64, Unit::Number),
    "the connection is closed",
);
/// ttrpc's own limit.
pub(crate) const MESSAGE_BYTES: Budget = Budget::fixed(
    "message_bytes_max",
    "bytes of a message of an NRI plugin",
    (4 << 20, Unit::Bytes),
    LET_GO,
);
/// Messages that it has not read.
pub(crate) const UNREAD: Budget = Budget::fixed(
    "unread_max",
    "messages that an NRI plugin has not read",
    (8, Unit::Number),
    "further ones wait, within their time",
);
/// Requests of its own.
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
