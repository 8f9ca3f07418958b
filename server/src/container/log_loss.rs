// SPDX-License-Identifier: Apache-2.0
//! The count of output that is missing in a container's log, a part of its record.

use serde::{Deserialize, Serialize};

/// Output that is missing in a log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LogLoss {
    /// Bytes of output, dropped by the limits of the log.
    pub(crate) bytes: u64,
    /// Lines of output, dropped by the limits of the log.
    pub(crate) lines: u64,
    /// Lines that journald did not take.
    pub(crate) journal_lines: u64,
    /// Bytes of log that could not be written, as on a full disk.
    pub(crate) unwritten_bytes: u64,
}

impl LogLoss {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Everything that is missing in the file, in bytes.
    pub(crate) fn in_file(&self) -> u64 {
        self.bytes.saturating_add(self.unwritten_bytes)
    }
}
