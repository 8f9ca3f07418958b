// SPDX-License-Identifier: Apache-2.0
//! Limits on the cost of containers and their clients for a monitor: every limit with its name. docs/security.md shows the
//! table that is made of it.

use hull_sys::budget::{Budget, Unit};

/// As other runtimes have it.
pub(crate) const LOG_PIECE_BYTES: Budget = Budget::fixed(
    "log_piece_bytes_max",
    "bytes of a piece of a line in a log",
    (16 << 10, Unit::Bytes),
    "the line goes on in a further piece (`P`)",
);
/// Sockets per container.
pub(crate) const ATTACHED: Budget = Budget::fixed(
    "attached_max",
    "clients attached to a container at a time",
    (32, Unit::Number),
    "the client is refused",
);
/// Interactive ones alone.
pub(crate) const ATTACH_WAIT_S: Budget = Budget::fixed(
    "attach_wait_s",
    "time that an interactive container waits for a client to take its output",
    (5, Unit::Seconds),
    "the client is disconnected and told so",
);
/// The output that an ended container can have left in a pipe.
pub(crate) const OWED_BYTES: Budget = Budget::fixed(
    "owed_bytes_max",
    "bytes of output kept for a client that does not take them",
    (1 << 20, Unit::Bytes),
    "the client is disconnected and told so",
);
/// A prompt and a screen of text before it.
pub(crate) const UNSEEN_BYTES: Budget = Budget::fixed(
    "unseen_bytes_max",
    "bytes of output of a terminal kept for its first client",
    (16 << 10, Unit::Bytes),
    "older output is only in the log",
);
/// For the explanation of a failure.
pub(crate) const LAST_OUTPUT_BYTES: Budget = Budget::fixed(
    "last_output_bytes_max",
    "bytes of the end of each output stream kept to explain a failure",
    (2 << 10, Unit::Bytes),
    "older output is only in the log",
);
/// Before they have said hello.
pub(crate) const NEWCOMERS: Budget = Budget::fixed(
    "newcomers_max",
    "connections to a monitor that have not said hello",
    (16, Unit::Number),
    "the oldest is closed",
);
/// As long as a daemon waits for the answer.
pub(crate) const HELLO_S: Budget = Budget::fixed(
    "hello_s",
    "time of a connection to a monitor until it has said hello",
    (5, Unit::Seconds),
    "it is closed",
);
/// For the daemon.
pub(crate) const WAITING_BYTES: Budget = Budget::fixed(
    "waiting_bytes_max",
    "bytes that wait for a daemon that does not read",
    (4 << 20, Unit::Bytes),
    "its connection is closed; the next one receives all exits again",
);
/// The word of a container's end.
pub(crate) const ENDING_S: Budget = Budget::fixed(
    "ending_s",
    "time that other killed processes of a container hold up the word of its end",
    (10, Unit::Seconds),
    "its end is reported; the rest is killed with its cgroup",
);

/// The table for docs/security.md.
#[must_use]
pub fn table() -> String {
    hull_sys::budget::table(&[
        &LOG_PIECE_BYTES,
        &ATTACHED,
        &ATTACH_WAIT_S,
        &OWED_BYTES,
        &UNSEEN_BYTES,
        &LAST_OUTPUT_BYTES,
        &NEWCOMERS,
        &HELLO_S,
        &WAITING_BYTES,
        &ENDING_S,
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
        assert!(docs.contains(&table()), "put this under \"Monitors\" in {path}:\n{}", table());
    }
}
