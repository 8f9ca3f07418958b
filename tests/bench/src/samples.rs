// SPDX-License-Identifier: Apache-2.0
//! Results: for each metric, the samples of each target.
//!
//! Metrics keep the order in which they first came. A sample is a plain number in its metric's unit;
//! nothing is averaged before it gets here but where the metric says "per".

/// The unit of a metric's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds of wall-clock time.
    Ms,
    /// Milliseconds of CPU time.
    CpuMs,
    /// Things done in a second.
    PerSecond,
    /// Megabytes (10^6) in a second.
    MbPerSecond,
    /// Kibibytes of memory.
    Kib,
    /// Per mille of one CPU.
    CpuPerMille,
}

impl Unit {
    /// As it is printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ms => "ms",
            Self::CpuMs => "CPU ms",
            Self::PerSecond => "/s",
            Self::MbPerSecond => "MB/s",
            Self::Kib => "KiB",
            Self::CpuPerMille => "‰ CPU",
        }
    }

    /// Whether the larger number is the better one.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::PerSecond | Self::MbPerSecond)
    }
}

/// One metric with the samples of all targets.
#[derive(Debug)]
pub struct Row {
    /// The work that it belongs to.
    pub work: &'static str,
    /// Name of the metric.
    pub name: String,
    /// Unit of the samples.
    pub unit: Unit,
    /// Samples by target.
    pub samples: Vec<Vec<f64>>,
}

impl Row {
    /// A target's value below which `percent` of its samples lie (nearest rank); none without samples.
    #[must_use]
    pub fn quantile(&self, target: usize, percent: usize) -> Option<f64> {
        quantile(&self.samples[target], percent)
    }

    /// How many times better the first target is than `target`, by medians.
    #[must_use]
    pub fn ratio(&self, target: usize) -> Option<f64> {
        let (first, other) = (self.quantile(0, 50)?, self.quantile(target, 50)?);
        let (over, under) =
            if self.unit.more_is_better() { (first, other) } else { (other, first) };
        (under > 0.0).then(|| over / under)
    }
}

/// The nearest-rank quantile of `samples`.
#[must_use]
pub fn quantile(samples: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// All metrics of a run.
#[derive(Debug)]
pub struct Samples {
    /// In the order in which they came.
    pub rows: Vec<Row>,
    targets: usize,
}

impl Samples {
    /// Nothing measured yet, of `targets` targets.
    #[must_use]
    pub fn of(targets: usize) -> Self {
        Self { rows: Vec::new(), targets }
    }

    /// Where the samples of one target in one work go.
    pub fn sink(&mut self, target: usize, work: &'static str) -> Sink<'_> {
        Sink { samples: self, target, work }
    }
}

/// Takes the samples of one target in one work.
#[derive(Debug)]
pub struct Sink<'s> {
    samples: &'s mut Samples,
    target: usize,
    work: &'static str,
}

impl Sink<'_> {
    /// Adds a sample.
    pub fn add(&mut self, name: &str, unit: Unit, value: f64) {
        let (work, targets) = (self.work, self.samples.targets);
        let rows = &mut self.samples.rows;
        let known = rows.iter().position(|row| row.work == work && row.name == name);
        let at = known.unwrap_or_else(|| {
            let samples = vec![Vec::new(); targets];
            // Beside its kin: a metric that only a later target has comes after its work's others.
            let after =
                rows.iter().rposition(|row| row.work == work).map_or(rows.len(), |at| at + 1);
            rows.insert(after, Row { work, name: name.to_owned(), unit, samples });
            after
        });
        rows[at].samples[self.target].push(value);
    }

    /// Adds a duration.
    pub fn ms(&mut self, name: &str, took: std::time::Duration) {
        self.add(name, Unit::Ms, took.as_secs_f64() * 1e3);
    }

    /// Adds CPU time spent on `count` things, if it is known.
    pub fn cpu(&mut self, name: &str, spent: Option<std::time::Duration>, count: f64) {
        if let Some(spent) = spent {
            self.add(name, Unit::CpuMs, spent.as_secs_f64() * 1e3 / count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&samples, 50), Some(2.0));
        assert_eq!(quantile(&samples, 95), Some(4.0));
        assert_eq!(quantile(&[7.0], 50), Some(7.0));
        assert_eq!(quantile(&[], 50), None);
    }

    #[test]
    fn a_ratio_says_how_many_times_better_the_first_is() {
        let row = |unit| Row {
            work: "w",
            name: "n".into(),
            unit,
            samples: vec![vec![2.0], vec![10.0], vec![]],
        };
        assert_eq!(row(Unit::Ms).ratio(1), Some(5.0));
        assert_eq!(row(Unit::PerSecond).ratio(1), Some(0.2));
        assert_eq!(row(Unit::Ms).ratio(2), None);
    }
}
