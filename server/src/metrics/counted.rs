// SPDX-License-Identifier: Apache-2.0
//! The metrics that are counted while the daemon works, each by the code that it is about.

use super::families::{Counters, Histograms, Levels, Scraped};
use super::table;
use hull_sys::time::now_ns;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::Duration;

/// Whether buckets have the ids of traces, which are of OpenMetrics: parsers of Prometheus' own text refuse them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exemplars {
    Included,
    LeftOut,
}

/// Work that has ended now: a stage, a part of the operation `part_of`, or an operation if that is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndedWork {
    pub(crate) part_of: &'static str,
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    pub(crate) failed: bool,
    /// The trace that it is a part of, if that is recorded.
    pub(crate) trace: Option<u128>,
}

/// The counts of this daemon since it started.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// When the daemon started, in nanoseconds since the epoch.
    started_ns: i64,
    pub(crate) call_seconds: Histograms,
    pub(crate) call_errors: Counters,
    pub(crate) calls_in_flight: Levels,
    operation_seconds: Histograms,
    operation_errors: Counters,
    stage_seconds: Histograms,
    stage_errors: Counters,
    pub(crate) container_exits: Counters,
    pub(crate) oom_kills: Counters,
    pub(crate) evictions: Counters,
    pub(crate) log_lost_bytes: Counters,
    pub(crate) leaks_found: Counters,
    pub(crate) leaks_removed: Counters,
    pub(crate) monitors_started: Counters,
    pub(crate) monitors_lost: Counters,
    pub(crate) pulls: Counters,
    pub(crate) sessions: Levels,
    pub(crate) sessions_opened: Counters,
    pub(crate) execs: Counters,
    pub(crate) scrapes: Counters,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let of = &mut registry;
        Self {
            call_seconds: Histograms::register(of, table::CALL_SECONDS),
            call_errors: Counters::register(of, table::CALL_ERRORS),
            calls_in_flight: Levels::register(of, table::CALLS_IN_FLIGHT),
            operation_seconds: Histograms::register(of, table::OPERATION_SECONDS),
            operation_errors: Counters::register(of, table::OPERATION_ERRORS),
            stage_seconds: Histograms::register(of, table::STAGE_SECONDS),
            stage_errors: Counters::register(of, table::STAGE_ERRORS),
            container_exits: Counters::register(of, table::CONTAINER_EXITS),
            oom_kills: Counters::register(of, table::OOM_KILLS),
            evictions: Counters::register(of, table::EVICTIONS),
            log_lost_bytes: Counters::register(of, table::LOG_LOST_BYTES),
            leaks_found: Counters::register(of, table::LEAKS_FOUND),
            leaks_removed: Counters::register(of, table::LEAKS_REMOVED),
            monitors_started: Counters::register(of, table::MONITORS_STARTED),
            monitors_lost: Counters::register(of, table::MONITORS_LOST),
            pulls: Counters::register(of, table::PULLS),
            sessions: Levels::register(of, table::SESSIONS),
            sessions_opened: Counters::register(of, table::SESSIONS_OPENED),
            execs: Counters::register(of, table::EXECS),
            scrapes: Counters::register(of, table::SCRAPES),
            started_ns: now_ns(),
            registry,
        }
    }
}

impl Metrics {
    /// Adds work that has ended now.
    pub(crate) fn ended(&self, work: &EndedWork) {
        let EndedWork { part_of, name, took, failed, trace } = *work;
        if part_of.is_empty() {
            self.operation_seconds.observe(&[name], took, trace);
            if failed {
                self.operation_errors.count(&[name]);
            }
        } else {
            self.stage_seconds.observe(&[part_of, name], took, trace);
            if failed {
                self.stage_errors.count(&[part_of, name]);
            }
        }
    }

    /// When the daemon started, in seconds since the epoch.
    #[expect(clippy::cast_precision_loss, reason = "a float of today's seconds has microseconds")]
    pub(crate) fn started_s(&self) -> f64 {
        self.started_ns as f64 / 1e9
    }

    /// Counts a leak that was found.
    pub(crate) fn leak(&self, kind: &'static str) {
        self.leaks_found.count(&[kind]);
    }

    /// Counts a leak that was removed, if it was.
    pub(crate) fn leak_removed(&self, kind: &'static str, removed: bool) {
        if removed {
            self.leaks_removed.count(&[kind]);
        }
    }

    /// Counts a leak that was found, and whether it was removed.
    pub(crate) fn swept(&self, kind: &'static str, removed: bool) {
        self.leak(kind);
        self.leak_removed(kind, removed);
    }

    /// All of it as OpenMetrics text, with the values that were read for this answer.
    pub(crate) fn text(
        &self,
        scraped: &Scraped,
        exemplars: Exemplars,
    ) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        if exemplars == Exemplars::LeftOut {
            text = without_exemplars(&text);
        }
        encode_registry(&mut text, &scraped.registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

/// The same text without what follows the values of buckets. No label and no help has this mark.
fn without_exemplars(text: &str) -> String {
    let sample = |line| match str::split_once(line, " # {") {
        Some((sample, _)) if !line.starts_with('#') => sample,
        _ => line,
    };
    text.lines().flat_map(|line| [sample(line), "\n"]).collect()
}
