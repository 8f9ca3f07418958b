// SPDX-License-Identifier: Apache-2.0
//! One timeline, in memory, on disk and in answers. Pure.
//!
//! Every text in it is escaped and shortened when it is added, so a timeline has a largest size, and can be printed.

use crate::metrics::EndedWork;
use crate::tracer::{Ended, Span, SpanPlace};
use hull_plan::{Certainty, Diagnosis, LastLines, Layer};
use hull_sys::text::shown;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::{Duration, Instant};

/// Most stages of one timeline: a start has about ten. Later ones are only counted.
const STAGES_MAX: usize = 48;
/// Longest message of an end or a stage, in bytes.
const MESSAGE_BYTES_MAX: usize = 2 << 10;
/// Longest name, in bytes: names of Kubernetes are shorter, references of images with a digest fit.
const NAME_BYTES_MAX: usize = 512;
/// Most lines of evidence or output, and the longest of them, in bytes.
const LINES_MAX: usize = 16;
const LINE_BYTES_MAX: usize = 512;
/// Longest output of a failed exec, in bytes.
const OUTPUT_BYTES_MAX: usize = 1 << 10;

/// The kind of object that a timeline is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    #[default]
    Pod,
    Container,
    /// An image, by its last pull.
    Image,
}

/// The recorded life of a pod or container, or a pull. Times are nanoseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Timeline {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// The id of the pod; empty for a pull.
    pub(crate) pod: String,
    pub(crate) namespace: String,
    /// The name of the pod; for a pull, of the pod that it was requested for, if the caller said so.
    pub(crate) pod_name: String,
    /// The name of the container; empty for other kinds.
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// The image as requested, of a container or a pull.
    pub(crate) image: String,
    pub(crate) began_ns: i64,
    pub(crate) stages: Vec<Stage>,
    /// Stages that found no place.
    pub(crate) stages_dropped: u32,
    /// How it ended last; a pod or pull only has one if it failed.
    pub(crate) end: Option<End>,
    /// How its run before this one ended, of a container that was started again with the same id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_end: Option<End>,
    /// Commands that were run in the container: probes, `exec` of people.
    pub(crate) execs: u64,
    pub(crate) failed_exec: Option<FailedExec>,
    /// When it was removed, or when the pull ended.
    pub(crate) gone_ns: Option<i64>,
}

/// Something that was done, and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stage {
    pub(crate) name: Cow<'static, str>,
    /// The stage that it is a part of; empty for a verb of CRI.
    pub(crate) part_of: Cow<'static, str>,
    pub(crate) began_ns: i64,
    /// `None` while it goes on.
    pub(crate) took_us: Option<u64>,
    /// The reason, if it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
    /// Of the monotonic clock, for the duration.
    #[serde(skip)]
    pub(crate) began: Option<Instant>,
    /// Its span, if it is traced.
    #[serde(skip)]
    pub(crate) span: Option<Span>,
}

/// A stage that has ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndedStage {
    /// The stage that it is a part of; empty for a verb of CRI.
    pub(super) part_of: &'static str,
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) failed: bool,
    pub(super) span: Option<Span>,
}

impl EndedStage {
    /// It as the metrics count it.
    pub(super) fn work(&self) -> EndedWork {
        let Self { part_of, name, took, failed, span } = *self;
        EndedWork { part_of, name, took, failed, trace: span.map(|span| span.place.trace) }
    }
}

/// A stage that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenStage {
    /// The stage that it is a part of; empty for a verb of CRI.
    pub(crate) part_of: &'static str,
    pub(crate) name: &'static str,
    pub(crate) age: Duration,
}

/// How something ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct End {
    pub(crate) at_ns: i64,
    /// A word as in ContainerStatus: `Error`, `OOMKilled`, `StartError`.
    pub(crate) reason: String,
    /// Why, as far as that is known; `None` where the reason and the exit code say everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) diagnosis: Option<Diagnosis>,
    /// The last lines that it wrote.
    #[serde(skip_serializing_if = "LastLines::is_empty")]
    pub(crate) output: LastLines,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    /// The end is not a failure: the program succeeded, or was asked to stop.
    pub(crate) ordinary: bool,
}

/// The last command in a container that failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FailedExec {
    pub(crate) at_ns: i64,
    pub(crate) command: String,
    /// Why it could not run, or its exit code.
    pub(crate) outcome: String,
    /// The end of its output, both streams.
    pub(crate) output: String,
}

impl Timeline {
    /// The same with its names and its end escaped and shortened.
    pub(super) fn bounded(mut self) -> Self {
        for name in [
            &mut self.namespace,
            &mut self.pod_name,
            &mut self.name,
            &mut self.image,
            &mut self.pod,
            &mut self.id,
        ] {
            bound(name, NAME_BYTES_MAX);
        }
        if let Some(end) = self.end.take() {
            self.set_end(end);
        }
        self
    }

    /// Begins a stage.
    pub(super) fn begin_stage(&mut self, part_of: &'static str, name: &'static str, at_ns: i64) {
        if self.stages.len() >= STAGES_MAX {
            self.stages_dropped = self.stages_dropped.saturating_add(1);
            return;
        }
        self.stages.push(Stage {
            name: name.into(),
            part_of: part_of.into(),
            began_ns: at_ns,
            took_us: None,
            error: String::new(),
            began: Some(Instant::now()),
            span: None,
        });
    }

    /// Makes the stage that has just begun a span: of the operation that it is a part of, or below `current`.
    pub(super) fn trace_newest(
        &mut self,
        (part_of, name): (&'static str, &'static str),
        current: Option<SpanPlace>,
    ) {
        let is_whole = |of: &&Stage| of.took_us.is_none() && of.name == part_of;
        let whole = || self.stages.iter().rev().find(is_whole)?.span.map(|span| span.place);
        let parent = if part_of.is_empty() { current } else { whole() };
        let newest = self.stages.last_mut();
        let is_new = |of: &&mut Stage| of.name == name && of.took_us.is_none() && of.span.is_none();
        let newest = newest.filter(is_new);
        if let (Some(parent), Some(newest)) = (parent, newest) {
            newest.span = Some(Span::below(parent));
        }
    }

    /// The span of a stage that has ended, with the names of its object.
    pub(super) fn traced(&self, ended: &EndedStage) -> Option<Ended> {
        let span = ended.span?;
        let stage = self.stages.iter().rev().find(|of| of.span == Some(span));
        Some(Ended {
            span,
            name: ended.name.to_owned(),
            is_call: false,
            took: ended.took,
            error: stage.map(|of| of.error.clone()).unwrap_or_default(),
            attributes: vec![
                ("k8s.namespace.name", self.namespace.clone()),
                ("k8s.pod.name", self.pod_name.clone()),
                ("k8s.container.name", self.name.clone()),
                ("container.image.name", self.image.clone()),
            ],
        })
    }

    /// Ends the newest stage of this name that goes on. `error` is empty if it succeeded. Returns the stage that has
    /// ended, if this daemon began it.
    pub(super) fn end_stage(
        &mut self,
        name: &str,
        now_ns: i64,
        error: String,
    ) -> Option<EndedStage> {
        let open = self.stages.iter_mut().rev().find(|of| of.took_us.is_none() && of.name == name);
        let stage = open?;
        // One that an earlier daemon began has only the time of day.
        let of_day = || {
            Duration::from_nanos(u64::try_from(now_ns.saturating_sub(stage.began_ns)).unwrap_or(0))
        };
        let took = stage.began.map_or_else(of_day, |began| began.elapsed());
        stage.took_us = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        stage.error = error;
        bound(&mut stage.error, MESSAGE_BYTES_MAX);
        let (part_of, name) = stage.constants()?;
        let (failed, span) = (!stage.error.is_empty(), stage.span);
        Some(EndedStage { part_of, name, took, failed, span })
    }

    /// Ends all stages that go on, for this reason.
    pub(super) fn end_all_stages(&mut self, now_ns: i64, error: &str) {
        while let Some(open) = self.stages.iter().rev().find(|of| of.took_us.is_none()) {
            let name = open.name.clone();
            let _of_an_earlier_daemon = self.end_stage(&name, now_ns, error.to_owned());
        }
    }

    /// The stages that go on. A part of an operation that has ended was given up, and is none of them.
    pub(super) fn open_stages(&self) -> Vec<OpenStage> {
        let open: Vec<_> = self.stages.iter().filter_map(Stage::open).collect();
        let goes_on = |name| open.iter().any(|of| of.part_of.is_empty() && of.name == name);
        let is_current = |of: &&OpenStage| of.part_of.is_empty() || goes_on(of.part_of);
        open.iter().filter(is_current).copied().collect()
    }

    /// Sets the end.
    pub(super) fn set_end(&mut self, mut end: End) {
        bound(&mut end.reason, NAME_BYTES_MAX);
        if let Some(diagnosis) = &mut end.diagnosis {
            bound(&mut diagnosis.kind, NAME_BYTES_MAX);
            bound(&mut diagnosis.what, MESSAGE_BYTES_MAX);
            for text in [&mut diagnosis.cause, &mut diagnosis.fix].into_iter().flatten() {
                bound(text, MESSAGE_BYTES_MAX);
            }
            bound_lines(&mut diagnosis.evidence);
        }
        bound_lines(&mut end.output.stdout);
        bound_lines(&mut end.output.stderr);
        self.end = Some(end);
    }

    /// The container is started again: this is the timeline of its next run.
    pub(super) fn begin_again(&mut self, attempt: u32, now_ns: i64) {
        (self.attempt, self.began_ns) = (attempt, now_ns);
        self.previous_end = self.end.take();
        self.stages.clear();
        self.stages_dropped = 0;
    }

    /// Sets the last command that failed.
    pub(super) fn set_failed_exec(&mut self, mut exec: FailedExec) {
        bound(&mut exec.command, NAME_BYTES_MAX);
        bound(&mut exec.outcome, MESSAGE_BYTES_MAX);
        bound(&mut exec.output, OUTPUT_BYTES_MAX);
        self.failed_exec = Some(exec);
    }

    /// `namespace/pod/container`, as far as it has them; for a pull the image.
    pub(crate) fn full_name(&self) -> String {
        match self.kind {
            Kind::Pod => format!("{}/{}", self.namespace, self.pod_name),
            Kind::Container => format!("{}/{}/{}", self.namespace, self.pod_name, self.name),
            Kind::Image => self.image.clone(),
        }
    }
}

impl Stage {
    /// The stage that it is a part of, and its name, if this daemon began it: then both are constants of the program.
    fn constants(&self) -> Option<(&'static str, &'static str)> {
        match (&self.part_of, &self.name) {
            (Cow::Borrowed(part_of), Cow::Borrowed(name)) => Some((*part_of, *name)),
            _ => None,
        }
    }

    /// The stage as one that goes on, if it does and this daemon began it.
    fn open(&self) -> Option<OpenStage> {
        let (part_of, name) = self.constants().filter(|_| self.took_us.is_none())?;
        Some(OpenStage { part_of, name, age: self.began?.elapsed() })
    }

    /// Its end, in nanoseconds since the epoch; `now_ns` while it goes on.
    pub(crate) fn end_ns(&self, now_ns: i64) -> i64 {
        self.took_us.map_or(now_ns, |took| {
            let took = i64::try_from(took.saturating_mul(1000)).unwrap_or(i64::MAX);
            self.began_ns.saturating_add(took)
        })
    }
}

/// The kind of the end of a pull that nobody saw: its daemon ended, or its caller left.
pub(crate) const INTERRUPTED: &str = "interrupted";

impl End {
    /// The end of a pull that nobody waited for.
    pub(crate) fn interrupted(at_ns: i64, why: &str) -> Self {
        let diagnosis = Diagnosis {
            kind: INTERRUPTED.into(),
            layer: Layer::Image,
            what: why.to_owned(),
            cause: None,
            certainty: Certainty::Certain,
            evidence: Vec::new(),
            fix: Some("pull it again".into()),
        };
        Self { at_ns, reason: "Interrupted".into(), diagnosis: Some(diagnosis), ..Self::default() }
    }
}

impl FailedExec {
    /// The end of what a command wrote, as it is kept.
    pub(crate) fn tail(stdout: &[u8], stderr: &[u8]) -> String {
        let end = |bytes: &[u8]| {
            let from = bytes.len().saturating_sub(OUTPUT_BYTES_MAX / 2);
            String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).trim().to_owned()
        };
        match (end(stdout), end(stderr)) {
            (out, err) if err.is_empty() => out,
            (out, err) if out.is_empty() => err,
            (out, err) => format!("{out}\n{err}"),
        }
    }
}

/// Escapes lines and shortens them. The last ones are kept.
fn bound_lines(lines: &mut Vec<String>) {
    lines.drain(..lines.len().saturating_sub(LINES_MAX));
    for line in lines {
        bound(line, LINE_BYTES_MAX);
    }
}

/// Escapes a text and shortens it.
fn bound(text: &mut String, bytes_max: usize) {
    *text = shown(text.as_str(), bytes_max);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_ends_with_its_duration_and_error() {
        let mut timeline = Timeline::default();
        timeline.begin_stage("", "start pod", 1_000_000);
        timeline.begin_stage("start pod", "network", 2_000_000);
        timeline.end_stage("network", 3_000_000, "no\u{1b}[2J address".into());
        let [whole, part] = timeline.stages.as_slice() else { panic!("two stages") };
        assert!(whole.took_us.is_none() && part.took_us.is_some());
        assert_eq!(whole.end_ns(9), 9, "it goes on");
        assert!(!part.error.contains('\u{1b}') && part.error.contains("address"), "{}", part.error);
        timeline.end_stage("unknown", 0, String::new());
    }

    #[test]
    fn a_stage_that_was_given_up_or_begun_by_another_daemon_does_not_count_as_open() {
        let names = |of: &Timeline| of.open_stages().iter().map(|of| of.name).collect::<Vec<_>>();
        let mut timeline = Timeline::default();
        timeline.begin_stage("", "start pod", 1);
        timeline.begin_stage("start pod", "network", 2);
        assert_eq!(names(&timeline), ["start pod", "network"]);
        let ended = timeline.end_stage("start pod", 3, "no address".into()).unwrap();
        assert_eq!((ended.part_of, ended.name, ended.failed), ("", "start pod", true));
        assert!(names(&timeline).is_empty(), "its part was given up");
        timeline.begin_stage("", "stop pod", 4);
        let text = serde_json::to_string(&timeline).unwrap();
        let mut back: Timeline = serde_json::from_str(&text).unwrap();
        assert!(names(&back).is_empty());
        assert_eq!(back.end_stage("stop pod", 5, String::new()), None, "it is not counted");
    }

    #[test]
    fn a_stage_of_an_earlier_daemon_ends_by_the_time_of_day() {
        let mut timeline = Timeline::default();
        timeline.begin_stage("", "stop", 1_000_000);
        let text = serde_json::to_string(&timeline).unwrap();
        let mut timeline: Timeline = serde_json::from_str(&text).unwrap();
        timeline.end_all_stages(4_000_000, "it ended");
        assert_eq!(timeline.stages[0].took_us, Some(3000));
        assert_eq!(timeline.stages[0].end_ns(0), 4_000_000);
        timeline.begin_stage("", "stop", 5_000_000);
        let text = serde_json::to_string(&timeline).unwrap();
        let mut back: Timeline = serde_json::from_str(&text).unwrap();
        back.end_stage("stop", i64::MIN, String::new());
        assert_eq!(back.stages[1].took_us, Some(0), "a clock that was set back");
    }

    #[test]
    fn a_timeline_has_a_largest_size() {
        let mut timeline = Timeline::default();
        for _ in 0..1000 {
            timeline.begin_stage("stop pod", "end of processes", 1);
            timeline.end_stage("end of processes", 1, "\u{202e}".repeat(5000));
        }
        let long = || "x\n".repeat(100_000);
        timeline.set_end(End {
            reason: long(),
            diagnosis: Some(Diagnosis {
                kind: long(),
                layer: Layer::Process,
                what: long(),
                cause: Some(long()),
                certainty: Certainty::Likely,
                evidence: vec![long(); 100],
                fix: Some(long()),
            }),
            output: LastLines { stdout: vec![long(); 100], stderr: vec![long(); 100] },
            ..End::default()
        });
        let (command, outcome, output) = (long(), long(), long());
        timeline.set_failed_exec(FailedExec { at_ns: 1, command, outcome, output });
        let bytes = serde_json::to_vec(&timeline).unwrap().len();
        assert!(bytes < 160 << 10, "{bytes}");
        assert_eq!(timeline.stages_dropped, 952);
    }

    #[test]
    fn a_timeline_of_an_older_or_newer_release_is_read() {
        let text = r#"{"kind":"container","id":"c","unknown":{"x":1},"stages":[{"name":"start"}]}"#;
        let timeline: Timeline = serde_json::from_str(text).unwrap();
        assert_eq!((timeline.kind, &*timeline.stages[0].name), (Kind::Container, "start"));
    }

    #[test]
    fn the_output_of_a_failed_command_is_its_end() {
        assert_eq!(FailedExec::tail(b"out\n", b""), "out");
        assert_eq!(FailedExec::tail(b"", b"err\n"), "err");
        let long = [b"a".repeat(5000), b"end".to_vec()].concat();
        let kept = FailedExec::tail(&long, b"err");
        assert!(kept.ends_with("end\nerr") && kept.len() < 600, "{kept}");
    }
}
