// SPDX-License-Identifier: Apache-2.0
//! The bars of a waterfall. Pure.

use crate::history::{Kind, Stage, Timeline};
use crate::observe::account::Account;
use serde::Serialize;

/// The stages of an end, and their parts: not shown unless they are asked for.
const OF_THE_END: [&str; 3] = ["stop pod", "stop container", "remove container"];

/// A bar of the waterfall. Times are microseconds from the begin of the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bar {
    /// The pod, the container with its attempt, or the image.
    pub(super) of: String,
    pub(super) stage: String,
    /// The stage that it is a part of; empty for a verb.
    pub(super) part_of: String,
    pub(super) began_us: u64,
    /// `null` while it goes on.
    pub(super) took_us: Option<u64>,
    /// Its end; the present while it goes on.
    pub(super) end_us: u64,
    pub(super) error: String,
}

/// The waterfall of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chart {
    pub(super) name: String,
    pub(super) id: String,
    /// Begin of the first stage, nanoseconds since the epoch.
    pub(super) began_ns: i64,
    /// From there to the end of the last stage.
    pub(super) took_us: u64,
    pub(super) stages: Vec<Bar>,
}

/// The bars of an account, sorted by their begin; a stage before its parts.
pub(super) fn chart(account: &Account, all: bool) -> Chart {
    let is_wanted = |stage: &&Stage| {
        all || !OF_THE_END.iter().any(|name| stage.name == *name || stage.part_of == *name)
    };
    let mut stages: Vec<(&Timeline, &Stage)> = account
        .timelines
        .iter()
        .flat_map(|of| of.stages.iter().filter(is_wanted).map(move |stage| (of, stage)))
        .collect();
    stages.sort_by_key(|(of, stage)| (stage.began_ns, !stage.part_of.is_empty(), of.began_ns));
    let began_ns = stages.iter().map(|(_, stage)| stage.began_ns).min().unwrap_or(0);
    let since = |at_ns: i64| u64::try_from(at_ns.saturating_sub(began_ns) / 1000).unwrap_or(0);
    let bar = |(of, stage): &(&Timeline, &Stage)| Bar {
        of: subject(of),
        stage: stage.name.to_string(),
        part_of: stage.part_of.to_string(),
        began_us: since(stage.began_ns),
        took_us: stage.took_us,
        end_us: since(stage.end_ns(account.at_ns)),
        error: stage.error.clone(),
    };
    let stages: Vec<Bar> = stages.iter().map(bar).collect();
    Chart {
        name: account.name.clone(),
        id: account.id.clone(),
        began_ns,
        took_us: stages.iter().map(|bar| bar.end_us).max().unwrap_or(0),
        stages,
    }
}

/// The name of a timeline among those of one pod.
fn subject(of: &Timeline) -> String {
    match of.kind {
        Kind::Pod => "pod".into(),
        Kind::Container if of.attempt > 0 => format!("{} ({})", of.name, of.attempt),
        Kind::Container => of.name.clone(),
        Kind::Image => of.image.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn example() -> Chart {
        let stage = |name: &'static str, part_of: &'static str, began_ns, took_us| Stage {
            name: name.into(),
            part_of: part_of.into(),
            began_ns,
            took_us,
            ..Stage::default()
        };
        let pod = Timeline {
            stages: vec![
                stage("start pod", "", 1_000_000, Some(20_000)),
                stage("network", "start pod", 1_000_000, Some(15_000)),
                stage("stop pod", "", 900_000_000, Some(1000)),
                stage("processes", "stop pod", 900_000_000, Some(1000)),
            ],
            ..Timeline::default()
        };
        let mut failed = stage("launch", "start container", 31_000_000, None);
        failed.error = "no <such> file & \"more\"".into();
        let app = Timeline {
            kind: Kind::Container,
            name: "app".into(),
            attempt: 1,
            stages: vec![stage("start container", "", 31_000_000, None), failed],
            ..Timeline::default()
        };
        let account = Account {
            name: "ns/web".into(),
            timelines: vec![pod, app],
            at_ns: 41_000_000,
            ..Account::default()
        };
        chart(&account, false)
    }

    #[test]
    fn bars_begin_with_the_first_stage_and_go_on_to_the_present() {
        let chart = example();
        let bars: Vec<_> =
            chart.stages.iter().map(|bar| (&*bar.stage, bar.began_us, bar.end_us)).collect();
        assert_eq!(
            bars,
            [
                ("start pod", 0, 20_000),
                ("network", 0, 15_000),
                ("start container", 30_000, 40_000),
                ("launch", 30_000, 40_000),
            ]
        );
        assert_eq!((chart.took_us, &*chart.stages[2].of), (40_000, "app (1)"));
    }

    #[test]
    fn an_account_without_stages_has_no_bars() {
        let chart = chart(&Account::default(), true);
        assert!(chart.stages.is_empty() && chart.took_us == 0);
    }
}
