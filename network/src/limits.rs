// SPDX-License-Identifier: Apache-2.0
//! Limits for network plugins, by name. docs/security.md has the table that is generated from them.

use hull_sys::budget::{Budget, Unit};

/// One call, with all that the plugin starts.
pub const PLUGIN_TIMEOUT_S: Budget = Budget::setting(
    "network.cni",
    "plugin_timeout_s",
    "time of one call of a network plugin",
    (90, Unit::Seconds),
    "it is killed with its process group; the verb fails and what it did is undone",
);
/// STATUS and GC, which no pod waits for, but every Status of the node, and every pod, would.
pub const SURVEY_S: Budget = Budget::fixed(
    "survey_s",
    "time of a STATUS or GC of a network plugin, and of a VERSION for it, where `plugin_timeout_s` is longer",
    (10, Unit::Seconds),
    "it is killed; NetworkReady is false and says why, GC is tried at the next interval",
);
/// Results are a few KiB.
pub(crate) const ANSWER_BYTES: Budget = Budget::fixed(
    "answer_bytes_max",
    "bytes of a network plugin's answer",
    (1 << 20, Unit::Bytes),
    "it is killed, the verb fails",
);
/// Enough for the sentence that matters.
pub(crate) const COMPLAINT_BYTES: Budget = Budget::fixed(
    "complaint_bytes_max",
    "bytes kept of the end of a network plugin's stderr",
    (2048, Unit::Bytes),
    "what came before is dropped",
);
/// Configurations of networks.
pub(crate) const CONF_BYTES: Budget = Budget::fixed(
    "conf_bytes_max",
    "bytes of a network's configuration",
    (1 << 20, Unit::Bytes),
    "the file is not used",
);
/// The time limit for a plugin call of a daemon that was killed.
pub(crate) const FINISH_S: Budget = Budget::fixed(
    "finish_s",
    "time that a network plugin of an earlier daemon may still take",
    (10, Unit::Seconds),
    "it is killed before the next call about its pod",
);
/// Tries and time after which an agent is taken to be gone for good.
pub(crate) const DEL_TRIES: Budget = Budget::fixed(
    "del_tries",
    "failed tries in a row to detach a pod by its network plugins",
    (100, Unit::Number),
    "once `del_s` is over too, the pod is removed without them, and the log says what may be left",
);
/// Every caller tries: the number alone says nothing about time.
pub(crate) const DEL_S: Budget = Budget::fixed(
    "del_s",
    "time since the first of these failures",
    (6000, Unit::Seconds),
    "once `del_tries` have failed too, the pod is removed without its network plugins",
);
/// An agent that has only been restarted is back by then.
pub(crate) const DEL_TRIES_UNATTACHED: Budget = Budget::fixed(
    "del_tries_unattached",
    "the same for a pod whose ADD never succeeded",
    (10, Unit::Number),
    "once `del_unattached_s` is over too, the pod is removed without them, and the log says what may be left",
);
/// The time that a restart of an agent takes at most.
pub(crate) const DEL_UNATTACHED_S: Budget = Budget::fixed(
    "del_unattached_s",
    "time since the first of these failures",
    (300, Unit::Seconds),
    "once `del_tries_unattached` have failed too, the pod is removed without its network plugins",
);

/// The table for docs/security.md.
#[must_use]
pub fn table() -> String {
    hull_sys::budget::table(&[
        &PLUGIN_TIMEOUT_S,
        &SURVEY_S,
        &FINISH_S,
        &ANSWER_BYTES,
        &COMPLAINT_BYTES,
        &CONF_BYTES,
        &DEL_TRIES,
        &DEL_S,
        &DEL_TRIES_UNATTACHED,
        &DEL_UNATTACHED_S,
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says by its panic what is wrong")]
    use super::*;

    #[test]
    fn the_table_of_the_docs_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
        let docs = std::fs::read_to_string(path).unwrap();
        assert!(docs.contains(&table()), "put this under \"Plugins\" in {path}:\n{}", table());
    }
}
