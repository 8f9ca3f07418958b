// SPDX-License-Identifier: Apache-2.0
//! Findings about a pod, container or image, from its timelines and its present state. Pure.

use super::finding::{Finding, Weight};
use super::reading::Reading;
use crate::container::remark_layer;
use crate::diagnostics::ends::memory::size;
use crate::history::{End, INTERRUPTED, Kind, Timeline};
use hull_plan::{Certainty, Diagnosis, LastLines, Layer};
use std::collections::BTreeMap;

/// How long ago a failed command or an earlier attempt's failure still counts as something that is wrong now.
const RECENT_NS: i64 = 10 * 60 * 1_000_000_000;
/// A stage that goes on for longer is worth a word.
const SLOW_NS: i64 = 10 * 1_000_000_000;
/// Share of the memory limit, in percent, from which a container is near it.
const NEAR_LIMIT_PERCENT: u64 = 90;
/// Share of the periods of a CPU quota, in percent, from which a container is held back; and the fewest periods.
const THROTTLED_PERCENT: u64 = 25;
const PERIODS_MIN: u64 = 50;

/// The findings, the worst first, and of the same weight the newest first.
pub(super) fn findings(
    timelines: &[Timeline],
    readings: &BTreeMap<String, Reading>,
    now_ns: i64,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for of in timelines {
        let reading = readings.get(&of.id).cloned().unwrap_or_default();
        match of.kind {
            Kind::Pod => findings.extend(of.end.as_ref().map(|end| ended(of, end))),
            Kind::Container if is_newest(timelines, of) => {
                container(of, &reading, now_ns, &mut findings);
                findings.extend(restarts(timelines, of, &reading, now_ns));
            }
            Kind::Container => {}
            Kind::Image => {
                let is_here = readings.contains_key(&of.id) && reading.fault.is_none();
                findings.extend(pull(timelines, of).map(|found| unless_here(found, is_here)));
                findings.extend(reading.fault.as_ref().map(|fault| of_image(of, fault, now_ns)));
            }
        }
        let warned = reading.warnings.iter().cloned();
        findings.extend(warned.map(|fault| finding(of, Weight::Warning, now_ns, fault)));
        findings.extend(reading.remarks.iter().map(|remark| remarked(of, remark)));
        findings.extend(slow(of, now_ns));
    }
    findings.sort_by_key(|of| (of.weight, std::cmp::Reverse(of.at_ns)));
    findings
}

fn is_newest(timelines: &[Timeline], of: &Timeline) -> bool {
    // The first one was asked for.
    let is_asked = timelines.first().is_some_and(|first| first.id == of.id);
    is_asked || !attempts(timelines, of).any(|other| other.attempt > of.attempt)
}

/// The other attempts of a container.
fn attempts<'t>(timelines: &'t [Timeline], of: &'t Timeline) -> impl Iterator<Item = &'t Timeline> {
    timelines.iter().filter(|other| {
        other.kind == Kind::Container
            && other.pod == of.pod
            && other.name == of.name
            && other.id != of.id
    })
}

fn container(of: &Timeline, reading: &Reading, now_ns: i64, findings: &mut Vec<Finding>) {
    if let Some(end) = of.end.as_ref().filter(|_| !reading.runs) {
        findings.push(ended(of, end));
    }
    if let Some(exec) = &of.failed_exec {
        let is_recent = reading.runs && now_ns.saturating_sub(exec.at_ns) < RECENT_NS;
        let weight = if is_recent { Weight::Warning } else { Weight::Note };
        // The command itself may hold secrets: it is in `failed_exec`, for readers on the node.
        let what = format!("the last command that failed in it: {}", exec.outcome);
        let fix = "if it is a probe, run it by hand with `hull exec`, and compare its time limit and its address with what the program serves";
        let mut finding = finding(of, weight, exec.at_ns, diagnosis("exec-failed", what, fix));
        finding.failed_exec = Some(exec.clone());
        findings.push(finding);
    }
    if reading.runs {
        counters(of, reading, now_ns, findings);
    }
}

/// Findings from the faults and counters of a running container.
fn counters(of: &Timeline, reading: &Reading, now_ns: i64, findings: &mut Vec<Finding>) {
    for fault in &reading.faults {
        // Its processes were killed, which it may not survive.
        let is_killed = fault.layer == Layer::Cgroup;
        let weight = if is_killed { Weight::Failure } else { Weight::Warning };
        findings.push(finding(of, weight, now_ns, fault.clone()));
    }
    if let Some(limit) = reading.memory_limit_bytes.filter(|limit| *limit > 0) {
        let percent = percent(reading.memory_bytes, limit);
        if percent >= NEAR_LIMIT_PERCENT {
            let what = format!("it uses {percent} % of its memory limit of {}", size(limit));
            let fix =
                "raise the container's memory limit before it is killed, or find out what grew";
            findings.push(finding(
                of,
                Weight::Warning,
                now_ns,
                on_cgroup("near-memory-limit", what, fix),
            ));
        }
    }
    if reading.cpu_periods >= PERIODS_MIN {
        let percent = percent(reading.cpu_throttled_periods, reading.cpu_periods);
        if percent >= THROTTLED_PERCENT {
            let what =
                format!("its CPU limit has held it back in {percent} % of the periods so far");
            let fix = "raise the container's CPU limit, or start fewer threads in it";
            findings.push(finding(of, Weight::Warning, now_ns, on_cgroup("throttled", what, fix)));
        }
    }
}

/// The attempts before, and how the last of them ended.
fn restarts(
    timelines: &[Timeline],
    of: &Timeline,
    reading: &Reading,
    now_ns: i64,
) -> Option<Finding> {
    if of.attempt == 0 {
        return None;
    }
    let before = attempts(timelines, of).filter(|other| other.attempt < of.attempt);
    let last = before
        .filter_map(|other| Some((other, other.end.as_ref()?)))
        .max_by_key(|(other, _)| other.attempt);
    // One that was started again in place has one timeline.
    let last = of.previous_end.as_ref().or(last.map(|(_, end)| end));
    let times = if of.attempt == 1 { "once".to_owned() } else { format!("{} times", of.attempt) };
    let what = format!("it was restarted {times}");
    let Some(end) = last else {
        let note = Diagnosis { fix: None, ..diagnosis("restarted", what, "") };
        return Some(finding(of, Weight::Note, of.began_ns, note));
    };
    let is_recent = now_ns.saturating_sub(end.at_ns) < RECENT_NS;
    let weight =
        if is_recent && !end.ordinary && reading.runs { Weight::Warning } else { Weight::Note };
    let why = explained(of, end);
    let found = Diagnosis { what: format!("{what}; the attempt before {}", why.what), ..why };
    Some(Finding { output: end.output.clone(), ..finding(of, weight, end.at_ns, found) })
}

/// A pull that failed. A container of that image that was made later got it after all; and a pod that was made later
/// does not wait for it: it was for an earlier pod of the same name.
fn pull(timelines: &[Timeline], of: &Timeline) -> Option<Finding> {
    let is_newer = |other: &Timeline| {
        other.kind == Kind::Image && other.image == of.image && other.began_ns > of.began_ns
    };
    let end = of.end.as_ref().filter(|_| !timelines.iter().any(is_newer))?;
    let has_it = |other: &Timeline| {
        other.kind == Kind::Container && other.image == of.image && other.began_ns > end.at_ns
    };
    let is_later_pod = |other: &Timeline| other.kind == Kind::Pod && other.began_ns > end.at_ns;
    let is_over = timelines.iter().any(|other| has_it(other) || is_later_pod(other));
    let weight = if is_over { Weight::Note } else { Weight::Failure };
    Some(Finding { weight, ..ended(of, end) })
}

/// A pull whose end nobody saw, of an image that is on the node: it has come, by that pull or by another.
fn unless_here(found: Finding, is_here: bool) -> Finding {
    let is_over = is_here && found.diagnosis.kind == INTERRUPTED;
    if is_over { Finding { weight: Weight::Note, ..found } } else { found }
}

/// An image that cannot be used as it is.
fn of_image(of: &Timeline, fault: &str, now_ns: i64) -> Finding {
    let fix = format!("`hull pull {}`", of.image);
    let fault = Diagnosis { layer: Layer::Image, ..diagnosis("image", fault.to_owned(), &fix) };
    finding(of, Weight::Failure, now_ns, fault)
}

/// A part of the config that has no effect.
fn remarked(of: &Timeline, remark: &str) -> Finding {
    let layer = if of.kind == Kind::Pod { Layer::Namespace } else { remark_layer(remark) };
    let remark = Diagnosis { fix: None, layer, ..diagnosis("remark", remark.to_owned(), "") };
    finding(of, Weight::Note, of.began_ns, remark)
}

fn slow(of: &Timeline, now_ns: i64) -> Option<Finding> {
    if of.gone_ns.is_some() {
        return None;
    }
    let open = of.stages.iter().rev().find(|stage| stage.took_us.is_none())?;
    let since = now_ns.saturating_sub(open.began_ns);
    (since > SLOW_NS).then(|| {
        let what = format!("`{}` goes on for {} s", open.name, since / 1_000_000_000);
        let fix =
            "see whether storage, the network plugin or the registry answers: `journalctl -u hull`";
        finding(of, Weight::Warning, now_ns, diagnosis("slow-stage", what, fix))
    })
}

fn ended(of: &Timeline, end: &End) -> Finding {
    let weight = if end.ordinary { Weight::Note } else { Weight::Failure };
    Finding { output: end.output.clone(), ..finding(of, weight, end.at_ns, explained(of, end)) }
}

/// The diagnosis of an end; one from its exit code if nothing else is known.
fn explained(of: &Timeline, end: &End) -> Diagnosis {
    if let Some(known) = &end.diagnosis {
        return known.clone();
    }
    let what = match (end.exit_code, end.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => format!("ended: {}", end.reason),
    };
    let what = if end.ordinary && end.exit_code != Some(0) {
        format!("{what} after it was asked to stop")
    } else {
        what
    };
    let fix = format!("read what it wrote: `hull logs {}`", of.full_name());
    let fix = (!end.ordinary).then_some(fix);
    Diagnosis { fix, ..diagnosis("exit", what, "") }
}

fn finding(of: &Timeline, weight: Weight, at_ns: i64, diagnosis: Diagnosis) -> Finding {
    let output = LastLines::default();
    Finding { about: of.full_name(), weight, at_ns, diagnosis, output, failed_exec: None }
}

fn diagnosis(kind: &str, what: String, fix: &str) -> Diagnosis {
    Diagnosis {
        kind: kind.into(),
        layer: Layer::Process,
        what,
        cause: None,
        certainty: Certainty::Certain,
        evidence: Vec::new(),
        fix: Some(fix.to_owned()),
    }
}

fn on_cgroup(kind: &str, what: String, fix: &str) -> Diagnosis {
    Diagnosis { layer: Layer::Cgroup, ..diagnosis(kind, what, fix) }
}

fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::ExitDetails;
    use crate::diagnostics::ends::memory;
    use crate::history::{FailedExec, Stage};

    const NOW: i64 = 1_000_000_000_000;

    fn app(attempt: u32) -> Timeline {
        Timeline {
            kind: Kind::Container,
            id: format!("c{attempt}"),
            pod: "p".into(),
            namespace: "ns".into(),
            pod_name: "web".into(),
            name: "app".into(),
            image: "app:1".into(),
            attempt,
            began_ns: 1,
            ..Timeline::default()
        }
    }

    fn failed(at_ns: i64) -> Option<End> {
        Some(End { at_ns, reason: "Error".into(), exit_code: Some(3), ..End::default() })
    }

    fn runs() -> Reading {
        Reading { runs: true, ..Reading::default() }
    }

    fn found(timelines: &[Timeline], reading: Reading) -> Vec<(Weight, String)> {
        let newest = timelines.first().map(|of| of.id.clone()).unwrap_or_default();
        let readings = BTreeMap::from([(newest, reading)]);
        let found = findings(timelines, &readings, NOW);
        found.into_iter().map(|of| (of.weight, of.diagnosis.what)).collect()
    }

    #[test]
    fn a_container_that_runs_well_has_no_findings() {
        assert!(found(&[app(0)], runs()).is_empty());
        let ordinary = End { ordinary: true, exit_code: Some(0), ..End::default() };
        let done = Timeline { end: Some(ordinary), ..app(0) };
        assert_eq!(found(&[done], Reading::default())[0].0, Weight::Note);
    }

    #[test]
    fn an_exit_without_an_explanation_names_its_code_and_the_log() {
        let timeline = Timeline { end: failed(NOW), ..app(0) };
        let all = findings(&[timeline], &BTreeMap::new(), NOW);
        assert_eq!(all[0].diagnosis.what, "exited with code 3");
        assert!(all[0].diagnosis.fix.as_ref().unwrap().contains("hull logs ns/web/app"));
        assert_eq!((all[0].weight, &*all[0].about), (Weight::Failure, "ns/web/app"));
    }

    #[test]
    fn a_restart_carries_the_reason_of_the_attempt_before() {
        let before = Timeline { end: failed(NOW - 1), ..app(1) };
        let all = found(&[app(2), before.clone()], runs());
        let text = "it was restarted 2 times; the attempt before exited with code 3";
        assert_eq!(all, [(Weight::Warning, text.to_owned())]);
        let old = Timeline { end: failed(NOW - RECENT_NS), ..before };
        assert_eq!(found(&[app(2), old], runs())[0].0, Weight::Note, "long ago");
        assert_eq!(found(&[app(1)], runs())[0].1, "it was restarted once");
        // With the same id.
        let in_place = Timeline { previous_end: failed(NOW - 1), ..app(2) };
        assert_eq!(found(&[in_place], runs()), [(Weight::Warning, text.to_owned())]);
    }

    #[test]
    fn counters_of_a_running_container_become_warnings() {
        let reading = Reading {
            memory_bytes: 95 << 20,
            memory_limit_bytes: Some(100 << 20),
            cpu_periods: 100,
            cpu_throttled_periods: 40,
            ..runs()
        };
        let text = found(&[app(0)], reading).into_iter().map(|(_, text)| text);
        let text = text.collect::<Vec<_>>().join("\n");
        for part in ["95 % of its memory limit of 100 MiB", "40 % of the periods"] {
            assert!(text.contains(part), "{text}");
        }
        let few = Reading { cpu_periods: 4, cpu_throttled_periods: 4, ..runs() };
        assert!(found(&[app(0)], few).is_empty());
        assert_eq!((percent(u64::MAX, 1), percent(1, 0)), (u64::MAX, 0));
        let decimal = Reading { memory_bytes: 1000, memory_limit_bytes: Some(1000), ..runs() };
        assert!(found(&[app(0)], decimal)[0].1.ends_with("limit of 1 kB"), "as it was given");
    }

    #[test]
    fn faults_of_a_running_container_are_those_of_its_status() {
        let details = ExitDetails { oom_kills: 2, ..ExitDetails::default() };
        let killed = memory::diagnosis(&details, 100 << 20, false);
        let zombies = diagnosis("zombies", "5 zombie processes".into(), "use an init");
        let faults = vec![killed.clone(), zombies.clone()];
        let readings = BTreeMap::from([("c0".to_owned(), Reading { faults, ..runs() })]);
        let all = findings(&[app(0)], &readings, NOW);
        let all: Vec<_> = all.into_iter().map(|of| (of.weight, of.diagnosis)).collect();
        assert_eq!(all, [(Weight::Failure, killed), (Weight::Warning, zombies)]);
        assert!(all[0].1.evidence[0].starts_with("2 of its processes"), "{all:?}");
    }

    #[test]
    fn a_fault_that_it_goes_on_with_is_a_warning() {
        let warnings =
            vec![diagnosis("paused", "paused: it does nothing".into(), "`hull unpause x`")];
        let all = found(&[app(0)], Reading { warnings, ..runs() });
        assert_eq!(all, [(Weight::Warning, "paused: it does nothing".to_owned())]);
    }

    #[test]
    fn a_remark_is_a_note() {
        let reading = Reading { remarks: vec!["two volumes".into()], ..runs() };
        assert_eq!(found(&[app(0)], reading), [(Weight::Note, "two volumes".to_owned())]);
    }

    #[test]
    fn the_last_failed_command_is_named_with_its_output() {
        let exec = FailedExec {
            at_ns: NOW,
            command: "probe".into(),
            output: "no".into(),
            ..FailedExec::default()
        };
        let timeline = Timeline { failed_exec: Some(exec), ..app(0) };
        let readings = BTreeMap::from([("c0".to_owned(), runs())]);
        let all = findings(std::slice::from_ref(&timeline), &readings, NOW);
        assert_eq!(
            (all[0].weight, &*all[0].failed_exec.as_ref().unwrap().output),
            (Weight::Warning, "no")
        );
        let later = findings(&[timeline], &readings, NOW + RECENT_NS);
        assert_eq!(later[0].weight, Weight::Note);
    }

    #[test]
    fn a_failed_pull_counts_until_a_container_has_the_image() {
        let pull = Timeline { kind: Kind::Image, name: String::new(), end: failed(5), ..app(0) };
        assert_eq!(found(std::slice::from_ref(&pull), Reading::default())[0].0, Weight::Failure);
        let better = Timeline { end: None, began_ns: 9, id: "later".into(), ..pull.clone() };
        assert!(found(&[better, pull.clone()], Reading::default()).is_empty(), "it came later");
        let later = Timeline { began_ns: 6, ..app(0) };
        assert_eq!(found(&[later, pull], runs())[0].0, Weight::Note);
    }

    #[test]
    fn a_pull_whose_end_nobody_saw_counts_only_while_the_image_is_not_there() {
        let end = Some(End::interrupted(5, "the daemon ended meanwhile"));
        let pull = Timeline { kind: Kind::Image, name: String::new(), end, ..app(0) };
        let weights = |fault: Option<String>| {
            let reading = Reading { fault, ..Reading::default() };
            let all = found(std::slice::from_ref(&pull), reading);
            all.into_iter().map(|of| of.0).collect::<Vec<_>>()
        };
        assert_eq!(weights(None), [Weight::Note]);
        let absent = Some("it is not on this node".to_owned());
        assert_eq!(weights(absent), [Weight::Failure, Weight::Failure]);
    }

    #[test]
    fn a_pull_for_an_earlier_pod_of_the_same_name_says_nothing_of_this_one() {
        let pull = Timeline { kind: Kind::Image, name: String::new(), end: failed(1), ..app(0) };
        let pod = |began_ns| Timeline { kind: Kind::Pod, id: "p".into(), began_ns, ..app(0) };
        let other = Timeline { image: "other:2".into(), began_ns: 6, ..app(0) };
        let weights = |pod| {
            let all = [pod, pull.clone(), other.clone()];
            found(&all, Reading::default()).into_iter().map(|of| of.0).collect::<Vec<_>>()
        };
        assert_eq!(weights(pod(5)), [Weight::Note]);
        assert_eq!(weights(pod(0)), [Weight::Failure], "the pull was for this pod");
    }

    #[test]
    fn an_image_that_is_broken_or_absent_is_a_failure() {
        let image = Timeline { kind: Kind::Image, name: String::new(), ..app(0) };
        let fault = Some("a layer of it is broken".to_owned());
        let all = found(std::slice::from_ref(&image), Reading { fault, ..Reading::default() });
        assert_eq!(all, [(Weight::Failure, "a layer of it is broken".to_owned())]);
        assert!(found(&[image], Reading::default()).is_empty());
    }

    #[test]
    fn a_stage_that_goes_on_for_long_is_named() {
        let stage =
            Stage { name: "network".into(), began_ns: NOW - 2 * SLOW_NS, ..Stage::default() };
        let pod = Timeline { stages: vec![stage], ..Timeline::default() };
        assert_eq!(
            found(std::slice::from_ref(&pod), Reading::default())[0].1,
            "`network` goes on for 20 s"
        );
        let gone = Timeline { gone_ns: Some(NOW), ..pod };
        assert!(found(&[gone], Reading::default()).is_empty());
    }
}
