// SPDX-License-Identifier: Apache-2.0
//! Output that is missing in the logs of containers: counted in their records, and reported in the daemon's log.
//!
//! The container continues; readers of its log must know that part of it is missing.

use super::data::Task;
use crate::container::log_loss::LogLoss;
use hull_proto::id::ContainerId;
use hull_proto::monitor::LogDropped;
use std::sync::Arc;
use tracing::warn;

impl Task {
    /// Output could not be written.
    pub(super) async fn log_lost(&mut self, id: &ContainerId, bytes: u64, errno: i32) {
        self.node.metrics.log_lost_bytes.add(&[], bytes);
        let log = self.containers.get(id).map_or("", |entry| entry.record.log_path.as_str());
        warn!(
            container = self.name_of(id), container_id = %id.short(), log, lost_bytes = bytes,
            error = %std::io::Error::from_raw_os_error(errno),
            hint = "make room on the filesystem of the log, or have the kubelet rotate earlier (`containerLogMaxSize`)",
            "output of a container is missing in its log"
        );
        self.count_loss(id, |loss| loss.unwritten_bytes = bytes).await;
    }

    /// Output was kept out of a log by its rules, or a rotation failed.
    pub(super) async fn log_dropped(&mut self, id: &ContainerId, dropped: LogDropped) {
        let LogDropped { bytes, lines, journal_lines, rotation_errno } = dropped;
        let before = self.containers.get(id).map(|entry| entry.record.log_loss);
        let log = self.containers.get(id).map_or("", |entry| entry.record.log_path.as_str());
        let before = before.unwrap_or_default();
        if before.bytes != bytes {
            warn!(
                container = %id.short(), log, dropped_bytes = bytes, dropped_lines = lines,
                hint = "have it write less, or raise `logs.rate_limit`, `logs.size_max` or its annotation; with `over_rate = \"wait\"` it waits instead",
                "output of a container exceeds the limits of its log, and is dropped"
            );
        }
        if before.journal_lines != journal_lines {
            warn!(
                container = %id.short(), dropped_lines = journal_lines,
                hint = "see `systemctl status systemd-journald`; the lines are in the container's log",
                "journald did not take lines of a container"
            );
        }
        if let Some(errno) = rotation_errno {
            warn!(
                container = %id.short(), log,
                error = %std::io::Error::from_raw_os_error(errno),
                hint = "make room on the filesystem of the log, and remove what is in the place of a rotated file",
                "log of a container is not rotated; it goes on in the same file"
            );
        }
        self.count_loss(id, |loss| {
            (loss.bytes, loss.lines, loss.journal_lines) = (bytes, lines, journal_lines);
        })
        .await;
    }

    async fn count_loss(&mut self, id: &ContainerId, count: impl FnOnce(&mut LogLoss)) {
        let Some(entry) = self.containers.get_mut(id) else { return };
        let mut loss = entry.record.log_loss;
        count(&mut loss);
        if loss != entry.record.log_loss {
            Arc::make_mut(&mut entry.record).log_loss = loss;
            self.save_container(id).await;
            self.publish();
        }
    }
}
