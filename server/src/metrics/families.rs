// SPDX-License-Identifier: Apache-2.0
//! Counters, histograms and values of metrics from the table, in the registry of prometheus-client.

use super::table::{Kind, Known};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most labels of a metric.
pub(super) const LABELS_MAX: usize = 4;

/// The upper bounds of buckets, in seconds: from a list that is answered at once to the kubelet's own timeouts.
const BUCKETS: [f64; 17] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0,
];

/// The values of a metric's labels, in the order of the table. They are constants of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Labels {
    keys: &'static [&'static str],
    values: [&'static str; LABELS_MAX],
}

impl Labels {
    fn new(known: &Known, given: &[&'static str]) -> Self {
        debug_assert_eq!(known.labels.len(), given.len(), "labels of {}", known.name);
        let mut values = [""; LABELS_MAX];
        for (value, given) in values.iter_mut().zip(given) {
            *value = given;
        }
        Self { keys: known.labels, values }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for label in self.keys.iter().copied().zip(self.values) {
            EncodeLabel::encode(&label, encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The trace in which a duration was measured, as the label of its exemplar.
#[derive(Debug, Clone, Copy)]
struct Trace(u128);

impl EncodeLabelSet for Trace {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        EncodeLabel::encode(&("trace_id", format!("{:032x}", self.0)), encoder.encode_label())
    }
}

/// The name under which a metric is registered: prometheus-client adds the ending of counters itself.
fn registered_name(known: &Known) -> &'static str {
    match known.kind {
        Kind::Counter => known.name.strip_suffix("_total").unwrap_or(known.name),
        Kind::Gauge | Kind::Histogram => known.name,
    }
}

/// A metric that counts events.
#[derive(Debug)]
pub(crate) struct Counters {
    known: Known,
    /// In use if the metric has no labels.
    plain: Counter,
    family: Family<Labels, Counter>,
}

impl Counters {
    /// Registers the metric. One without labels is 0 until something is counted, so that its first increase is seen.
    pub(super) fn register(registry: &mut Registry, known: Known) -> Self {
        let plain: Counter = Counter::default();
        let family: Family<Labels, Counter> = Family::default();
        let name = registered_name(&known);
        if known.labels.is_empty() {
            registry.register(name, known.help, plain.clone());
        } else {
            registry.register(name, known.help, family.clone());
        }
        Self { known, plain, family }
    }

    /// Counts one event.
    pub(crate) fn count(&self, labels: &[&'static str]) {
        self.add(labels, 1);
    }

    /// Counts `by` events.
    pub(crate) fn add(&self, labels: &[&'static str], by: u64) {
        let labels = Labels::new(&self.known, labels);
        if self.known.labels.is_empty() {
            self.plain.inc_by(by);
        } else {
            self.family.get_or_create(&labels).inc_by(by);
        }
    }
}

/// A metric that measures durations. Each of its buckets keeps the last one that was measured in a recorded trace.
#[derive(Debug)]
pub(crate) struct Histograms {
    known: Known,
    family: Family<Labels, HistogramWithExemplars<Trace>>,
}

impl Histograms {
    pub(super) fn register(registry: &mut Registry, known: Known) -> Self {
        let family: Family<Labels, HistogramWithExemplars<Trace>> =
            Family::new_with_constructor(|| HistogramWithExemplars::new(BUCKETS.into_iter()));
        registry.register(registered_name(&known), known.help, family.clone());
        Self { known, family }
    }

    /// Adds a duration that has ended now, with the trace that it is a part of if that is recorded.
    pub(crate) fn observe(&self, labels: &[&'static str], took: Duration, trace: Option<u128>) {
        let histogram = self.family.get_or_create(&Labels::new(&self.known, labels));
        // A clock before the epoch has no number in the text.
        let measured = trace.map(|_| SystemTime::now()).filter(|now| *now > UNIX_EPOCH);
        histogram.observe(took.as_secs_f64(), trace.map(Trace), measured);
    }
}

/// A metric that goes up and down as something begins and ends.
#[derive(Debug)]
pub(crate) struct Levels {
    known: Known,
    family: Family<Labels, Gauge>,
}

impl Levels {
    pub(super) fn register(registry: &mut Registry, known: Known) -> Self {
        let family: Family<Labels, Gauge> = Family::default();
        registry.register(registered_name(&known), known.help, family.clone());
        Self { known, family }
    }

    /// Counts something that is there until the guard is dropped.
    pub(crate) fn enter(&self, labels: &[&'static str]) -> Level {
        let gauge = self.family.get_or_create_owned(&Labels::new(&self.known, labels));
        gauge.inc();
        Level { gauge }
    }
}

/// Something that is counted as being there, until this is dropped.
#[derive(Debug)]
pub(crate) struct Level {
    gauge: Gauge,
}

impl Drop for Level {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Values that are read when somebody asks for them.
#[derive(Debug, Default)]
pub(crate) struct Scraped {
    pub(super) registry: Registry,
}

impl Scraped {
    /// Adds all values of a metric, each with its labels.
    pub(crate) fn all<const N: usize>(
        &mut self,
        known: Known,
        values: impl IntoIterator<Item = ([&'static str; N], f64)>,
    ) {
        let labeled =
            values.into_iter().map(|(labels, value)| (Labels::new(&known, &labels), value));
        let name = registered_name(&known);
        match known.kind {
            Kind::Counter => {
                let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
                for (labels, value) in labeled {
                    family.get_or_create(&labels).inc_by(value);
                }
                self.registry.register(name, known.help, family);
            }
            Kind::Gauge => {
                let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
                for (labels, value) in labeled {
                    family.get_or_create(&labels).set(value);
                }
                self.registry.register(name, known.help, family);
            }
            // Durations are observed when they end, not when somebody asks.
            Kind::Histogram => debug_assert!(false, "{name} is not read on request"),
        }
    }

    /// Adds the value of a metric without labels.
    pub(crate) fn one(&mut self, known: Known, value: f64) {
        let name = registered_name(&known);
        match known.kind {
            Kind::Counter => {
                let counter = Counter::<f64, AtomicU64>::default();
                counter.inc_by(value);
                self.registry.register(name, known.help, counter);
            }
            Kind::Gauge => {
                let gauge = Gauge::<f64, AtomicU64>::default();
                gauge.set(value);
                self.registry.register(name, known.help, gauge);
            }
            Kind::Histogram => debug_assert!(false, "{name} is not read on request"),
        }
    }

    /// Adds the value of a metric without labels, if it is known.
    pub(crate) fn some(&mut self, known: Known, value: Option<f64>) {
        if let Some(value) = value {
            self.one(known, value);
        }
    }
}
